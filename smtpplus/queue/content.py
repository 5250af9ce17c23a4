"""Content of a queued message, wherever it is: in memory while the cache holds it, else on its shelf, read a few pieces at a time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.mail.envelope import CHUNK, queue_id
from smtpplus.queue.shelf import Run, Shelf


class StoredContent:
    """Content of a queued message: in memory while the cache holds it, else read from its shelf, a few pieces at a time."""

    __slots__ = ("_id", "_run", "_shelf", "cached", "chunks", "size")

    def __init__(self, shelf: Shelf, number: int, size: int, chunks: int, cached: bytes | None) -> None:
        self._shelf = shelf
        self._id = number
        self._run: Run = {}  # pieces that were read along with one before them; each is given away once
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

        def found(run: Run) -> None:
            octets = run.pop(index, None)
            self._run = run
            done(octets)

        def missing(failure: Failure) -> Run:
            log, name = Logger("smtpplus.queue.spool"), queue_id(self._id)
            if failure.check(OSError):  # the disk has it no more: nothing that a traceback could explain
                log.error("chunk {index} of message {id} cannot be read: {why}", index=index, id=name, why=failure.getErrorMessage())
            else:
                log.failure("chunk {index} of message {id} cannot be read", failure, index=index, id=name)
            return {}

        self._shelf.run(self._id, self.size, index).addErrback(missing).addCallback(found)

    def forget(self) -> None:
        """Keep nothing in memory."""
        self.cached = None
        self._run = {}
