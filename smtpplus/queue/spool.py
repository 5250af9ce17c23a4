"""Keeping messages: what is accepted is in the database before anybody hears 250, and stays until its last recipient is settled.

A message up to CHUNK octets is one row; a longer one has its further chunks in rows of their own. A large message is written while
it arrives, as RECEIVING, and belongs to nobody until its final commit makes it QUEUED; what a crash leaves RECEIVING is purged at
start. Content just accepted stays in memory as long as all of it fits in `cache` octets, so that mail sent at once is never
read back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import sqlalchemy
from sqlalchemy import delete, select, update
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.mail.envelope import CHUNK, Content, Envelope
from smtpplus.queue import rows
from smtpplus.queue.rows import FetchedRow, Pending, Waiting, fetch, scan
from smtpplus.storage import schema
from smtpplus.storage.database import Database
from smtpplus.storage.statement import Row, Statement

Steps = list[tuple[Statement, Row]]
Stored = tuple[Envelope, Content, list[Pending]]
RUN = 4  # chunks that are read at once
AHEAD = 2  # chunks of one message that may wait for their commit before its client is asked to wait


class Arrivals(Protocol):
    """Who is told of messages: the scheduler."""

    def expect(self, envelope: Envelope, content: Content) -> float:
        """The message is about to be committed: when it is tried again, if its first attempt begins with the commit; else 0."""

    def accepted(self, envelope: Envelope, content: Content) -> None:
        """The message is committed."""

    def lost(self, envelope: Envelope) -> None:
        """The message that was expected could not be committed."""


class StoredContent:
    """Content of a queued message: in memory while the cache holds it, else read from the database, a few chunks at a time."""

    __slots__ = ("_database", "_id", "_run", "cached", "chunks", "size")

    def __init__(self, database: Database, number: int, size: int, chunks: int, cached: bytes | None) -> None:
        self._database = database
        self._id = number
        self._run: dict[int, bytes] = {}  # chunks that were read along with one before them; each is given away once
        self.size = size
        self.chunks = chunks
        self.cached = cached

    def read(self, index: int, done: Callable[[bytes | None], None]) -> None:
        """See mail.envelope.Content."""
        if self.cached is not None:
            done(self.cached if self.chunks == 1 else self.cached[index * CHUNK : (index + 1) * CHUNK])
            return
        if index in self._run:
            done(self._run.pop(index))
            return

        def found(run: dict[int, bytes]) -> None:
            octets = run.pop(index, None)
            self._run = run
            done(octets)

        def missing(failure: Failure) -> dict[int, bytes]:
            Logger("smtpplus.queue.spool").failure("chunk {index} of message {id} cannot be read", failure, index=index, id=self._id)
            return {}

        self._database.read(lambda connection: _run(connection, self._id, index)).addErrback(missing).addCallback(found)

    def forget(self) -> None:
        """Keep nothing in memory."""
        self.cached = None
        self._run = {}


def _run(connection: sqlalchemy.Connection, number: int, index: int) -> dict[int, bytes]:
    """The chunks from `index` on, RUN of them at most."""
    found: dict[int, bytes] = {}
    if index == 0:
        first = connection.execute(select(schema.messages.c.content).where(schema.messages.c.id == number)).scalar()
        if first is not None:
            found[0] = first
    c = schema.chunks.c
    query = select(c.number, c.octets).where(c.message_id == number, c.number >= max(index, 1), c.number < index + RUN)
    for row in connection.execute(query):
        found[row.number] = row.octets
    return found


class Spool:
    """The queue's hold on the database. `arrivals` is to be set before the first message."""

    arrivals: Arrivals

    def __init__(self, database: Database, *, cache: int) -> None:
        self._database = database
        self._cache = cache  # octets that may still be cached

    def accept(self, envelope: Envelope, content: bytes) -> Deferred[None]:
        """Keep a whole message. Fires after the fsync; fails if it could not be written, and then nothing of it is kept."""
        stored = self._stored(envelope, content)
        steps = self.steps(envelope, content, self.arrivals.expect(envelope, stored))
        return self._database.run(steps).addCallbacks(
            self._accepted, self._lost, callbackArgs=(envelope, stored), errbackArgs=(envelope, stored)
        )

    def _accepted(self, _: Any, envelope: Envelope, stored: StoredContent) -> None:
        self.arrivals.accepted(envelope, stored)

    def _lost(self, failure: Failure, envelope: Envelope, stored: StoredContent) -> Failure:
        self.arrivals.lost(envelope)
        self.forget(stored)
        return failure

    def steps(self, envelope: Envelope, content: bytes, begun: float = 0.0) -> Steps:
        """What inserts a message, for a unit that does more than that; `committed` must follow. `begun`: see rows.recipients."""
        pieces = max(1, -(-len(content) // CHUNK))
        first = content if pieces == 1 else content[:CHUNK]
        steps: Steps = [
            (
                schema.INSERT_MESSAGE,
                (
                    envelope.id,
                    schema.QUEUED,
                    envelope.sender,
                    envelope.user,
                    envelope.level,
                    envelope.size,
                    envelope.received_at,
                    pieces,
                    rows.parameters(envelope),
                    first,
                ),
            )
        ]
        for index in range(1, pieces):
            steps.append((schema.INSERT_CHUNK, (envelope.id, index, content[index * CHUNK : (index + 1) * CHUNK])))
        steps += rows.recipients(envelope, begun)
        return steps

    def committed(self, envelope: Envelope, content: bytes) -> None:
        """A message that `steps` inserted is durable."""
        self.arrivals.accepted(envelope, self._stored(envelope, content))

    def _stored(self, envelope: Envelope, content: bytes) -> StoredContent:
        """The content, kept at hand if there is room."""
        size = len(content)
        cached = content if size <= self._cache else None
        if cached is not None:
            self._cache -= size
        return StoredContent(self._database, envelope.id, size, max(1, -(-size // CHUNK)), cached)

    def begin(self, number: int) -> Intake:
        """Begin to keep a message that is too long to wait for its end in memory."""
        return Intake(self._database, self.arrivals, number)

    def forget(self, content: Content) -> None:
        """The message is settled, or will not be sent soon: its content need not be at hand."""
        if isinstance(content, StoredContent):
            self._cache += len(content.cached or b"")
            content.forget()

    def purge(self) -> Deferred[int]:
        """Remove what was being received when the process ended, and let urgent mail whose first attempt was under way go at once. Fires
        with the number of messages removed.

        A first attempt is recorded with the acceptance, so most of that mail was never tried; a second one waits for its time.
        """

        def work(connection: sqlalchemy.Connection) -> int:
            r = schema.recipients.c
            begun = (r.level <= rows.URGENT, r.attempts == 1, r.reply.is_(None))
            connection.execute(update(schema.recipients).where(*begun).values(due=0.0))
            unfinished = select(schema.messages.c.id).where(schema.messages.c.state == schema.RECEIVING)
            connection.execute(delete(schema.chunks).where(schema.chunks.c.message_id.in_(unfinished)))
            return connection.execute(delete(schema.messages).where(schema.messages.c.state == schema.RECEIVING)).rowcount

        return self._database.write(work)

    def fetch(self, numbers: list[int]) -> Deferred[list[Stored]]:
        """The messages with these ids that are still there, in the order of their ids; content of short ones is cached while it fits."""
        room = max(0, self._cache)
        return self._database.read(lambda connection: fetch(connection, numbers, room)).addCallback(self._fetched)

    def _fetched(self, found: list[FetchedRow]) -> list[Stored]:
        stored: list[Stored] = []
        for envelope, chunks, octets, pending in found:
            if octets is not None:
                self._cache -= len(octets)
            stored.append((envelope, StoredContent(self._database, envelope.id, envelope.size, chunks, octets), pending))
        return stored

    def scan(self, after: tuple[int, int], limit: int, *, urgent: bool) -> Deferred[list[Waiting]]:
        """The next `limit` unsettled recipients beyond (message id, number) `after`: those of levels 1 and 2, or all others."""
        return self._database.read(lambda connection: scan(connection, after, limit, urgent=urgent))


class Intake:
    """One long message on its way in: chunks go to the database as they come."""

    def __init__(self, database: Database, arrivals: Arrivals, number: int) -> None:
        self._database = database
        self._arrivals = arrivals
        self._id = number
        self._chunks = 0
        self._waiting = 0
        self._resume: Deferred[None] | None = None
        self._fault: Failure | None = None
        self._aborted = False
        self._finish: Callable[[], None] | None = None

    def write(self, chunk: bytes) -> Deferred[None] | None:
        """Write the next chunk, of at most CHUNK octets. A Deferred asks to wait until it fires; a fault shows at `commit`."""
        if self._fault is not None or self._aborted:
            return None
        if self._chunks == 0:
            row = (self._id, schema.RECEIVING, "", "", 3, 0, 0.0, 1, None, chunk)
            written = self._database.run([(schema.INSERT_MESSAGE, row)], durable=False)
        else:
            written = self._database.run([(schema.INSERT_CHUNK, (self._id, self._chunks, chunk))], durable=False)
        self._chunks += 1
        self._waiting += 1
        written.addCallbacks(self._written, self._failed)
        if self._waiting < AHEAD:
            return None
        self._resume = self._resume or Deferred()
        return self._resume

    def _written(self, _: Any) -> None:
        self._waiting -= 1
        if self._resume is not None and self._waiting < AHEAD:
            resume, self._resume = self._resume, None
            resume.callback(None)
        if self._finish is not None and not self._waiting:
            self._finish()

    def _failed(self, failure: Failure) -> None:
        self._fault = self._fault or failure
        self._written(None)

    def commit(self, envelope: Envelope) -> Deferred[None]:
        """Make the message QUEUED. Fires after the fsync; fails if any part could not be written, and then nothing of it is kept."""
        done: Deferred[None] = Deferred()

        def finish() -> None:
            self._commit(envelope).chainDeferred(done)

        if self._waiting:
            self._finish = finish
        else:
            finish()
        return done

    def _commit(self, envelope: Envelope) -> Deferred[None]:
        """Every chunk is written, or has failed: only now can it be known that the message is whole."""
        if self._fault is not None:
            self.abort()
            return fail(self._fault)
        row = (
            schema.QUEUED,
            envelope.sender,
            envelope.user,
            envelope.level,
            envelope.size,
            envelope.received_at,
            self._chunks,
            rows.parameters(envelope),
            self._id,
        )
        stored = StoredContent(self._database, envelope.id, envelope.size, self._chunks, None)
        begun = self._arrivals.expect(envelope, stored)
        done = self._database.run([*rows.recipients(envelope, begun), (schema.COMMIT_MESSAGE, row)])
        return done.addCallbacks(self._committed, self._not_committed, callbackArgs=(envelope, stored), errbackArgs=(envelope,))

    def _committed(self, _: Any, envelope: Envelope, stored: StoredContent) -> None:
        self._arrivals.accepted(envelope, stored)

    def _not_committed(self, failure: Failure, envelope: Envelope) -> Failure:
        self._arrivals.lost(envelope)
        self.abort()
        return failure

    def abort(self) -> None:
        """The client went away, or the message was refused: remove what was written. Not to be called after `commit`."""
        if self._aborted:
            return
        self._aborted = True
        if self._chunks:
            steps: Steps = [(schema.DELETE_CHUNKS, (self._id,)), (schema.DELETE_MESSAGE, (self._id,))]
            self._database.run(steps).addErrback(lambda failure: None)  # what stays is RECEIVING and purged at the next start
