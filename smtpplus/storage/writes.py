"""The few statements that every message runs: what the writer coalesces.

They are compiled once from Core and run as driver statements by the writer (storage/writer): each bears a rank, and in one group commit
the statements run by rank, which is safe because a message's insert is committed before anything changes it, except for the
chunks and the final commit of one large message, which the ranks put in order.
"""

from __future__ import annotations

from sqlalchemy import Column, ColumnElement, bindparam, delete, exists, insert, update

from smtpplus.storage import schema
from smtpplus.storage.statement import Statement


def _settled(key: Column[int]) -> ColumnElement[bool]:
    """That no recipient of the message `key` is left."""
    return ~exists().where(schema.recipients.c.message_id == key)


INSERT_MESSAGE = Statement(0, insert(schema.messages), [c.name for c in schema.messages.c])
INSERT_CHUNK = Statement(1, insert(schema.chunks), ["message_id", "number", "octets"])
INSERT_RECIPIENT = Statement(
    2,
    insert(schema.recipients),
    ["message_id", "number", "address", "level", "user", "attempts", "due", "parameters", "list", "sender_domain"],
)
COMMIT_MESSAGE = Statement(
    3,
    update(schema.messages)
    .where(schema.messages.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in ("state", "sender", "user", "level", "size", "received_at", "chunks", "parameters")}),
    ["state", "sender", "user", "level", "size", "received_at", "chunks", "parameters", "key"],
)
RECORD_ATTEMPT = Statement(
    4,
    update(schema.recipients)
    .where(
        schema.recipients.c.message_id == bindparam("key"),
        schema.recipients.c.number == bindparam("index"),
        schema.recipients.c.due <= bindparam("now"),
    )
    .values(attempts=bindparam("attempts"), due=bindparam("due")),
    ["attempts", "due", "key", "index", "now"],
    exact=True,  # what was cancelled or put off in the meantime is not attempted
)
RECORD_DEFERRAL = Statement(
    5,
    update(schema.recipients)
    .where(schema.recipients.c.message_id == bindparam("key"), schema.recipients.c.number == bindparam("index"))
    .values(due=bindparam("due"), reply=bindparam("reply"), warned=bindparam("warned")),
    ["due", "reply", "warned", "key", "index"],
)
DELETE_RECIPIENT = Statement(
    6,
    delete(schema.recipients).where(schema.recipients.c.message_id == bindparam("key"), schema.recipients.c.number == bindparam("index")),
    ["key", "index"],
)
REMOVE_CHUNKS_IF_SETTLED = Statement(
    7, delete(schema.chunks).where(schema.chunks.c.message_id == bindparam("key"), _settled(schema.chunks.c.message_id)), ["key"]
)
REMOVE_IF_SETTLED = Statement(
    8, delete(schema.messages).where(schema.messages.c.id == bindparam("key"), _settled(schema.messages.c.id)), ["key"]
)
DELETE_CHUNKS = Statement(9, delete(schema.chunks).where(schema.chunks.c.message_id == bindparam("key")), ["key"])
DELETE_RECIPIENTS = Statement(10, delete(schema.recipients).where(schema.recipients.c.message_id == bindparam("key")), ["key"])
DELETE_MESSAGE = Statement(11, delete(schema.messages).where(schema.messages.c.id == bindparam("key")), ["key"])
INSERT_HISTORY = Statement(20, insert(schema.history), [c.name for c in schema.history.c])
INSERT_HISTORY_STEPS = Statement(21, insert(schema.history_steps), [c.name for c in schema.history_steps.c])
INSERT_REFUSAL = Statement(22, insert(schema.refusals), [c.name for c in schema.refusals.c])
INSERT_MESSAGE_IDS = Statement(23, insert(schema.message_ids), [c.name for c in schema.message_ids.c])
