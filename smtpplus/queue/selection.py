"""What is in the queue, for people: selected, page by page, from the recipients' rows alone.

Content lies beside the envelopes of messages and is never read; who looks through a million messages reads a few megabytes of
recipients in the order of their keys. Selectors of one kind are alternatives, those of different kinds must all be met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_

from smtpplus.mail.envelope import queue_id
from smtpplus.queue.rows import domain_of
from smtpplus.queue.rules import Facts, Rule, Rules
from smtpplus.queue.under_way import UnderWay
from smtpplus.storage import schema

State = Literal["waiting", "held", "scheduled", "trying", "deferred"]
STATES: tuple[State, ...] = ("waiting", "held", "scheduled", "trying", "deferred")
PAGE = 1000  # rows read at once
Key = tuple[int, int]  # message id and number of the recipient: the order of all pages
FIRST: Key = (0, -1)
_R = schema.recipients.c


class Selection(msgspec.Struct, frozen=True):
    """What is meant; values are normalized (rules.normalized). Without any selector: everything."""

    users: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    sender_domains: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    state: State | None = None

    def conditions(self, now: float, running: Sequence[int] = ()) -> list[ColumnElement[bool]]:
        """What the database can tell; `QueueView` tells the rest. Of the messages `running` something is under way."""
        found: list[ColumnElement[bool]] = []
        for column, values in (
            (_R.user, self.users),
            (_R.list, self.lists),
            (_R.sender_domain, self.sender_domains),
            (_R.level, self.levels),
            (_R.message_id, self.ids),
        ):
            if values:
                found.append(column.in_(values))
        plain = [value for value in self.destinations if ":" not in value and "xn--" not in value]
        if plain and len(plain) == len(self.destinations):
            found.append(or_(*(func.lower(_R.address).endswith(f"@{value}", autoescape=True) for value in plain)))
        if self.state is not None:
            state = _STATES[self.state](now)
            found.append(or_(state, _R.message_id.in_(running)) if self.state == "trying" and running else state)
        return found


_STATES: dict[State, Callable[[float], ColumnElement[bool]]] = {
    "waiting": lambda now: _R.due <= now,
    "held": lambda now: _R.due <= now,  # which of them are held, the rules know
    "scheduled": lambda now: and_(_R.due > now, _R.attempts == 0),
    "trying": lambda now: and_(_R.due > now, _R.attempts > 0, _R.reply.is_(None)),
    "deferred": lambda now: and_(_R.due > now, _R.attempts > 0, _R.reply.is_not(None)),
}


class Queued(msgspec.Struct, frozen=True):
    """A recipient in the queue. Times are seconds since the epoch."""

    id: int  # of the message
    number: int
    address: str
    level: int
    user: str
    list: str
    sender_domain: str
    attempts: int
    due: float  # 0: at once
    reply: str
    destination: str
    state: State
    rule: Rule | None  # that holds it, or will when it is due; the first if there are several
    rules: tuple[Rule, ...] = ()  # all of them

    @property
    def key(self) -> Key:
        """Its place in the order of pages."""
        return self.id, self.number

    @property
    def name(self) -> str:
        """The queue ID."""
        return queue_id(self.id)

    @property
    def received_at(self) -> float:
        """When it was accepted: ids are made of it."""
        return (self.id >> 20) / 1000


class QueueView:
    """The queue as it stands at `now` under `rules`; `destination` is the router's, `running` what the daemon says is under way.

    What is under way is "trying", whenever it is due. Where the daemon says nothing of it, a first attempt that nobody answered is."""

    def __init__(
        self, connection: Connection, rules: Rules, destination: Callable[[str], str], now: float, running: UnderWay | None = None
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._destination = destination
        self._now = now
        self._running = running if running is not None else UnderWay()

    def select(self, selection: Selection, *, after: Key = FIRST, limit: int | None = None) -> Iterator[Queued]:
        """What is selected, beyond `after`, in the order of keys."""
        left = limit
        while left is None or left > 0:
            rows = self._page(selection, after)
            for row in rows:
                after = (row.message_id, row.number)
                found = self._queued(row)
                if self._meets(selection, found):
                    yield found
                    if left is not None:
                        left -= 1
                        if left == 0:
                            return
            if len(rows) < PAGE:
                return

    def count(self, selection: Selection) -> int:
        """How many rows `select` will look at, at most."""
        query = select(func.count()).select_from(schema.recipients).where(*self._conditions(selection))
        return self._connection.execute(query).scalar() or 0

    def _conditions(self, selection: Selection) -> list[ColumnElement[bool]]:
        return selection.conditions(self._now, self._running.ids)

    def _page(self, selection: Selection, after: Key) -> Any:
        query = select(schema.recipients).where(tuple_(_R.message_id, _R.number) > tuple_(*after), *self._conditions(selection))
        return self._connection.execute(query.order_by(_R.message_id, _R.number).limit(PAGE)).all()

    def _queued(self, row: Any) -> Queued:
        domain = domain_of(row.address)
        destination = self._destination(domain)
        rule: Rule | None = None
        rules: tuple[Rule, ...] = ()
        if self._rules:
            facts = Facts(row.message_id, row.user, row.list, row.sender_domain, row.level, destination, (domain,))
            rule = self._rules.find(facts)
            rules = tuple(self._rules.all(facts)) if rule is not None else ()
        return Queued(
            row.message_id,
            row.number,
            row.address,
            row.level,
            row.user,
            row.list,
            row.sender_domain,
            row.attempts,
            row.due,
            row.reply or "",
            destination,
            self._state(row, destination, rule),
            rule,
            rules,
        )

    def _state(self, row: Any, destination: str, rule: Rule | None) -> State:
        unanswered = row.attempts > 1 or row.reply is None  # a first attempt that was answered is over, whatever was said before
        if row.attempts and unanswered and self._running.has(row.message_id, row.number, destination):
            return "trying"
        if row.due <= self._now:
            return "held" if rule is not None else "waiting"
        if row.attempts == 0:
            return "scheduled"
        return "deferred" if row.reply is not None else "trying"

    def _meets(self, selection: Selection, found: Queued) -> bool:
        if selection.destinations and not {found.destination, domain_of(found.address)}.intersection(selection.destinations):
            return False
        return selection.state is None or found.state == selection.state
