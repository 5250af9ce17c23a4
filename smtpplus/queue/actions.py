"""What is done to queued recipients from outside the daemon, in short transactions: cancel, put off, try now.

Each batch is whole: rows changed, the daemon's changes noted (see watch), the generation raised. From the moment of its commit the daemon
can begin no attempt at what was cancelled or put off, whatever is in its memory: recording an attempt fails (writes.RECORD_ATTEMPT).
What is under way when it is cancelled is given up before its final dot; after that it is delivered. The caller commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, insert, select, update

from smtpplus.events import Cancelled, Rescheduled
from smtpplus.mail.envelope import queue_id
from smtpplus.mail.reply import printable
from smtpplus.queue import rows
from smtpplus.queue.rulebook import raise_generation
from smtpplus.queue.selection import Key, Queued
from smtpplus.storage import schema, statement, writes

BATCH = 500  # recipients in one transaction
CANCELLED, MOVED, RETRIED = "cancelled", "moved", "retried"
_R = schema.recipients.c


class Change(msgspec.Struct, frozen=True):
    """What was done, by whom, why and when, and for when recipients were moved: columns of schema.changes."""

    what: str
    who: str
    reason: str
    at: float
    due: float = 0.0


def cancel(connection: Connection, some: Sequence[Queued], *, who: str, reason: str, now: float) -> int:
    """Take recipients out of the queue, and messages with their last. How many there were."""
    keys = _there(connection, some)
    if not keys:
        return 0
    numbers: list[statement.Row] = sorted({(number,) for number, _ in keys})
    writes.DELETE_RECIPIENT.run(connection, [*sorted(keys)])
    writes.REMOVE_CHUNKS_IF_SETTLED.run(connection, numbers)
    writes.REMOVE_IF_SETTLED.run(connection, numbers)
    _note(connection, some, keys, Change(CANCELLED, who, reason, now))
    return len(keys)


def move(connection: Connection, some: Sequence[Queued], due: float, *, who: str, reason: str, now: float) -> int:
    """Let recipients be due at `due`, seconds since the epoch; 0: now, also at a destination that is left alone. How many there were."""
    keys = _there(connection, some)
    if not keys:
        return 0
    change = update(schema.recipients).where(_R.message_id == bindparam("key"), _R.number == bindparam("index")).values(due=due)
    connection.execute(change, [{"key": number, "index": index} for number, index in keys])
    if due:
        _put_off(connection, sorted({number for number, _ in keys}), due)
    _note(connection, some, keys, Change(MOVED if due else RETRIED, who, reason, now, due))
    return len(keys)


def stated(row: Row[Any], now: float) -> Cancelled | Rescheduled:
    """What a row of schema.changes says, as an event; `now` if it does not say when."""
    facts = (row.at or now, queue_id(row.message_id), row.address, row.who, row.reason)
    return Cancelled(*facts) if row.what == CANCELLED else Rescheduled(*facts, row.due)


def noted(connection: Connection, number: int, now: float) -> list[Cancelled | Rescheduled]:
    """What was done to a message and no daemon has taken note of yet."""
    c = schema.changes.c
    return [stated(row, now) for row in connection.execute(select(schema.changes).where(c.message_id == number).order_by(c.id))]


def _put_off(connection: Connection, numbers: Sequence[int], due: float) -> None:
    """Let the lifetime of messages begin when they are due."""
    m = schema.messages.c
    found = connection.execute(select(m.id, m.parameters).where(m.id.in_(numbers))).all()
    change = update(schema.messages).where(m.id == bindparam("key")).values(parameters=bindparam("said"))
    if found:
        connection.execute(change, [{"key": row.id, "said": rows.put_off(row.parameters, due)} for row in found])


def _there(connection: Connection, some: Sequence[Queued]) -> set[Key]:
    """Which of them are still in the queue: the selection was read before this transaction began."""
    numbers = sorted({each.id for each in some})
    query = select(_R.message_id, _R.number).where(_R.message_id.in_(numbers))
    return {(row.message_id, row.number) for row in connection.execute(query)} & {each.key for each in some}


def _note(connection: Connection, some: Sequence[Queued], keys: set[Key], change: Change) -> None:
    done = {**msgspec.structs.asdict(change), "reason": printable(change.reason)}
    notes = [
        {
            "message_id": each.id,
            "number": each.number,
            "address": each.address,
            **done,
        }
        for each in some
        if each.key in keys
    ]
    connection.execute(insert(schema.changes), notes)
    raise_generation(connection)
