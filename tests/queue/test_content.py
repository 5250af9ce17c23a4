"""Content of queued messages, read back from the database. tests/queue/test_shelf has what lies in files."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpplus.mail.envelope import CHUNK, Content, Envelope
from smtpplus.queue.intake import AHEAD, LEAST, MOST
from smtpplus.queue.shelf import RUN
from smtpplus.queue.spool import Spool
from smtpplus.storage.database import Database
from smtpplus.storage.engine import migrate
from smtpplus.storage.files import WRITERS
from tests.queue.fixtures import envelope

OCTETS = os.urandom(10 * CHUNK + 100)


class Counting(Database):
    """A database that counts what is asked of it."""

    reads = 0

    def read(self, query: Any) -> Any:
        self.reads += 1
        return super().read(query)


class ContentTests(TestCase):
    def setUp(self) -> None:
        path = Path(self.mktemp()) / "smtpplus.sqlite"
        migrate(f"sqlite:///{path}")
        self.database = Counting(f"sqlite:///{path}", reactor)
        self.database.start()
        self.addCleanup(self.database.stop)
        self.contents: list[Content] = []
        self.spool = Spool(self.database, cache=0, clock=Clock())
        self.spool.arrivals = self

    def expect(self, envelope: Envelope, content: Content) -> float:
        return 0.0

    def accepted(self, envelope: Envelope, content: Content) -> None:
        self.contents.append(content)

    def lost(self, envelope: Envelope) -> None:
        raise AssertionError(f"{envelope} could not be committed")

    async def read(self, content: Content, *indexes: int) -> list[bytes | None]:
        found: list[bytes | None] = []
        for index in indexes:
            piece: Deferred[bytes | None] = Deferred()
            content.read(index, piece.callback)
            found.append(await piece)
        return found

    async def test_pieces_are_read_a_few_at_a_time(self) -> None:
        """In order, a content costs a question for each RUN pieces; in any other order, and again, every piece is what it was."""
        await self.spool.accept(envelope(1, size=len(OCTETS)), OCTETS)
        await self.spool.accept(envelope(2, size=10), OCTETS[:10])
        large, small = self.contents
        pieces = [OCTETS[start : start + CHUNK] for start in range(0, len(OCTETS), CHUNK)]
        self.assertEqual(await self.read(large, *range(large.chunks)), pieces)
        self.assertEqual(self.database.reads, -(-len(pieces) // RUN))
        for order in ((3, 2, 1, 0), (0, 0, 5, 5, 1), (10, 9, 10)):
            self.assertEqual(await self.read(large, *order), [pieces[index] for index in order])
        self.assertEqual(await self.read(small, 0, 0), [OCTETS[:10]] * 2)

    async def test_two_readers_of_one_content(self) -> None:
        """Two destinations that read the same content by turns both get all of it."""
        await self.spool.accept(envelope(1, size=len(OCTETS)), OCTETS)
        (content,) = self.contents
        first, second = [], []
        for index in range(content.chunks):
            first += await self.read(content, index)
            second += await self.read(content, content.chunks - 1 - index)
        self.assertEqual(b"".join(filter(None, first)), OCTETS)
        self.assertEqual(b"".join(filter(None, reversed(second))), OCTETS)

    async def test_what_is_gone_is_none(self) -> None:
        """A piece that does not exist is None, and so is every piece when the database cannot be read."""
        await self.spool.accept(envelope(1, size=len(OCTETS)), OCTETS)
        (content,) = self.contents
        self.assertEqual(await self.read(content, 99), [None])
        await self.database.write(lambda connection: connection.exec_driver_sql("DROP TABLE chunks"))
        self.assertEqual(await self.read(content, 0), [None])
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    async def test_a_content_of_another_size_is_not_kept(self) -> None:
        """C2: what the envelope says of the size is so, or the message is not taken: nobody gets an empty or a cut one."""
        for octets in (b"", OCTETS[:99], OCTETS):
            with self.assertRaises(ValueError):
                await self.spool.accept(envelope(1, size=100), octets)
        self.assertEqual((self.contents, await self.spool.newest()), ([], 0))

    async def test_few_uploads_run_ahead_and_many_together_stay_small(self) -> None:
        """C2: while nothing is written, one long message has MOST chunks waiting before its client waits; beside so many others that
        the sum would be too much, LEAST; those that have ended do not count."""

        def ahead(number: int) -> int:
            intake = self.spool.begin(number)
            self.addCleanup(intake.abort)
            return next(count for count in range(1, MOST + 2) if intake.write(OCTETS[:CHUNK]) is not None)

        released = threading.Event()
        self.addCleanup(released.set)
        assert self.database.files is not None
        for _ in range(WRITERS):
            self.database.files._writers.callInThread(released.wait, 30.0)
        self.assertEqual(ahead(1), MOST)
        others = [self.spool.begin(number) for number in range(10, 10 + AHEAD // LEAST)]
        self.assertEqual(ahead(2), LEAST)
        for each in others:
            each.abort()
        self.assertEqual(ahead(3), MOST)
