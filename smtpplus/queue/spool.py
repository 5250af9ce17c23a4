"""Keeping messages: what is accepted is in the database before anybody hears 250, and stays until its last recipient is settled.

What is whole when it comes is kept in one step, in rows: a message up to CHUNK octets is one, a longer one has its further chunks in rows
of their own. A large message is written while it arrives, with SQLite into a file (queue/shelf), and belongs to nobody until
its commit; what a crash leaves of it is purged at start. Content that came whole stays in memory as long as all of it fits
in `cache` octets, so that mail sent at once is never read back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy
from sqlalchemy import func, select, update
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from smtpplus.mail.envelope import CHUNK, Content, Envelope, queue_id
from smtpplus.queue import rows
from smtpplus.queue.content import StoredContent
from smtpplus.queue.intake import Arrivals, Intake, Share
from smtpplus.queue.rows import FetchedRow, Pending, Waiting, fetch, owners, scan
from smtpplus.queue.shelf import FileShelf, RowShelf, Shelf, Steps
from smtpplus.storage import schema, writes
from smtpplus.storage.database import Database

Stored = tuple[Envelope, Content, list[Pending]]


class Spool:
    """The queue's hold on the database. `arrivals` is to be set before the first message."""

    arrivals: Arrivals

    def __init__(self, database: Database, *, cache: int, clock: IReactorTime) -> None:
        self._database = database
        self._rows = RowShelf(database)
        files = database.files
        self._shelf: Shelf = self._rows if files is None else FileShelf(database, files, clock)  # for what arrives in pieces
        self._share = Share()
        self._cache = cache  # octets that may still be cached

    def accept(self, envelope: Envelope, content: bytes) -> Deferred[None]:
        """Keep a whole message. Fires after the fsync; fails if it could not be written, and then nothing of it is kept.

        ValueError if the content is not the one that the envelope is about.
        """
        if len(content) != envelope.size:
            raise ValueError(f"message {queue_id(envelope.id)} has {envelope.size} octets, and {len(content)} came")
        stored = self._stored(envelope, content)
        begun = self.arrivals.expect(envelope, stored)
        return self._database.run(self.steps(envelope, content, begun), urgent=begun > 0).addCallbacks(
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
        steps: Steps = [rows.insertion(envelope, pieces, first)]
        for index in range(1, pieces):
            steps.append((writes.INSERT_CHUNK, (envelope.id, index, content[index * CHUNK : (index + 1) * CHUNK])))
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
        return StoredContent(self._rows, envelope.id, size, max(1, -(-size // CHUNK)), cached)

    def begin(self, number: int) -> Intake:
        """Begin to keep a message that is too long to wait for its end in memory."""
        return Intake(self._database, self.arrivals, self._share, self._shelf, number)

    def forget(self, content: Content) -> None:
        """The message is settled, or will not be sent soon: its content need not be at hand."""
        if isinstance(content, StoredContent):
            self._cache += len(content.cached or b"")
            content.forget()

    def gone(self, numbers: Iterable[int]) -> None:
        """These messages may have been removed from the database: what is left of their content elsewhere goes too."""
        self._shelf.sweep(numbers)

    def purge(self) -> Deferred[Any]:
        """Remove what was being received when the process ended. Fires when that is done in the database; files go while mail flows."""
        return self._shelf.purge()

    def resume(self, numbers: Collection[int]) -> Deferred[None]:
        """Let these messages, whose first attempt a crash has ended, be tried at once. A second one waits for its time."""

        def work(connection: sqlalchemy.Connection) -> None:
            cut_off = schema.recipients.c.message_id.in_(numbers)
            connection.execute(update(schema.recipients).where(cut_off, rows.BEGUN).values(due=0.0))

        return self._database.write(work)

    def newest(self) -> Deferred[int]:
        """The greatest id that was ever given, as far as is known: of a message, or of what is told of one."""
        tables = (schema.messages, schema.history, schema.refusals)
        return self._database.read(
            lambda connection: max(connection.execute(select(func.max(table.c.id))).scalar() or 0 for table in tables)
        )

    def fetch(self, numbers: list[int]) -> Deferred[list[Stored]]:
        """The messages with these ids that are still there, in the order of their ids; content of short ones is cached while it fits."""
        room = max(0, self._cache)
        return self._database.read(lambda connection: fetch(connection, numbers, room, self._database.give_way)).addCallback(self._fetched)

    def _fetched(self, found: list[FetchedRow]) -> list[Stored]:
        stored: list[Stored] = []
        for envelope, chunks, in_file, octets, pending in found:
            if octets is not None:
                self._cache -= len(octets)
            shelf = self._shelf if in_file else self._rows
            stored.append((envelope, StoredContent(shelf, envelope.id, envelope.size, chunks, octets), pending))
        return stored

    def scan(self, after: tuple[int, int], limit: int, *, urgent: bool) -> Deferred[list[Waiting]]:
        """The next `limit` unsettled recipients beyond (message id, number) `after`: those of levels 1 and 2, or all others."""
        return self._database.read(lambda connection: scan(connection, after, limit, self._database.give_way, urgent=urgent))

    def owners(self, newest: int, *, urgent: bool) -> Deferred[frozenset[str]]:
        """Who has unsettled mail older than id `newest`: of levels 1 and 2, or of the others."""
        return self._database.read(lambda connection: owners(connection, newest, urgent=urgent))
