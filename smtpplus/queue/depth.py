"""How much is in the queue, level by level, and for how long the oldest has waited that may go.

Waiting is what is due and no rule holds, counted from when it was accepted or due, whichever is later: that is what shows that a level is
starved. Whatever is asked, the recipients are gone through once, and their rows alone; what rules ask about is grouped by, so that a
rule is looked at once for each user, domain and so on that it could mean, and not for each recipient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, case, func, literal, select, tuple_

from smtpplus.mail.envelope import parse_queue_id
from smtpplus.queue import rulebook, under_way
from smtpplus.queue.rows import domain_of
from smtpplus.queue.rules import Facts, Kind, Rules
from smtpplus.queue.selection import Key, Queued, QueueView, Selection
from smtpplus.storage import schema

OVERDUE = 10_000  # recipients under way whose next attempt is due already that are told from what waits
_R = schema.recipients.c
_ACCEPTED = _R.message_id / literal(1048576000.0)  # seconds: ids are made of it, see entry.EnvelopeIds
_SINCE = case((_R.due > _ACCEPTED, _R.due), else_=_ACCEPTED)


class Level(msgspec.Struct):
    """Recipients of one level by state; `since` is when the one that waits longest was accepted or due, None if none waits."""

    waiting: int = 0
    held: int = 0
    scheduled: int = 0
    deferred: int = 0  # or under way
    since: float | None = None

    @property
    def count(self) -> int:
        """All of them."""
        return self.waiting + self.held + self.scheduled + self.deferred


def depth(connection: Connection, destination: Callable[[str], str], now: float) -> dict[int, Level]:
    """The levels 1 to 5 under the rules in force; `destination` is the router's."""
    rules = Rules(rulebook.in_force(connection, now), now)
    overdue = [each for each in running(connection, destination, now) if each.due <= now][:OVERDUE]  # those of later are counted as such
    levels = {level: Level() for level in range(1, 6)}
    for row in connection.execute(_query(connection.dialect.name, rules, now, [each.key for each in overdue])):
        level = levels[row.level]
        if row.later:
            level.deferred += row.recipients if row.tried else 0
            level.scheduled += 0 if row.tried else row.recipients
        elif _held(row, rules, destination):
            level.held += row.recipients
        else:
            level.waiting += row.recipients
            level.since = row.since if level.since is None else min(level.since, row.since)
    for each in overdue:
        levels[each.level].deferred += 1
    return levels


def running(connection: Connection, destination: Callable[[str], str], now: float) -> list[Queued]:
    """The recipients that the daemon says are under way."""
    said = under_way.read(connection)
    view = QueueView(connection, Rules(), destination, now, said)
    return [each for each in view.select(Selection(ids=tuple(said.ids))) if each.state == "trying"] if said.ids else []


def _query(dialect: str, rules: Rules, now: float, without: Sequence[Key]) -> Select[Any]:
    place = (func.instr if dialect == "sqlite" else func.strpos)(_R.address, "@")
    numbers = [parse_queue_id(value) for value in rules.of("message")]
    told: dict[Kind, ColumnElement[Any]] = {
        "user": _R.user,
        "list": _R.list,
        "sender-domain": _R.sender_domain,
        "destination": func.substr(_R.address, place + 1),
        "message": case((_R.message_id.in_(numbers), _R.message_id), else_=0),
    }
    by: list[ColumnElement[Any]] = [_R.level, (_R.due > now).label("later"), (_R.attempts > 0).label("tried")]
    by += [column.label(kind.replace("-", "_")) for kind, column in told.items() if rules.of(kind)]
    query = select(*by, func.count().label("recipients"), func.min(_SINCE).label("since")).group_by(*by)
    return query.where(tuple_(_R.message_id, _R.number).not_in(without)) if without else query


def _held(row: Any, rules: Rules, destination: Callable[[str], str]) -> bool:
    if not rules:
        return False
    said = row._mapping
    domain = domain_of(f"@{said.get('destination', '')}")
    facts = (said.get("user", ""), said.get("list", ""), said.get("sender_domain", ""), row.level, destination(domain) if domain else "")
    return rules.find(Facts(said.get("message", 0), *facts, (domain,))) is not None
