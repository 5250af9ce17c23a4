"""Adding up the history, row by row, for the statistics: functions over a connection that read what they count and no more.

A story is not decoded for its outcomes: each of its chapters begins with the name of an event, `["Delivered",`. Inside a text the
quotation marks would be escaped, and no recipient, who might begin a list, is without an @: so counting these beginnings is exact. Only
destinations, which are told by the chapters alone, are decoded. A million messages cost two or three seconds; memory grows with the
number of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from smtpplus.observation.record import first_id
from smtpplus.observation.statistics import By, Sums, day, pattern
from smtpplus.observation.story import chapters
from smtpplus.storage.schema import history, history_steps, refusals

PAGE = 1_000  # rows read at once
OUTCOMES = {"Delivered": "delivered", "Deferred": "deferred", "Failed": "failed", "Cancelled": "cancelled"}  # event: field of Sums
_TRIED = OUTCOMES.keys() - {"Cancelled"}  # these name a destination
_BEGINNINGS = tuple((f'["{event}",', name) for event, name in OUTCOMES.items())
_RECIPIENT, _DESTINATION = 2, 3  # places in a chapter of Delivered, Deferred and Failed
_H, _R = history.c, refusals.c
_addresses = msgspec.json.Decoder(list[str]).decode


class Span(msgspec.Struct, frozen=True):
    """What is counted: accepted or refused between two times, seconds since the epoch, perhaps of one list or user alone."""

    since: float
    until: float
    list_: str | None = None
    user: str | None = None

    def messages(self, after: int | None = None) -> list[ColumnElement[bool]]:
        """The conditions on rows of history, beyond the id `after` if one is given."""
        found = [_H.id > (first_id(self.since) - 1 if after is None else after), _H.id < first_id(self.until)]
        found += [_H.list == self.list_] if self.list_ is not None else []
        return found + ([_H.user == self.user] if self.user is not None else [])

    def refused(self) -> list[ColumnElement[bool]]:
        """The conditions on rows of refusals, but for the list."""
        found = [_R.id >= first_id(self.since), _R.id < first_id(self.until)]
        return found + ([_R.user == self.user] if self.user is not None else [])


def _day() -> Callable[[float], str]:
    """`day`, asked once for each quarter of an hour: time zones differ by no less."""
    known: dict[int, str] = {}

    def known_day(at: float) -> str:
        quarter = int(at // 900)
        return known.get(quarter) or known.setdefault(quarter, day(at))

    return known_day


def _column(by: By) -> tuple[Any, Callable[[Any], str]]:
    """What is read of a message, and the key that it makes."""
    if by == "day":
        return _H.at, _day()
    if by == "subject-pattern":
        return _H.subject, pattern
    return _H[by], str


def count(connection: Connection, by: By, span: Span, lists: Mapping[str, str]) -> dict[str, Sums]:
    """Sums by key; `lists` has the list of each user, for refusals. Refusals count where they have such a key: list, user, sender, day."""
    found: dict[str, Sums] = {}
    if by == "destination":
        _count_destinations(connection, span, found)
    else:
        _count_messages(connection, by, span, found)
    for key, refused in _refused(connection, by, span, lists):
        found.setdefault(key, Sums()).refused += refused
    return found


def add_outcomes(sums: Sums, story: str) -> None:
    """Count what a story tells."""
    for beginning, name in _BEGINNINGS:
        times = story.count(beginning)
        if times:
            setattr(sums, name, getattr(sums, name) + times)


def add_message(sums: Sums, addresses: str, size: int, story: str) -> None:
    """Count a message: its row's recipients, size and story."""
    sums.messages += 1
    sums.recipients += len(_addresses(addresses))
    sums.octets += size
    if story:
        add_outcomes(sums, story)


def _count_messages(connection: Connection, by: By, span: Span, found: dict[str, Sums]) -> None:
    column, key = _column(by)
    query = select(column, _H.recipients, _H.size, _H.story).where(*span.messages()).execution_options(yield_per=PAGE)
    for value, addresses, size, story in connection.execute(query):
        name = key(value)
        sums = found.get(name)
        if sums is None:
            sums = found[name] = Sums()
        add_message(sums, addresses, size, story)
    steps = select(column, history_steps.c.story).join(history, _H.id == history_steps.c.message_id).where(*span.messages())
    for value, story in connection.execute(steps.execution_options(yield_per=PAGE)):
        add_outcomes(found.setdefault(key(value), Sums()), story)


def _count_destinations(connection: Connection, span: Span, found: dict[str, Sums]) -> None:
    """A message counts once for each destination, and a recipient where it was tried."""
    after: int | None = None
    while True:
        query = select(_H.id, _H.size, _H.story).where(*span.messages(after)).order_by(_H.id).limit(PAGE)
        rows = connection.execute(query).all()
        steps = _steps(connection, rows[0].id, rows[-1].id) if rows else {}
        for number, size, story in rows:
            outcomes = _outcomes(story)
            if number in steps:
                outcomes += [each for later in steps[number] for each in _outcomes(later)]
            _count_places(found, size, outcomes)
        if len(rows) < PAGE:
            return
        after = rows[-1].id


def _steps(connection: Connection, first: int, last: int) -> dict[int, list[str]]:
    """The later parts of the stories of messages with ids from `first` to `last`."""
    c = history_steps.c
    found: dict[int, list[str]] = {}
    for number, story in connection.execute(select(c.message_id, c.story).where(c.message_id.between(first, last))):
        found.setdefault(number, []).append(story)
    return found


def _outcomes(story: str) -> list[tuple[str, str, str]]:
    """What became of recipients: field of Sums, recipient, destination."""
    return [
        (OUTCOMES[chapter[0]], chapter[_RECIPIENT], chapter[_DESTINATION])
        for chapter in chapters(story)
        if len(chapter) > _DESTINATION and chapter[0] in _TRIED
    ]


def _count_places(found: dict[str, Sums], size: int, outcomes: list[tuple[str, str, str]]) -> None:
    for outcome, _, place in outcomes:
        sums = found.get(place)
        if sums is None:
            sums = found[place] = Sums()
        setattr(sums, outcome, getattr(sums, outcome) + 1)
    tried = {(recipient, place) for _, recipient, place in outcomes}
    for _, place in tried:
        found[place].recipients += 1
    for place in {place for _, place in tried}:
        found[place].messages += 1
        found[place].octets += size


def _refused(connection: Connection, by: By, span: Span, lists: Mapping[str, str]) -> Iterable[tuple[str, int]]:
    """How many were refused, under which key."""
    if by == "day":
        key = _day()
        rows = connection.execute(select(_R.user, _R.at, _R["count"]).where(*span.refused()).execution_options(yield_per=PAGE))
    elif by in ("list", "user", "sender"):
        key = str
        second = _R.sender if by == "sender" else _R.user
        rows = connection.execute(select(_R.user, second, func.sum(_R["count"])).where(*span.refused()).group_by(_R.user, second))
    else:
        return
    for user, value, times in rows:
        if span.list_ in (None, lists.get(user, "")):
            yield (lists.get(user, "") if by == "list" else key(value)), int(times)
