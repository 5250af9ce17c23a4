"""Long messages in files beside the database: durable before their row is there, gone after it."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
from sqlalchemy.exc import IntegrityError
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher

from smtpplus.mail.envelope import CHUNK, Content, Envelope, Recipient, queue_id
from smtpplus.queue import actions
from smtpplus.queue.intake import MOST, Intake
from smtpplus.queue.rules import Rules
from smtpplus.queue.scheduler import Scheduler
from smtpplus.queue.selection import QueueView, Selection
from smtpplus.queue.shelf import AGAIN, RUN, FileShelf
from smtpplus.storage import writes
from smtpplus.storage.database import Database
from smtpplus.storage.files import WRITERS, ContentFiles
from tests.queue import house
from tests.queue.fixtures import LATER, NEVER, OK, envelope
from tests.queue.house import QueueCase

OCTETS = b"Subject: long\r\n\r\n" + os.urandom(4 * RUN * CHUNK + 83)
ROWS = "SELECT id, state, chunks, content IS NULL FROM messages ORDER BY id"


class ShelfCase(QueueCase):
    """A queue whose long messages go through `send`."""

    @property
    def files(self) -> ContentFiles:
        assert self.database.files is not None
        return self.database.files

    def on_disk(self) -> list[str]:
        """The names of the files with content."""
        directory = Path(f"{self.path}-content")
        return sorted(os.listdir(directory)) if directory.exists() else []

    def long(self, number: int, *to: str, level: int = 3, octets: bytes = OCTETS) -> Envelope:
        return msgspec.structs.replace(envelope(number, level, "app", *to, at=self.wall), size=len(octets))

    @inlineCallbacks
    def upload(self, number: int, octets: bytes = OCTETS) -> Any:
        """An intake that was given everything."""
        intake = self.queue.spool.begin(number)
        for start in range(0, len(octets), 50_000):
            waiting = intake.write(octets[start : start + 50_000])
            if waiting is not None:
                yield waiting
        return intake

    @inlineCallbacks
    def send(self, accepted: Envelope, octets: bytes = OCTETS) -> Any:
        intake: Intake = yield self.upload(accepted.id, octets)
        yield intake.commit(accepted)

    @inlineCallbacks
    def pieces(self, content: Content) -> Any:
        found: list[bytes | None] = []
        for index in range(content.chunks):
            piece: Deferred[bytes | None] = Deferred()
            content.read(index, piece.callback)
            found.append((yield piece))
        return found

    @inlineCallbacks
    def restart(self) -> Any:
        for transfer in self.agent.transfers:
            transfer.end(LATER)
        yield self.close()
        self.open()
        yield self.queue.spool.purge()
        yield self.queue.start()

    def block(self, threads: Any, count: int) -> threading.Event:
        """Until the event is set, these threads do nothing."""
        released = threading.Event()
        self.addCleanup(released.set)
        for _ in range(count):
            threads.callInThread(released.wait, 30.0)
        return released

    def cancel(self, *ids: int) -> int:
        """As the command line does it."""

        def work(connection: Any) -> int:
            view = QueueView(connection, Rules(), lambda domain: domain, self.wall)
            return actions.cancel(connection, list(view.select(Selection(ids=ids))), who="me", reason="test", now=self.wall)

        return self.operate(work)


class Broken:
    """A scheduler with a fault of its own in what it does before a commit."""

    def __init__(self, scheduler: Scheduler, expect: Callable[[Envelope, Content], float]) -> None:
        self.expect = expect
        self.accepted = scheduler.accepted
        self.lost = scheduler.lost


class FileShelfTests(ShelfCase):
    @inlineCallbacks
    def test_a_long_message_is_one_file(self) -> Any:
        """C2: it is read back octet by octet, also after a restart; its row holds no content, and its file goes with its last recipient."""
        yield self.send(self.long(9))
        self.assertEqual(self.rows(ROWS), [(9, 1, -(-len(OCTETS) // CHUNK), 1)])
        self.assertEqual(self.on_disk(), [queue_id(9)])
        yield self.begun(1)
        self.assertEqual(b"".join((yield self.pieces(self.agent.transfers[0].request.content))), OCTETS)
        yield self.restart()
        self.wall += 60.0
        self.clock.advance(60.0)
        yield self.begun(1)
        self.assertEqual(b"".join((yield self.pieces(self.agent.transfers[0].request.content))), OCTETS)
        self.agent.transfers[0].end(OK)
        yield self.until(lambda: not self.on_disk())
        self.assertEqual(self.rows(ROWS), [])

    @inlineCallbacks
    def test_the_file_goes_with_the_last_recipient(self) -> Any:
        """C2: what one destination has taken or refused leaves it to the others; the notification of the failure is kept in rows."""
        yield self.send(self.long(9, "a@x.net", "b@y.net", "c@z.net"))
        yield self.begun(3)
        first, second, third = self.agent.transfers
        first.end(OK)
        second.end(NEVER)
        yield self.begun(4)
        yield self.turn()
        self.assertEqual(self.on_disk(), [queue_id(9)])
        self.assertEqual(b"".join((yield self.pieces(third.request.content))), OCTETS)
        third.end(OK)
        yield self.until(lambda: not self.on_disk())
        self.assertEqual([row[2:] for row in self.rows(ROWS)], [(1, 0)])

    @inlineCallbacks
    def test_nothing_is_in_the_database_before_the_file_is_durable(self) -> Any:
        """C2: while the disk writes a long message there is no row of it, nothing is promised, and a short one is not kept waiting."""
        intake: Intake = yield self.upload(9)
        released = self.block(self.files._writers, WRITERS)
        committed = intake.commit(self.long(9, level=1))
        yield self.accept(envelope(10, 1, at=self.wall))
        self.assertNoResult(committed)
        self.assertEqual([row[0] for row in self.rows(ROWS)], [10])
        released.set()
        yield committed
        self.assertEqual([row[0] for row in self.rows(ROWS)], [9, 10])

    @inlineCallbacks
    def test_more_and_the_end_come_while_it_goes_on(self) -> Any:
        """C2: what comes in the moment the client is told to go on, more than one write of it and the commit, stands where it belongs."""
        intake = self.queue.spool.begin(1)
        cut = MOST * CHUNK
        waiting = intake.write(OCTETS[:cut])
        assert waiting is not None
        yield waiting
        for start in range(cut, len(OCTETS), CHUNK // 2):
            intake.write(OCTETS[start : start + CHUNK // 2])
        yield intake.commit(self.long(1))
        yield self.begun(1)
        self.assertEqual(b"".join((yield self.pieces(self.agent.transfers[0].request.content))), OCTETS)

    @inlineCallbacks
    def test_crumbs_cost_what_they_hold(self) -> Any:
        """C2: a client that sends two octets at a time holds little more memory than octets, and they stand in their order."""
        intake = self.queue.spool.begin(1)
        cut = 2 * CHUNK
        for start in range(0, cut, 2):
            intake.write(OCTETS[start : start + 2])
        self.assertLess(sum(map(sys.getsizeof, intake._gathered)) + sys.getsizeof(intake._gathered), 1.5 * cut)
        for start in range(cut, len(OCTETS), CHUNK):
            waiting = intake.write(OCTETS[start : start + CHUNK])
            if waiting is not None:
                yield waiting
        yield intake.commit(self.long(1))
        yield self.begun(1)
        self.assertEqual(b"".join((yield self.pieces(self.agent.transfers[0].request.content))), OCTETS)

    @inlineCallbacks
    def test_an_aborted_upload_leaves_nothing(self) -> Any:
        """C2: the client goes away between two writes, in the middle of one, before the first: no file and no row is left."""
        between: Intake = yield self.upload(1)
        yield self.until(lambda: self.on_disk() == [queue_id(1)] and not between._moving)
        between.abort()
        self.queue.spool.begin(2).abort()
        amid = self.queue.spool.begin(3)
        waiting = amid.write(OCTETS)
        assert waiting is not None
        amid.abort()
        yield waiting
        self.assertIsNone(amid.write(OCTETS))
        yield self.until(lambda: not amid._moving and not self.on_disk())
        self.assertEqual(self.rows(ROWS), [])

    @inlineCallbacks
    def test_a_disk_that_takes_no_more(self) -> Any:
        """C2: the upload is read to its end, its commit fails with the reason and nothing of it is kept; the next one passes."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        intake: Intake = yield self.upload(1)
        yield self.until(lambda: not self.on_disk() and intake._fault is not None)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        yield self.assertFailure(intake.commit(self.long(1)), OSError)
        intake.abort()
        yield self.send(self.long(2))
        self.assertEqual(self.on_disk(), [queue_id(2)])
        self.assertEqual([row[0] for row in self.rows(ROWS)], [2])

    @inlineCallbacks
    def test_a_directory_that_is_removed_or_not_ours(self) -> Any:
        """C2: an upload whose file is gone fails at its commit; so does one where a file stands in the directory's place."""
        intake: Intake = yield self.upload(1)
        yield self.until(lambda: self.on_disk() == [queue_id(1)] and not intake._moving)
        directory = Path(f"{self.path}-content")
        (directory / queue_id(1)).unlink()
        directory.rmdir()
        yield self.assertFailure(intake.commit(self.long(1)), FileNotFoundError)
        directory.write_bytes(b"")
        yield self.assertFailure(self.send(self.long(2)), NotADirectoryError)
        directory.unlink()
        yield self.send(self.long(3))
        self.assertEqual(self.on_disk(), [queue_id(3)])
        self.assertEqual([row[0] for row in self.rows(ROWS)], [3])

    @inlineCallbacks
    def test_a_commit_that_fails_leaves_no_file(self) -> Any:
        """C2: the file of a message whose row could not be written goes; one whose row is there stays, whatever is said about it."""
        yield self.send(self.long(1))
        recipient = (writes.INSERT_RECIPIENT, (2, 0, "b@example.net", 3, "app", 0, 0.0, None, "default", "example.com"))
        yield self.database.run([recipient])
        yield self.assertFailure(self.send(self.long(2)), IntegrityError)
        self.queue.spool.gone((1, 2, 3))
        yield self.until(lambda: self.on_disk() == [queue_id(1)])

    @inlineCallbacks
    def test_what_was_cancelled_outside_goes(self) -> Any:
        """D4: the command line takes a message out of the database; a running daemon gives its room back within a second."""
        self.queue.scheduler.obey(Rules())
        yield self.send(self.long(1, "a@x.net", "b@y.net"))
        yield self.send(self.long(2))
        self.assertEqual(self.cancel(1), 2)
        yield self.turn(1.0)
        yield self.until(lambda: self.on_disk() == [queue_id(2)])

    @inlineCallbacks
    def test_a_start_removes_what_a_crash_left(self) -> Any:
        """C2: files without a row go: half received, received and not committed, delivered and not yet removed. Files with one, those that
        arrive meanwhile, and what is not ours stay."""
        yield self.send(self.long(1))
        for number in range(2, 1500):
            (Path(f"{self.path}-content") / queue_id(number)).write_bytes(b"x")
        (Path(f"{self.path}-content") / "README").write_bytes(b"x")
        told: list[Any] = []
        listener = cast(ILogObserver, told.append)
        globalLogPublisher.addObserver(listener)
        self.addCleanup(globalLogPublisher.removeObserver, listener)
        yield self.close()
        self.open()
        arriving: Intake = yield self.upload(2000)
        yield self.until(lambda: not arriving._moving)
        yield self.queue.spool.purge()
        yield self.queue.start()
        yield self.until(lambda: self.on_disk() == [queue_id(1), queue_id(2000), "README"])
        yield arriving.commit(self.long(2000))
        self.assertEqual([row[0] for row in self.rows(ROWS)], [1, 2000])
        self.assertEqual([event["count"] for event in told if "with content" in event["log_format"]], [1498])

    @inlineCallbacks
    def test_what_cannot_be_removed_is_tried_again(self) -> Any:
        """A file that cannot be removed keeps no other there, is told of once, and goes when it can, though no other message comes."""
        yield self.send(self.long(3))
        directory = Path(f"{self.path}-content")
        (directory / queue_id(1)).mkdir()
        (directory / queue_id(2)).write_bytes(b"x")
        self.queue.spool.gone((1, 2))
        yield self.until(lambda: self.on_disk() == [queue_id(1), queue_id(3)])
        self.assertEqual(len(self.flushLoggedErrors(IsADirectoryError)), 1)
        shelf = self.queue.spool._shelf
        assert isinstance(shelf, FileShelf)
        self.clock.advance(AGAIN)
        yield self.until(lambda: shelf._waiting)
        self.assertEqual(self.flushLoggedErrors(IsADirectoryError), [])
        (directory / queue_id(1)).rmdir()
        (directory / queue_id(1)).write_bytes(b"x")
        self.clock.advance(AGAIN)
        yield self.until(lambda: self.on_disk() == [queue_id(3)])

    @inlineCallbacks
    def test_a_listing_that_fails_is_tried_again(self) -> Any:
        """Where the directory cannot be read at the start, what a crash left goes a minute later."""
        directory, aside = Path(f"{self.path}-content"), Path(f"{self.path}-aside")
        aside.mkdir()
        (aside / queue_id(1)).write_bytes(b"x")
        directory.write_bytes(b"")
        yield self.queue.spool.purge()
        yield self.until(lambda: bool(self.flushLoggedErrors(NotADirectoryError)))
        directory.unlink()
        aside.rename(directory)
        self.clock.advance(AGAIN)
        yield self.until(lambda: not self.on_disk())

    @inlineCallbacks
    def test_a_message_that_cannot_be_handed_in_leaves_no_file(self) -> Any:
        """C2: a fault of our own between file and commit is the failure of the commit; the file goes, and the number is free again."""
        scheduler = self.queue.scheduler
        expect = scheduler.expect

        def broken(envelope: Envelope, content: Content) -> float:
            expect(envelope, content)
            raise ZeroDivisionError

        self.queue.spool.arrivals = Broken(scheduler, broken)
        yield self.assertFailure(self.send(self.long(1)), ZeroDivisionError)
        yield self.until(lambda: not self.on_disk())
        self.queue.spool.arrivals = scheduler
        yield self.send(self.long(1))
        yield self.begun(1)

    @inlineCallbacks
    def test_content_that_is_lost_is_none(self) -> Any:
        """C2: a file that is missing, or shorter than its message, gives no octet for the whole that is not there, and raises nothing.

        Each is a line in the log, without a traceback.
        """
        told: list[str] = []

        def tell(event: LogEvent) -> None:
            if event["log_level"] is LogLevel.error:
                told.append(formatEvent(event))

        listener = cast(ILogObserver, tell)  # any callable is one; its interface says so only to zope's own checker
        globalLogPublisher.addObserver(listener)
        self.addCleanup(globalLogPublisher.removeObserver, listener)
        yield self.send(self.long(1))
        yield self.begun(1)
        content = self.agent.transfers[0].request.content
        file = Path(f"{self.path}-content") / queue_id(1)
        os.truncate(file, len(OCTETS) - 1)
        found = yield self.pieces(content)
        self.assertIsNone(found[-1])
        self.assertEqual(b"".join(found[:RUN]), OCTETS[: RUN * CHUNK])
        file.unlink()
        self.assertIsNone((yield self.pieces(content))[0])
        self.assertEqual([line.partition(" message")[0] for line in told[:2]], ["chunk 16 of", "chunk 0 of"])

    @inlineCallbacks
    def test_a_transfer_holds_little(self) -> Any:
        """C2: of a file RUN pieces are read at once, in order or not."""
        yield self.send(self.long(1))
        yield self.begun(1)
        content = self.agent.transfers[0].request.content
        asked: list[int] = []
        read = self.files.read

        def counted(number: int, start: int, length: int) -> Deferred[bytes]:
            asked.append(length)
            return read(number, start, length)

        self.patch(self.files, "read", counted)
        yield self.pieces(content)
        self.assertEqual(asked, [*[RUN * CHUNK] * 4, 100])

    @inlineCallbacks
    def test_rows_of_an_earlier_release(self) -> Any:
        """C2: a long message that lies in rows is delivered and removed as ever, beside one that lies in a file."""
        old = Recipient("b@example.net")
        yield self.queue.spool.accept(Envelope(1, "a@example.com", (old,), "app", 3, len(OCTETS), self.wall), OCTETS)
        yield self.send(self.long(2))
        self.assertEqual([row[3] for row in self.rows(ROWS)], [0, 1])
        yield self.restart()
        self.wall += 60.0
        self.clock.advance(60.0)
        yield self.begun(2)
        for transfer in self.agent.transfers:
            self.assertEqual(b"".join((yield self.pieces(transfer.request.content))), OCTETS)
            transfer.end(OK)
        yield self.until(lambda: self.rows("SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM chunks)") == [(0, 0)])
        yield self.until(lambda: not self.on_disk())


class SharedDatabase(Database):
    """A database that stands for one that several machines share: it has no files."""

    def __init__(self, url: str, reactor: Any) -> None:
        super().__init__(url, reactor)
        self.files = None


class RowShelfTests(ShelfCase):
    """Where several machines share the queue, long messages stay in rows."""

    def setUp(self) -> Any:
        self.patch(house, "Database", SharedDatabase)
        return super().setUp()

    @inlineCallbacks
    def test_a_long_message_is_rows(self) -> Any:
        """C2: written as it comes, in whole chunks, RECEIVING until its commit; read back the same, and removed with the message."""
        counts = "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM chunks)"
        intake: Intake = yield self.upload(9)
        yield self.until(lambda: self.rows("SELECT state FROM messages") == [(0,)])
        yield intake.commit(self.long(9))
        self.assertEqual(self.rows(ROWS), [(9, 1, -(-len(OCTETS) // CHUNK), 0)])
        self.assertEqual(self.on_disk(), [])
        yield self.begun(1)
        self.assertEqual(b"".join((yield self.pieces(self.agent.transfers[0].request.content))), OCTETS)
        self.agent.transfers[0].end(OK)
        yield self.until(lambda: self.rows(counts) == [(0, 0)])

    @inlineCallbacks
    def test_what_is_not_committed_goes(self) -> Any:
        """C2: rows of an aborted upload go at once, of one that a crash ended at the next start; a queued message stays."""
        yield self.send(self.long(1))
        for number in (2, 3):
            intake: Intake = yield self.upload(number)
            yield self.until(lambda intake=intake: not intake._moving)
            if number == 2:
                intake.abort()
        yield self.database.write(lambda connection: None)
        self.assertEqual([row[:2] for row in self.rows(ROWS)], [(1, 1), (3, 0)])
        self.assertEqual((yield self.queue.spool.purge()), 1)
        self.assertEqual([row[:2] for row in self.rows(ROWS)], [(1, 1)])
        self.assertEqual(self.rows("SELECT DISTINCT message_id FROM chunks"), [(1,)])
