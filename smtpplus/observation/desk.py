"""The alert centre's books: who wants to hear of what, which problems there are, and what is to be told now. Functions over a connection.

Counting, deciding, posting the mail and owing it to the webhook are one transaction, so that counts are exact and nothing is told twice,
whatever dies in between. Of a kind whose mode is `now`, a problem is told at once when it is new; what comes after, and what is of mode
`digest`, is counted and told in a digest. After QUIET without a sign it is forgotten, and new when it comes again.

Invariant: no user's storm hides what is wrong with another. Of one user's problems of a kind AT_ONCE are told at once within a digest's
time, the rest by the digest; those beyond DIFFERENT are one, "(others)" of that user. What concerns no user shares one account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, delete, func, insert, select, update

from smtpplus.observation import letters, owed
from smtpplus.observation.letters import Told
from smtpplus.observation.problems import MODES, Facts, Mode, Problem, default_mode
from smtpplus.storage.schema import alert_settings, lists, problems, users

QUIET = 86_400.0  # seconds
DIFFERENT = 100  # problems of one kind, list and user
AT_ONCE = 5  # of them told at once, of those that began within a digest's time
OTHERS = "(others)"
_P = problems.c
_DEFAULT: Mode = "digest"


class Signs(msgspec.Struct):
    """Equal signs of one problem, counted."""

    problem: Problem
    count: int
    first_at: float
    last_at: float


class Terms(msgspec.Struct, frozen=True):
    """What the desk needs of the house. `post` puts a message into the queue: connection, octets, addresses."""

    hostname: str
    sender: str
    to: tuple[str, ...]  # where no list names others
    digest: float  # seconds; 0: every sign is told at once
    post: Callable[[Connection, bytes, Sequence[str]], object]
    new_name: Callable[[], str]  # a name nobody else has, for the Message-ID and the webhook
    webhook: bool = False  # whether a webhook is owed what is told


class Sent(msgspec.Struct, frozen=True):
    """What was told, to whom: by mail if `to` is not empty, and to the webhook if there is one."""

    told: list[Told]
    to: tuple[str, ...]
    digest: bool


class Settings:
    """Who wants to hear of what, the server's and the lists'."""

    def __init__(self, connection: Connection) -> None:
        s = alert_settings
        self._connection = connection
        self._known: dict[tuple[str, str], tuple[str, ...] | None] = {}
        self.values = {(row.list, row.kind): row.value for row in connection.execute(select(s.c.list, s.c.kind, s.c.value))}

    def mode(self, list_: str, kind: str) -> Mode:
        """The list's word on the kind, on all kinds, the server's on the kind, on all kinds, or the default."""
        for key in ((list_, kind), (list_, "*"), ("", kind), ("", "*")):
            value = self.values.get(key)
            for mode in MODES:
                if value == mode:
                    return mode
        return default_mode(kind)

    def to(self, list_: str, user: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Addresses: those that the user has, else the list, else `default`, the server's."""
        for table, name in ((users, user), (lists, list_)):
            found = self._addresses(table, name) if name else None
            if found is not None:
                return found
        return default

    def _addresses(self, table: Table, name: str) -> tuple[str, ...] | None:
        """What the settings of a user or list say of addresses; None if they say nothing."""
        key = (table.name, name)
        if key not in self._known:
            text = self._connection.execute(select(table.c.settings).where(table.c.name == name)).scalar()
            self._known[key] = msgspec.json.decode(text, type=_Addressed).alerts if text else None
        return self._known[key]


class _Addressed(msgspec.Struct, frozen=True):
    """What is wanted here of accounts' settings, which are JSON."""

    alerts: tuple[str, ...] | None = None


def configure(connection: Connection, list_: str, kind: str, value: str) -> None:
    """Set, or with "inherit" take back, what a list ("": the server) wants for a kind or "*"."""
    s = alert_settings
    connection.execute(delete(s).where(s.c.list == list_, s.c.kind == kind))
    if value != "inherit":
        connection.execute(insert(s).values(list=list_, kind=kind, value=value))


def record(connection: Connection, signs: Iterable[Signs], terms: Terms, now: float) -> list[Sent]:
    """Count `signs`, and tell what is new."""
    signs = list(signs)
    settings = Settings(connection)
    found = _lists(connection, {each.problem.user for each in signs if each.problem.list is None})
    sent: list[Sent] = []
    account = _Account(connection, now - terms.digest)
    for each in signs:
        problem = each.problem
        list_ = found.get(problem.user, "") if problem.list is None else problem.list
        mode = settings.mode(list_, problem.kind)
        if mode == "off":
            continue
        row = _count(connection, each, list_, account)
        if mode == "now" and (not terms.digest or (row.told == 0 and account.may_tell(row, each.problem.user))):
            count = row.count - row.told if not terms.digest else 1  # with a digest, the others are told there
            told = _told(row, count, row.told + count)
            sent.append(_tell(connection, [told], settings.to(list_, told.facts.user, terms.to), terms, now, digest=False))
            _mark(connection, row, row.told + count, now)
    return sent


def digests(connection: Connection, terms: Terms, now: float) -> list[Sent]:
    """Tell what was counted and is due to be told, one digest for each list and its addresses; forget what is over."""
    settings = Settings(connection)
    told_at = func.max(_P.told_at, _P.first_at) if connection.dialect.name == "sqlite" else func.greatest(_P.told_at, _P.first_at)
    query = select(problems).where(_P.count > _P.told, told_at <= now - terms.digest).order_by(_P.list, _P.count.desc())
    due: dict[tuple[str, tuple[str, ...]], list[Told]] = {}
    for row in connection.execute(query).all():
        if settings.mode(row.list, row.kind) != "off":
            count = row._mapping["count"]
            told = _told(row, count - row.told, count)
            due.setdefault((row.list, settings.to(row.list, told.facts.user, terms.to)), []).append(told)
        _mark(connection, row, row._mapping["count"], now)
    sent = [_tell(connection, told, to, terms, now, digest=True) for (_, to), told in due.items()]
    owed.forget(connection, now)
    connection.execute(delete(problems).where(_P.last_at < now - max(QUIET, 2 * terms.digest), _P.told >= _P.count))
    return sent


def _tell(connection: Connection, told: list[Told], to: tuple[str, ...], terms: Terms, now: float, *, digest: bool) -> Sent:
    name = terms.new_name()
    if terms.webhook:
        owed.owe(connection, told, digest=digest, name=name, now=now)
    if to:
        facts: dict[str, Any] = {"hostname": terms.hostname, "sender": terms.sender, "to": to, "message_id": name, "now": now}
        content = letters.digest(told, **facts) if digest else letters.alert(told[0], **facts)
        terms.post(connection, content, to)
    return Sent(told, to, digest)


class _Counted(msgspec.Struct):
    """A row of problems after it was counted up."""

    kind: str
    list: str
    what: str
    count: int
    told: int
    first_at: float
    last_at: float
    facts: str


class _Account:
    """How many problems of one kind, list and user there are, and how many of them began after `since`; each asked once."""

    def __init__(self, connection: Connection, since: float) -> None:
        self._connection = connection
        self._since = since
        self._known: dict[tuple[str, str, str], list[int]] = {}

    def _of(self, kind: str, list_: str, user: str) -> list[int]:
        found = self._known.get((kind, list_, user))
        if found is None:
            ending = msgspec.json.encode({"user": user})[1:].decode()  # the last field of Facts; inside a text its quotes are escaped
            query = select(_P.first_at).where(_P.kind == kind, _P.list == list_, _P.facts.endswith(ending, autoescape=True))
            began = self._connection.scalars(query).all()
            found = self._known[kind, list_, user] = [len(began), sum(at > self._since for at in began)]
        return found

    def full(self, kind: str, list_: str, user: str) -> bool:
        """Whether there is no room for another."""
        return self._of(kind, list_, user)[0] >= DIFFERENT

    def add(self, kind: str, list_: str, user: str) -> None:
        """Another began."""
        self._known[kind, list_, user] = [count + 1 for count in self._of(kind, list_, user)]

    def may_tell(self, row: _Counted, user: str) -> bool:
        """Whether `row`, which is counted already, may be told at once."""
        return row.first_at <= self._since or self._of(row.kind, row.list, user)[1] <= AT_ONCE


def others(problem: Problem) -> Problem:
    """What stands for all further problems of this kind and user."""
    facts = problem.facts
    whom = facts.who if problem.user else "many"
    more = Facts(whom, "more different problems of this kind", facts.why, facts.remedy, "", problem.user)
    what = f"{OTHERS} {problem.user}" if problem.user else OTHERS
    return Problem(problem.kind, problem.list, problem.user, what, more)


def _count(connection: Connection, signs: Signs, list_: str, account: _Account) -> _Counted:
    """Add `signs` to their problem's row, which is made if there is none."""
    problem = signs.problem
    found = _find(connection, problem.kind, list_, problem.what)
    if found is None and account.full(problem.kind, list_, problem.user):
        problem = others(problem)
        found = _find(connection, problem.kind, list_, problem.what)
    what, facts = problem.what, problem.facts
    if found is None:
        row = _Counted(problem.kind, list_, what, signs.count, 0, signs.first_at, signs.last_at, msgspec.json.encode(facts).decode())
        account.add(problem.kind, list_, problem.user)
        connection.execute(insert(problems).values(**msgspec.structs.asdict(row), told_at=0.0))
        return row
    found.count += signs.count
    found.last_at = max(found.last_at, signs.last_at)
    key = (_P.kind == found.kind, _P.list == found.list, _P.what == found.what)
    connection.execute(update(problems).where(*key).values(count=found.count, last_at=found.last_at))
    return found


def _find(connection: Connection, kind: str, list_: str, what: str) -> _Counted | None:
    columns = [problems.c[name] for name in _Counted.__struct_fields__]
    row = connection.execute(select(*columns).where(_P.kind == kind, _P.list == list_, _P.what == what)).one_or_none()
    return _Counted(*row) if row is not None else None


def _mark(connection: Connection, row: Any, told: int, now: float) -> None:
    key = (_P.kind == row.kind, _P.list == row.list, _P.what == row.what)
    connection.execute(update(problems).where(*key).values(told=told, told_at=now))


def _told(row: Any, count: int, total: int) -> Told:
    facts = msgspec.json.decode(row.facts, type=Facts)
    return Told(row.kind, row.list, row.what, count, total, row.first_at, row.last_at, facts)


def _lists(connection: Connection, names: set[str]) -> dict[str, str]:
    """The lists of users; a name that nobody has is in none."""
    return (
        {row.name: row.list for row in connection.execute(select(users.c.name, users.c.list).where(users.c.name.in_(names)))}
        if names
        else {}
    )
