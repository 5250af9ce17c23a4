"""By which rules a message was held, by whom, and for how long: read from the rules that are kept, as waiting states no event.

A rule that stopped a transfer under way is told by the transfer's own events, and left out here. Rules are kept as long as messages live
(queue.rulebook), so that a message of last week may have been held by one that nobody remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from smtpplus import events
from smtpplus.mail.envelope import parse_queue_id
from smtpplus.operation.listing import span
from smtpplus.operation.narration import Decision
from smtpplus.queue.rows import domain_of
from smtpplus.queue.rules import Facts, Rule, Rules
from smtpplus.queue.standing import EVERY

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.observation.record import Life

_MOST = 100  # domains of recipients looked at
_FINAL = (events.Delivered, events.Failed, events.Cancelled, events.Dropped)


class Hold(msgspec.Struct, frozen=True):
    """One spell. Times are seconds since the epoch; `ended` is None while it lasts."""

    rule: Rule
    lifted_by: str
    begun: float
    ended: float | None


def holds(connection: Connection, life: Life, destination: Callable[[str], str], *, waits: bool, now: float) -> list[Hold]:
    """The spells for which rules held any recipient of a message, by their beginning."""
    stopped = {event.cause for event in life.events if isinstance(event, events.Paused)}
    found: dict[int, Hold] = {}
    for rule, lifted_by in _rules(connection, life.at):
        if rule.name in stopped:
            continue
        selects = Rules((msgspec.structs.replace(rule, expires_at=0.0, lifted_at=0.0),))  # whenever it was in force
        for facts, until in _recipients(life, destination, now if waits else None):
            begun, ended = max(rule.created_at, life.at), rule.ends_at
            if begun + EVERY < min(until, now if ended is None else ended) and selects.find(facts) is not None:
                found[rule.id] = Hold(rule, lifted_by, begun, None if rule.in_force(now) else ended)
                break
    return sorted(found.values(), key=lambda hold: hold.begun)


def told(spells: list[Hold], date: Callable[[float], str]) -> Iterator[Decision]:
    """What they say: when each began, and when it ended."""
    for each in spells:
        rule = each.rule
        yield Decision(each.begun, "Held", f"held by {rule.name}" + (f", made by {rule.who}" if rule.who else ""))
        if each.ended is not None:
            by = f"lifted by {each.lifted_by}" if rule.lifted_at and each.lifted_by else "lifted" if rule.lifted_at else "over"
            yield Decision(each.ended, "Released", f"rule {rule.id} is {by}, after {span(each.ended - each.begun)}")


def _rules(connection: Connection, since: float) -> list[tuple[Rule, str]]:
    from sqlalchemy import select

    from smtpplus.queue import rulebook
    from smtpplus.storage.schema import rules

    by = {row.id: row.lifted_by for row in connection.execute(select(rules.c.id, rules.c.lifted_by))}
    return [(rule, by.get(rule.id, "")) for rule in rulebook.load(connection, since=since)]


def _recipients(life: Life, destination: Callable[[str], str], now: float | None) -> Iterator[tuple[Facts, float]]:
    """Facts of the recipients by domain, with the time until which one waited; `now` if any waits still."""
    last: dict[str, float] = {}
    for event in life.events:
        if isinstance(event, _FINAL):
            domain = domain_of(event.recipient)
            last[domain] = max(event.at, last.get(domain, 0.0))
    number, common = parse_queue_id(life.id), (life.user, life.list, domain_of(life.sender), life.level)
    for domain in list(dict.fromkeys(map(domain_of, life.recipients)))[:_MOST]:
        until: Any = now if now is not None else last.get(domain, life.at)
        yield Facts(number, *common, destination(domain), (domain,)), until
