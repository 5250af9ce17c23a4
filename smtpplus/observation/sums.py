"""Sums of days whose history is gone, so that statistics outlive it: by day, list, user and level, as these are few.

They are added to in the transaction that deletes what they count, so that a message is counted once, here or there. Of a day that is
partly gone both are true together. Senders, subjects, campaigns and destinations are as many as clients make them; they go with the
history.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from smtpplus.observation import tally
from smtpplus.observation.statistics import FIELDS, By, Sums, day
from smtpplus.observation.tally import Span
from smtpplus.storage.schema import history, history_steps, refusals, sums, users

KEPT = 2 * 366 * 86_400.0  # seconds
OUTLIVING: frozenset[By] = frozenset(("list", "user", "day", "level"))
KEY = ("day", "list", "user", "level")
_Key = tuple[str, str, str, int]
_S = sums.c


def keep_messages(connection: Connection, numbers: Sequence[int]) -> None:
    """Count the messages with these ids, which are to be deleted now with their steps."""
    found: dict[_Key, Sums] = {}
    h = history.c
    whose: dict[int, Sums] = {}
    query = select(h.id, h.at, h.list, h.user, h.level, h.recipients, h.size, h.story).where(h.id.in_(numbers))
    for number, at, list_, user, level, addresses, size, story in connection.execute(query):
        counted = whose[number] = found.setdefault((day(at), list_, user, level), Sums())
        tally.add_message(counted, addresses, size, story)
    c = history_steps.c
    for number, story in connection.execute(select(c.message_id, c.story).where(c.message_id.in_(numbers))):
        tally.add_outcomes(whose[number], story)
    _add(connection, found)


def keep_refusals(connection: Connection, numbers: Sequence[int]) -> None:
    """Count the refusals with these references, which are to be deleted now, for the lists that their users are in."""
    found: dict[_Key, Sums] = {}
    c = refusals.c
    query = select(c.at, c.user, users.c.list, c["count"]).outerjoin(users, users.c.name == c.user).where(c.id.in_(numbers))
    for at, user, list_, times in connection.execute(query):
        found.setdefault((day(at), list_ or "", user, 0), Sums()).refused += times
    _add(connection, found)


def forget(connection: Connection, now: float) -> None:
    """Delete what is older than KEPT."""
    connection.execute(delete(sums).where(_S.day < day(now - KEPT)))


def _add(connection: Connection, found: Mapping[_Key, Sums]) -> None:
    """Add to the rows, which are made where there are none: all in one go, as the mail waits."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(sums)
    more = {name: _S[name] + statement.excluded[name] for name in FIELDS}
    statement = statement.on_conflict_do_update(index_elements=KEY, set_=more)
    rows = [{**dict(zip(KEY, key, strict=True)), **msgspec.structs.asdict(counted)} for key, counted in found.items()]
    if rows:
        connection.execute(statement, rows)


def count(connection: Connection, by: By, span: Span) -> dict[str, Sums]:
    """What is kept of the whole days that begin in `span`, by key. Messages alone have a level."""
    if by not in OUTLIVING:
        return {}
    query = select(_S[by], *(func.sum(_S[name]) for name in FIELDS)).group_by(_S[by])
    query = query.where(_S.day >= _first_whole_day(span.since), _S.day <= day(span.until - 1))
    if span.list_ is not None:
        query = query.where(_S.list == span.list_)
    if span.user is not None:
        query = query.where(_S.user == span.user)
    if by == "level":
        query = query.where(_S.level > 0)
    return {str(key): Sums(*map(int, values)) for key, *values in connection.execute(query)}


def known_since(connection: Connection, by: By, since: float, *, kept: float, now: float) -> float:
    """From when on all is counted that `since` asks for: `since` itself, unless history that goes back `kept` seconds is gone by then."""
    first, last = connection.execute(select(func.min(_S.day), func.max(_S.day))).one()
    if last is None:  # nothing was ever deleted
        return since
    begins = now - kept
    if last > day(begins):  # less was kept before
        begins = _midnight(day(_midnight(last) + 1.5 * 86_400))
    if since >= begins:
        return since
    if by not in OUTLIVING:
        return begins
    if since >= now - KEPT and first > day(since):  # there was nothing then
        return since
    return max(_midnight(_first_whole_day(since)), _midnight(day(now - KEPT)))


def _midnight(text: str) -> float:
    """When a local day begins."""
    return time.mktime(time.strptime(text, "%Y-%m-%d"))


def _first_whole_day(since: float) -> str:
    """The day that begins at `since` or after it."""
    first = day(since)
    return first if day(since - 1) != first else day(since + 86_400)
