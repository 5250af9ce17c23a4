"""Content of a queued message, wherever it is: in memory while the cache holds it, else in the database, read a few chunks at a time."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy
from sqlalchemy import select
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.mail.envelope import CHUNK
from smtpplus.storage import schema
from smtpplus.storage.database import Database

RUN = 4  # chunks that are read at once


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
