"""A long message on its way in: its chunks are written while they come, and belong to nobody until the commit makes them a message.

How much of it may be on its way to the database is a share of what all of them may have there together: a single upload keeps the
disk busy, a thousand of them stay small. A fault of the database shows at the commit, and then nothing of the message is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from smtpplus.mail.envelope import Content, Envelope
from smtpplus.queue import rows
from smtpplus.queue.content import StoredContent
from smtpplus.storage import schema, writes
from smtpplus.storage.database import Database
from smtpplus.storage.statement import Row, Statement

LEAST, MOST = 2, 8  # chunks of one message that may wait for their commit before its client is asked to wait
AHEAD = 512  # chunks of all messages together, while each has its least: 32 MiB


class Arrivals(Protocol):
    """Who is told of messages: the scheduler."""

    def expect(self, envelope: Envelope, content: Content) -> float:
        """The message is about to be committed: when it is tried again, if its first attempt begins with the commit; else 0."""

    def accepted(self, envelope: Envelope, content: Content) -> None:
        """The message is committed."""

    def lost(self, envelope: Envelope) -> None:
        """The message that was expected could not be committed."""


class Share:
    """What each of the long messages on their way in may have waiting for its commit: much when they are few."""

    def __init__(self) -> None:
        self._takers = 0

    def join(self) -> None:
        """One more."""
        self._takers += 1

    def leave(self) -> None:
        """One less."""
        self._takers -= 1

    @property
    def chunks(self) -> int:
        """For each of them."""
        return max(LEAST, min(MOST, AHEAD // max(1, self._takers)))


class Intake:
    """One long message on its way in: chunks go to the database as they come."""

    def __init__(self, database: Database, arrivals: Arrivals, share: Share, number: int) -> None:
        self._database = database
        self._arrivals = arrivals
        self._share = share
        self._coming = True  # it has its share
        share.join()
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
            written = self._database.run([(writes.INSERT_MESSAGE, row)], durable=False)
        else:
            written = self._database.run([(writes.INSERT_CHUNK, (self._id, self._chunks, chunk))], durable=False)
        self._chunks += 1
        self._waiting += 1
        written.addCallbacks(self._written, self._failed)
        if self._waiting < self._share.chunks:
            return None
        self._resume = self._resume or Deferred()
        return self._resume

    def _written(self, _: Any) -> None:
        self._waiting -= 1
        if self._resume is not None and self._waiting < self._share.chunks:
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
        self._leave()

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
        done = self._database.run([*rows.recipients(envelope, begun), (writes.COMMIT_MESSAGE, row)])
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
        self._leave()
        if self._chunks:
            steps: list[tuple[Statement, Row]] = [(writes.DELETE_CHUNKS, (self._id,)), (writes.DELETE_MESSAGE, (self._id,))]
            self._database.run(steps).addErrback(lambda failure: None)  # what stays is RECEIVING and purged at the next start

    def _leave(self) -> None:
        if self._coming:
            self._coming = False
            self._share.leave()
