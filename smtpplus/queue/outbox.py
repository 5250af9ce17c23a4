"""Mail of our own that another process hands to the daemon: the command line posts it, the daemon moves it into the queue.

A posted message is a row of `outbox` and of nothing else, so that neither the queue's start nor its window need to know of it. The daemon
looks there twice a second, which costs one question about an empty table, and moves what it finds under a fresh id: row out, message in,
one transaction, so that it is neither lost nor sent twice, however many daemons look and whenever one of them dies. Failure: what
cannot be moved now stays and is tried again at the next look; the fault is logged once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from smtpplus.events import Accepted, Events
from smtpplus.mail.envelope import Envelope, Recipient, queue_id
from smtpplus.mail.header import Header, decoded, find_header_end
from smtpplus.mail.reasons import Refusal
from smtpplus.queue.spool import Spool
from smtpplus.storage.database import Database
from smtpplus.storage.schema import outbox

POLL = 0.5  # seconds between two looks
PAGE = 20  # messages read at once
LEVEL = 2  # what our own mail goes at


def post(connection: Connection, content: bytes, recipients: Sequence[str], *, now: float, sender: str = "", level: int = LEVEL) -> None:
    """Hand in a whole message, CRLF line ends; the caller commits. The daemon that runs, or the next one, delivers it."""
    connection.execute(
        insert(outbox).values(
            sender=sender,
            recipients=msgspec.json.encode(list(recipients)).decode(),
            level=level,
            smtputf8=not all(address.isascii() for address in (sender, *recipients)),
            posted_at=now,
            content=content,
        )
    )


class Outbox:
    """The daemon's side: `start` it once the database is open, `stop` it before the scheduler."""

    _log = Logger()

    def __init__(
        self, *, database: Database, spool: Spool, new_id: Callable[[], int], clock: IReactorTime, now: Callable[[], float], events: Events
    ) -> None:
        self._database = database
        self._spool = spool
        self._new_id = new_id
        self._now = now
        self._events = events
        self._complained = False
        self._stopped: Deferred[Any] = succeed(None)
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Look now, and from now on."""
        self._stopped = self._loop.start(POLL)

    def stop(self) -> Deferred[Any]:
        """Look no more; fires when what is being moved is in the queue."""
        if self._loop.running:
            self._loop.stop()
        return self._stopped

    @inlineCallbacks
    def _look(self) -> Any:
        try:
            more = True
            while more and self._loop.running:
                rows = yield self._database.read(_posted)
                for row in rows:
                    yield self._move(row)
                more = len(rows) == PAGE
            self._complained = False
        except Exception:
            if not self._complained:
                self._complained = True
                self._log.failure("mail of our own cannot be moved into the queue; it is tried again")

    def _move(self, row: Row[Any]) -> Deferred[None]:
        recipients = tuple(Recipient(address) for address in msgspec.json.decode(row.recipients, type=list[str]))
        content: bytes = row.content
        envelope = Envelope(
            id=self._new_id(),
            sender=row.sender,
            recipients=recipients,
            user="",
            level=row.level,
            size=len(content),
            received_at=row.posted_at,
            smtputf8=row.smtputf8,
        )
        steps = self._spool.steps(envelope, content)

        def work(connection: Connection) -> bool:
            if connection.execute(delete(outbox).where(outbox.c.id == row.id)).rowcount != 1:
                return False  # another daemon was quicker
            for statement, values in steps:
                statement.run(connection, [values])
            return True

        def moved(ours: bool) -> None:
            if ours:
                self._events.state(_accepted(envelope, content, self._now()))
                self._spool.committed(envelope, content)

        return self._database.write(work).addCallback(moved)


def _posted(connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(select(outbox).order_by(outbox.c.id).limit(PAGE)).all()


def _accepted(envelope: Envelope, content: bytes, now: float) -> Accepted:
    """The event of a message that no session brought."""
    try:
        header = Header.parse(content[: find_header_end(content)])
        found = [header.values(name) for name in ("message-id", "subject")]
    except Refusal:
        found = [[], []]
    message_id, subject = (values[0] if values else "" for values in found)
    return Accepted(
        at=now,
        id=queue_id(envelope.id),
        session="",
        client="",
        user=envelope.user,
        sender=envelope.sender,
        recipients=tuple(recipient.address for recipient in envelope.recipients),
        level=envelope.level,
        size=envelope.size,
        message_id=decoded(message_id),
        subject=decoded(subject),
    )
