"""A long message on its way in: it is written while it comes, and belongs to nobody until the commit makes it a message.

How much of it may be on its way to the disk is a share of what all of them may have there together: a single upload keeps the
disk busy, a thousand of them stay small. A fault of the disk shows at the commit, and then nothing of the message is kept. Where it
is put, in a file or in rows, is the shelf's business (queue/shelf).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

from smtpplus.mail.envelope import CHUNK, Content, Envelope
from smtpplus.queue import rows
from smtpplus.queue.content import StoredContent
from smtpplus.queue.shelf import Shelf
from smtpplus.storage.database import Database

LEAST, MOST = 2, 8  # chunks of one message that may be on their way to the disk before its client is asked to wait
SCRAP = 256  # octets: two pieces that have no more become one, for each has 33 octets that are not of the message
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
    """What each of the long messages on their way in may have on its way to the disk: much when they are few."""

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
    """One long message on its way in. While some of it is being written the next octets gather, and go together."""

    def __init__(self, database: Database, arrivals: Arrivals, share: Share, shelf: Shelf, number: int) -> None:
        self._database = database
        self._arrivals = arrivals
        self._share = share
        self._coming = True  # it has its share
        share.join()
        self._id = number
        self._shelf = shelf
        self._place = shelf.place(number)
        self._gathered: list[bytes] = []
        self._held = 0  # octets in them
        self._moving = 0  # octets that are being written
        self._resume: Deferred[None] | None = None
        self._fault: Failure | None = None
        self._aborted = False
        self._finish: Callable[[], None] | None = None

    def write(self, octets: bytes) -> Deferred[None] | None:
        """Take the next octets, however many. A Deferred asks to wait until it fires; a fault shows at `commit`."""
        if self._fault is not None or self._aborted:
            return None
        if self._gathered and len(self._gathered[-1]) + len(octets) <= SCRAP:
            self._gathered[-1] += octets
        else:
            self._gathered.append(octets)
        self._held += len(octets)
        room = self._share.chunks * CHUNK
        if not self._moving and self._held >= room // 2:
            self._move()
        if self._held + self._moving < room:
            return None
        self._resume = self._resume or Deferred()
        return self._resume

    def _move(self) -> None:
        pieces, self._gathered = self._gathered, []
        self._moving, self._held = self._held, 0
        self._place.put(pieces).addErrback(self._failed).addCallback(self._moved)

    def _moved(self, _: object) -> None:
        self._moving = 0
        room = self._share.chunks * CHUNK
        if self._aborted:
            self._place.drop()
        elif self._finish is not None:
            self._finish()
        elif self._held >= room // 2:
            self._move()
        if self._resume is not None and self._held + self._moving < room:
            resume, self._resume = self._resume, None
            resume.callback(None)  # more may come of it at once, and the end

    def _failed(self, failure: Failure) -> None:
        """What was written is of no use to anybody, nor is what is still to come."""
        self._fault = failure
        self._gathered, self._held = [], 0
        self._place.drop()

    def commit(self, envelope: Envelope) -> Deferred[None]:
        """Make the message QUEUED. Fires after the fsync; fails if any part could not be written, and then nothing of it is kept."""
        done: Deferred[None] = Deferred()
        self._leave()

        def finish() -> None:
            self._complete(envelope).chainDeferred(done)

        if self._moving:
            self._finish = finish
        else:
            finish()
        return done

    def _complete(self, envelope: Envelope) -> Deferred[None]:
        """All but the last octets are written, or have failed."""
        if self._fault is not None:
            return fail(self._fault)
        pieces, self._gathered = self._gathered, []
        completed: Deferred[None] = self._place.complete(pieces, envelope.size)
        return completed.addCallbacks(self._commit, self._incomplete, callbackArgs=(envelope,))

    def _incomplete(self, failure: Failure) -> Failure:
        self._place.drop()
        return failure

    def _commit(self, _: object, envelope: Envelope) -> Deferred[None]:
        """The content is whole: only now may others wait for this message in the writer."""
        stored = StoredContent(self._shelf, envelope.id, envelope.size, -(-envelope.size // CHUNK), None)
        done: Deferred[Any] = maybeDeferred(self._hand_in, envelope, stored)
        return done.addCallbacks(self._committed, self._not_committed, callbackArgs=(envelope, stored), errbackArgs=(envelope,))

    def _hand_in(self, envelope: Envelope, stored: StoredContent) -> Deferred[Any]:
        begun = self._arrivals.expect(envelope, stored)
        return self._database.run([*rows.recipients(envelope, begun), *self._place.steps(envelope)], urgent=begun > 0)

    def _committed(self, _: Any, envelope: Envelope, stored: StoredContent) -> None:
        self._place.kept()
        self._arrivals.accepted(envelope, stored)

    def _not_committed(self, failure: Failure, envelope: Envelope) -> Failure:
        self._arrivals.lost(envelope)
        self._place.drop()
        return failure

    def abort(self) -> None:
        """The client went away, or the message was refused: remove what was written. Not to be called after `commit`."""
        if self._aborted:
            return
        self._aborted = True
        self._leave()
        self._gathered, self._held = [], 0
        if not self._moving:
            self._place.drop()

    def _leave(self) -> None:
        if self._coming:
            self._coming = False
            self._share.leave()
