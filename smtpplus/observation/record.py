"""Reading the history: a message's life by its queue ID or Message-ID, a user's messages and refusals. Functions over a connection.

Ids grow with time, so that a span of time is a range of keys: nothing here needs an index of its own. A Message-ID of the header is
looked for in the marks of each batch (observation.marks), and among what is older than the oldest of them by reading it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, select

from smtpplus.events import Cancelled, Deferred, Delivered, Event, Failed, Started
from smtpplus.mail.envelope import queue_id
from smtpplus.observation import marks, story
from smtpplus.storage.schema import history, history_steps, message_ids, refusals

BATCH = 500  # rows whose later steps are read at once
_BATCH_LASTS = 2_000  # milliseconds between the first and the last refusal that share an entry, at most
ALIKE = 100  # messages told of one Message-ID, the latest
_EARLIER = 30.0  # seconds: mail that was accepted so long before may be on its way still
_ATTEMPTED = (Delivered, Failed, Deferred)
_BRIEF = 1.0  # seconds: see observation.history
_ENDS = (Delivered, Failed, Cancelled, Deferred)
_LAST = (1 << 63) - 1 >> 20  # milliseconds: what an id of 64 bits has room for, until the year 2248


class Life(msgspec.Struct, frozen=True):
    """What is known of one message. `accepted` is false for one that was accepted before the history began, or without it."""

    id: str
    at: float  # when it was accepted
    accepted: bool
    events: list[Event]  # by time
    user: str = ""
    list: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    level: int = 0
    size: int = 0
    session: str = ""
    client: str = ""
    message_id: str = ""
    subject: str = ""
    campaign: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """One refusal; `count` is more than 1 where equal ones share a row."""

    reference: str
    at: float
    session: str
    client: str
    user: str
    sender: str
    recipient: str
    reason: str
    reply: str
    count: int


def first_id(since: float) -> int:
    """The least id of what was accepted or refused at `since`, seconds since the epoch; what no id can say is the first or last moment."""
    return int(min(max(since * 1000, 0), _LAST)) << 20


def message(connection: Connection, number: int) -> Life | None:
    """The message with this id; None if nothing is known of it."""
    found = connection.execute(select(history).where(history.c.id == number)).one_or_none()
    if found is not None:
        return next(_lives(connection, [found]))
    told = _later(connection, [number]).get(number)
    name = queue_id(number)
    return Life(name, (number >> 20) / 1000, False, story.decode(name, told)) if told else None


def by_message_id(connection: Connection, message_id: str) -> list[Life]:
    """The last ALIKE messages with this Message-ID, oldest first; it may come with or without its angle brackets."""
    bare = marks.bare(message_id)
    c, m = history.c, message_ids.c
    query = select(m.marks).execution_options(yield_per=BATCH)
    numbers = [number for found in connection.scalars(query) for number in marks.candidates(found, bare)]
    oldest = connection.scalar(select(func.min(m.first)))
    named = c.message_id.in_((f"<{bare}>", bare))
    rows: list[Row[Any]] = []
    for start in range(0, len(numbers), BATCH):
        rows += connection.execute(select(history).where(c.id.in_(numbers[start : start + BATCH]), named)).all()
    rows += connection.execute(select(history).where(*(() if oldest is None else (c.id < oldest,)), named)).all()
    unlike = {row.id: row for row in rows}
    return list(_lives(connection, [unlike[number] for number in sorted(unlike)[-ALIKE:]]))


def of_user(connection: Connection, user: str, since: float, limit: int) -> list[Life]:
    """The last `limit` messages of a user that were accepted after `since`, oldest first."""
    c = history.c
    query = select(history).where(c.id >= first_id(since), c.user == user).order_by(c.id.desc()).limit(limit)
    return list(_lives(connection, connection.execute(query).all()[::-1]))


def urgent(connection: Connection, levels: Sequence[int], begin: float, end: float) -> list[str]:
    """The queue IDs of mail of these levels that was attempted before `end` and on its way at some time after `begin`, oldest first; the
    first ALIKE. Mail that only waited, as it was held or over a rate, is not among it. Reads all that was accepted meanwhile, and
    _EARLIER seconds before."""
    c = history.c
    span = (c.id >= first_id(begin - _EARLIER), c.id < first_id(end), c.level.in_(levels))
    rows = connection.execute(select(history).where(*span).order_by(c.id).limit(ALIKE)).all()
    return [life.id for life in _lives(connection, rows) if _attempted(life, end) and (life.at >= begin or _on_its_way(life, begin))]


def _attempted(life: Life, end: float) -> bool:
    """Whether an attempt began before `end`; one that is told by its end alone began within a second of that."""
    return any(
        event.at < end if isinstance(event, Started) else isinstance(event, _ATTEMPTED) and event.attempt and event.at < end + _BRIEF
        for event in life.events
    )


def _on_its_way(life: Life, at: float) -> bool:
    """Whether something happened to it after `at`, or its end is not known."""
    return not any(isinstance(event, _ENDS) for event in life.events) or life.events[-1].at >= at


def refusal(connection: Connection, number: int) -> Refusal | None:
    """The refusal with this reference."""
    found = connection.execute(select(refusals).where(refusals.c.id == number)).one_or_none()
    return _refusal(found) if found is not None else None


def sharing(connection: Connection, number: int) -> list[Refusal]:
    """The entries in which a refusal with this reference may have been counted, as many came at once: those written with it."""
    c = refusals.c
    about = c.id.between(number - (_BATCH_LASTS << 20), number)
    query = select(refusals).where(about, c["count"] > 1).order_by(c.id.desc()).limit(ALIKE)
    return [_refusal(row) for row in connection.execute(query).all()[::-1]]


def refusals_since(connection: Connection, since: float, *, user: str | None = None, limit: int | None = None) -> list[Refusal]:
    """The last `limit` refusals after `since`, oldest first; of one user, a name that failed to log in among it."""
    c = refusals.c
    query = select(refusals).where(c.id >= first_id(since)).order_by(c.id.desc()).limit(limit)
    if user is not None:
        query = query.where(c.user == user)
    return [_refusal(row) for row in connection.execute(query).all()[::-1]]


def _lives(connection: Connection, rows: Sequence[Row[Any]]) -> Iterator[Life]:
    steps = _later(connection, [row.id for row in rows])
    for row in rows:
        name = queue_id(row.id)
        told = [row.story, *steps.get(row.id, ())]
        yield Life(
            name,
            row.at,
            True,
            story.decode(name, told),
            row.user,
            row.list,
            row.sender,
            tuple(msgspec.json.decode(row.recipients, type=list[str])),
            row.level,
            row.size,
            row.session,
            row.client,
            row.message_id,
            row.subject,
            row.campaign,
        )


def _later(connection: Connection, numbers: Sequence[int]) -> dict[int, list[str]]:
    """The later parts of these messages' stories, in order, by id."""
    c = history_steps.c
    found: dict[int, list[str]] = {}
    for start in range(0, len(numbers), BATCH):
        query = select(c.message_id, c.story).where(c.message_id.in_(numbers[start : start + BATCH])).order_by(c.message_id, c.number)
        for row in connection.execute(query):
            found.setdefault(row.message_id, []).append(row.story)
    return found


def _refusal(row: Row[Any]) -> Refusal:
    facts = (row.at, row.session, row.client, row.user, row.sender, row.recipient, row.reason, row.reply)
    return Refusal(queue_id(row.id), *facts, count=row._mapping["count"])
