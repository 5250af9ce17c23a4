"""Envelopes as rows and back: what the columns mean, and the two questions the queue asks of the database.

`fetch` reads whole messages by id; `scan` goes through what waits without touching content. Both are called in a reader's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import BindParameter, ColumnElement, Select, and_, bindparam, case, null, select, tuple_

from smtpplus.mail.address import AddressError, normalize_domain
from smtpplus.mail.envelope import Envelope, Recipient
from smtpplus.storage import schema, writes
from smtpplus.storage.statement import Row, Statement

STRIDE = 20  # rows of which so many are read before way is given: some 0.2 ms
URGENT = 2  # levels up to this one are found by an index of their own
BEGUN = and_(schema.recipients.c.attempts == 1, schema.recipients.c.reply.is_(None))  # its first attempt has begun, nobody answered


class _Parameters(msgspec.Struct, frozen=True, omit_defaults=True):
    """What few messages have, kept as JSON in one column."""

    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    campaign: str = ""
    deliver_by: float = 0.0
    by_mode: str = ""
    require_tls: bool = False
    release_at: float = 0.0
    unauthorized: bool = False


class _RecipientParameters(msgspec.Struct, frozen=True, omit_defaults=True):
    notify: str = ""
    orcpt: str = ""


class Pending(msgspec.Struct, frozen=True):
    """A recipient as the database has it: unsettled."""

    number: int
    recipient: Recipient
    attempts: int
    due: float
    warned: bool


_COLUMNS = [schema.messages.c[name] for name in ("id", "sender", "user", "level", "size", "received_at", "chunks", "parameters")]

_NUMBERS: BindParameter[Any] = bindparam("numbers", expanding=True)


def _asked(content: ColumnElement[Any]) -> Select[Any]:
    """What `fetch` asks for of a message: made once, as it takes longer than to read some messages."""
    m = schema.messages.c
    asked = select(*_COLUMNS, content.label("octets"), m.content.is_(None).label("in_file"))
    return asked.where(m.id.in_(_NUMBERS), m.state == schema.QUEUED).order_by(m.id)


_MESSAGES = _asked(case((schema.messages.c.chunks == 1, schema.messages.c.content), else_=None))
_MESSAGES_ALONE = _asked(null())
_UNSETTLED = (
    select(*[schema.recipients.c[name] for name in ("message_id", "number", "address", "attempts", "due", "parameters", "warned", "list")])
    .where(schema.recipients.c.message_id.in_(_NUMBERS))
    .order_by(schema.recipients.c.message_id, schema.recipients.c.number)
)

# With the number of chunks, whether they are in a file, and the content if it was asked for.
FetchedRow = tuple[Envelope, int, bool, bytes | None, list[Pending]]
# Message id, number, address, level, user, due, list, domain of the sender; whether its first attempt has begun and nobody answered.
Waiting = tuple[int, int, str, int, str, float, str, str, bool]


def parameters(envelope: Envelope) -> str | None:
    """The column `parameters` of a message."""
    asked = envelope.body or envelope.smtputf8 or envelope.ret or envelope.envid or envelope.campaign
    if not (asked or envelope.by_mode or envelope.require_tls or envelope.release_at or envelope.unauthorized):
        return None
    given = _Parameters(
        envelope.body,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        envelope.campaign,
        envelope.deliver_by,
        envelope.by_mode,
        envelope.require_tls,
        envelope.release_at,
        envelope.unauthorized,
    )
    return msgspec.json.encode(given).decode()


def put_off(parameters: str | None, release_at: float) -> str:
    """The column `parameters` of a message that is not to be sent before `release_at`: its lifetime begins then."""
    given = msgspec.json.decode(parameters, type=_Parameters) if parameters else _Parameters()
    return msgspec.json.encode(msgspec.structs.replace(given, release_at=release_at)).decode()


def released_at(parameters: str | None) -> float:
    """When a message with this column `parameters` was to be sent at the earliest; 0: at once."""
    return msgspec.json.decode(parameters, type=_Parameters).release_at if parameters else 0.0


def insertion(envelope: Envelope, chunks: int, first: bytes | None) -> tuple[Statement, Row]:
    """What inserts a new message. `first` is its first chunk, None if all of them are in a file."""
    facts = (envelope.sender, envelope.user, envelope.level, envelope.size, envelope.received_at)
    return (writes.INSERT_MESSAGE, (envelope.id, schema.QUEUED, *facts, chunks, parameters(envelope), first))


def recipients(envelope: Envelope, begun: float = 0.0) -> list[tuple[Statement, Row]]:
    """What inserts the recipients of a new message. One whose first attempt has `begun` is tried again at that time."""
    steps: list[tuple[Statement, Row]] = []
    domain = domain_of(envelope.sender)
    for index, recipient in enumerate(envelope.recipients):
        given = None
        if recipient.notify or recipient.orcpt:
            given = msgspec.json.encode(_RecipientParameters(recipient.notify, recipient.orcpt)).decode()
        attempts, due = (1, begun) if begun else (0, envelope.release_at)
        row = (envelope.id, index, recipient.address, envelope.level, envelope.user, attempts, due, given, envelope.list, domain)
        steps.append((writes.INSERT_RECIPIENT, row))
    return steps


def domain_of(address: str) -> str:
    """The domain of an address as rules compare it: normalized where that is possible, lower case where not; "" of the null one."""
    domain = address.rpartition("@")[2]
    if domain.isascii():
        return domain.lower()
    try:
        return normalize_domain(domain)
    except AddressError:
        return domain.lower()


def fetch(connection: sqlalchemy.Connection, numbers: list[int], room: int, give_way: Callable[[], None]) -> list[FetchedRow]:
    """The messages `numbers` that are queued, with their unsettled recipients; the content of those in one chunk, up to `room` octets.

    `give_way` is called between a few rows: a thread that reads on keeps a processor from whoever it is that urgent mail waits for.
    """
    found = list(_gently(connection.execute(_MESSAGES if room else _MESSAGES_ALONE, {"numbers": numbers}), give_way))
    unsettled: dict[int, list[Pending]] = {row.id: [] for row in found}
    lists: dict[int, str] = {}
    for each in _gently(connection.execute(_UNSETTLED, {"numbers": numbers}), give_way):
        given = msgspec.json.decode(each.parameters, type=_RecipientParameters) if each.parameters else _RecipientParameters()
        recipient = Recipient(each.address, given.notify, given.orcpt)
        lists[each.message_id] = each.list
        if each.message_id in unsettled:
            unsettled[each.message_id].append(Pending(each.number, recipient, each.attempts, each.due, each.warned))
    fetched: list[FetchedRow] = []
    for row in _gently(found, give_way):
        pending = unsettled[row.id]
        envelope = _envelope(row, tuple(each.recipient for each in pending), lists.get(row.id, "default"))
        octets = row.octets if row.octets is not None and len(row.octets) <= room else None
        room -= len(octets) if octets is not None else 0
        fetched.append((envelope, row.chunks, row.in_file, octets, pending))
    return fetched


def _gently(rows: Iterable[Any], give_way: Callable[[], None]) -> Iterator[Any]:
    """The rows; `give_way` is called before each STRIDE of them."""
    for place, row in enumerate(rows):
        if place % STRIDE == 0:
            give_way()
        yield row


def envelope(connection: sqlalchemy.Connection, number: int) -> Envelope | None:
    """The envelope of message `number` with its unsettled recipients; None if it is not queued. Content is not read."""
    found = connection.execute(
        select(*_COLUMNS).where(schema.messages.c.id == number, schema.messages.c.state == schema.QUEUED)
    ).one_or_none()
    if found is None:
        return None
    r = schema.recipients.c
    rows = connection.execute(select(r.address, r.list).where(r.message_id == number).order_by(r.number)).all()
    return _envelope(found, tuple(Recipient(row.address) for row in rows), rows[0].list if rows else "default")


def _envelope(row: Any, recipients: tuple[Recipient, ...], list_: str) -> Envelope:
    said = msgspec.json.decode(row.parameters, type=_Parameters) if row.parameters else _Parameters()
    return Envelope(
        row.id,
        row.sender,
        recipients,
        row.user,
        row.level,
        row.size,
        row.received_at,
        said.body,
        said.smtputf8,
        said.ret,
        said.envid,
        list_,
        campaign=said.campaign,
        deliver_by=said.deliver_by,
        by_mode=said.by_mode,
        require_tls=said.require_tls,
        release_at=said.release_at,
        unauthorized=said.unauthorized,
    )


def scan(
    connection: sqlalchemy.Connection, after: tuple[int, int], limit: int, give_way: Callable[[], None], *, urgent: bool
) -> list[Waiting]:
    """The next unsettled recipients in the order of their keys: of levels up to URGENT, or of the others. `give_way`: as for `fetch`."""
    r = schema.recipients.c
    query = select(r.message_id, r.number, r.address, r.level, r.user, r.due, r.list, r.sender_domain, BEGUN)
    key = tuple_(r.message_id, r.number) > tuple_(*after)
    level = r.level <= URGENT if urgent else r.level > URGENT
    found = connection.execute(query.where(key, level).order_by(r.message_id, r.number).limit(limit))
    return [tuple(row) for row in _gently(found, give_way)]


def owners(connection: sqlalchemy.Connection, newest: int, *, urgent: bool) -> frozenset[str]:
    """Whose unsettled mail is older than id `newest`: of levels up to URGENT, or of the others. A million rows take 0.1 s."""
    r = schema.recipients.c
    level = r.level <= URGENT if urgent else r.level > URGENT
    return frozenset(connection.execute(select(r.user).distinct().where(r.message_id < newest, level)).scalars())
