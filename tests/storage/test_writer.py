"""Group commit: what is promised when a Deferred fires, and what one bad unit does to its neighbours."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.trial.unittest import TestCase

from smtpplus.accounts.fields import AccountError
from smtpplus.right_of_way import NoRightOfWay
from smtpplus.storage import schema, writes
from smtpplus.storage.database import Database
from smtpplus.storage.engine import migrate
from smtpplus.storage.statement import Declined, RowsGone
from smtpplus.storage.writer import SLICE, DatabaseClosed, Steps, Unit


def message(number: int, content: bytes = b"x") -> Steps:
    """The steps that insert message `number` with one recipient."""
    row = (number, schema.QUEUED, "a@example.com", "app", 3, len(content), 1.0, 1, None, content)
    return [
        (writes.INSERT_MESSAGE, row),
        (writes.INSERT_RECIPIENT, (number, 0, "b@example.net", 3, "app", 0, 1.0, None, "default", "example.com")),
    ]


class WriterTests(TestCase):
    """One real SQLite file per test; a second connection looks at what is committed."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "smtpplus.sqlite"
        url = f"sqlite:///{self.path}"
        migrate(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.stopped = False

    def tearDown(self) -> Any:
        return None if self.stopped else self.database.stop()

    def seen(self, query: str) -> list[Any]:
        """What another process would see."""
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    @inlineCallbacks
    def test_urgent_ones_are_told_first(self) -> Any:
        """A27: of one commit the urgent units are told first, in their order, and each is attended to before the next is told."""
        told: list[object] = []

        class Road(NoRightOfWay):
            def attend(self) -> None:
                told.append("attended")

        yield self.database.stop()
        self.database = Database(f"sqlite:///{self.path}", reactor, Road(reactor))
        self.database.start()
        units = [self.database.run(message(number), urgent=number in (7, 8)) for number in range(1, 10)]
        for number, unit in enumerate(units, 1):
            unit.addCallback(lambda _, number: told.append(number), number)
        yield DeferredList(units)
        self.assertEqual(told, [7, "attended", 8, "attended", 1, 2, 3, 4, 5, 6, 9])

    @inlineCallbacks
    def test_way_is_given_before_each_statement(self) -> Any:
        """A27: a long commit stops in its midst for urgent mail, which may come while it is written."""
        asked: list[int] = []

        class Road(NoRightOfWay):
            def wait(self) -> None:
                asked.append(database.writer.commits)

        yield self.database.stop()
        self.database = database = Database(f"sqlite:///{self.path}", reactor, Road(reactor))
        database.start()
        yield DeferredList([database.run(message(number)) for number in range(1, 129)], fireOnOneErrback=True)
        before, messages, recipients = 1, 2, 2  # 64 rows go into one statement
        self.assertEqual(asked, [0] * (before + messages + recipients))

    @inlineCallbacks
    def test_urgent_ones_keep_their_order_and_leave_others_a_place(self) -> Any:
        """A27, C2: urgent units of a later commit do not overtake those of an earlier one, and one of each slice is not urgent."""
        told: list[int] = []
        later: list[Any] = []

        def tell(_: object, number: int) -> None:
            told.append(number)
            if number == 1:  # a second commit is told of while most of the first waits
                writer = self.database.writer
                units = [Unit((), None, Deferred(), durable=True, urgent=True) for _ in range(10)]
                for place, unit in enumerate(units, 101):
                    unit.done.addCallback(tell, place)
                later.extend(unit.done for unit in units)
                writer._tell([(unit, None) for unit in units])

        units = [self.database.run(message(number), urgent=number <= 10) for number in range(1, 13)]
        for number, unit in enumerate(units, 1):
            unit.addCallback(tell, number)
        yield DeferredList(units)
        yield DeferredList(later)
        self.assertEqual([number for number in told if number not in (11, 12)], [*range(1, 11), *range(101, 111)])
        self.assertEqual((told.index(11), told.index(12)), (SLICE - 1, 2 * SLICE - 1))

    @inlineCallbacks
    def test_committed_when_fired(self) -> Any:
        """C2: when the Deferred fires, another connection sees the message and its recipient."""
        yield self.database.run(message(1))
        self.assertEqual(self.seen("SELECT id, content FROM messages"), [(1, b"x")])
        self.assertEqual(self.seen("SELECT message_id, address, warned FROM recipients"), [(1, "b@example.net", 0)])

    @inlineCallbacks
    def test_units_of_one_turn_share_a_commit(self) -> Any:
        """C2: a hundred messages of one turn of the reactor are one group commit."""
        yield DeferredList([self.database.run(message(number)) for number in range(1, 101)], fireOnOneErrback=True)
        self.assertEqual((self.database.writer.commits, self.database.writer.committed), (1, 100))
        self.assertEqual(self.seen("SELECT count(*), min(id), max(id) FROM messages"), [(100, 1, 100)])

    @inlineCallbacks
    def test_a_large_commit_is_told_in_turns(self) -> Any:
        """A27: all units of a commit hear of it in their order, and what one of them brings about does not wait for the last."""
        told: list[int] = []
        turns: list[int] = []

        def tell(_: Any, number: int) -> None:
            told.append(number)
            if number == 1:
                reactor.callLater(0, lambda: turns.append(len(told)))

        count = 3 * SLICE
        units = [self.database.run(message(number)).addCallback(tell, number) for number in range(1, count + 1)]
        self.stopped = True
        yield self.database.stop()
        yield DeferredList(units, fireOnOneErrback=True)
        self.assertEqual((self.database.writer.commits, told), (1, list(range(1, count + 1))))
        self.assertLess(turns[0], count)

    @inlineCallbacks
    def test_a_bad_unit_harms_nobody_else(self) -> Any:
        """C2: a unit that cannot be written fails alone, its neighbours in the same batch are committed."""
        yield self.database.run(message(7))
        results = yield DeferredList([self.database.run(message(number)) for number in (6, 7, 8)], consumeErrors=True)
        self.assertEqual([success for success, _ in results], [True, False, True])
        results[1][1].trap(sqlalchemy.exc.IntegrityError)
        self.assertEqual(self.seen("SELECT id FROM messages ORDER BY id"), [(6,), (7,), (8,)])
        self.assertEqual(self.seen("SELECT message_id FROM recipients ORDER BY 1"), [(6,), (7,), (8,)])
        self.assertEqual(len(self.flushLoggedErrors(sqlalchemy.exc.IntegrityError)), 1)

    @inlineCallbacks
    def test_a_failed_callable_is_rolled_back(self) -> Any:
        """C2: a callable that raises leaves nothing behind, and its Deferred fails with what it raised."""

        def broken(connection: sqlalchemy.Connection) -> None:
            connection.execute(schema.generation.insert().values(name="accounts", number=1))
            raise ZeroDivisionError

        yield self.assertFailure(self.database.write(broken), ZeroDivisionError)
        self.assertEqual(self.seen("SELECT * FROM generation"), [])

    @inlineCallbacks
    def test_what_is_declined_fails_alone_without_noise(self) -> Any:
        """C2: a callable that declines is undone and told, nothing is logged, and its neighbours share one commit as ever."""

        def declining(connection: sqlalchemy.Connection) -> None:
            connection.execute(schema.generation.insert().values(name="declined", number=1))
            raise AccountError("there is no such user")

        def writing(connection: sqlalchemy.Connection) -> int:
            connection.execute(schema.generation.insert().values(name="accounts", number=1))
            return 7

        works = [
            self.database.write(declining),
            self.database.run(message(1)),
            self.database.write(writing),
            self.database.write(declining),
        ]
        results = yield DeferredList(works, consumeErrors=True)
        self.assertEqual([success for success, _ in results], [False, True, True, False])
        results[0][1].trap(Declined)
        self.assertEqual((results[2][1], self.database.writer.commits, self.database.writer.committed), (7, 1, 2))
        self.assertEqual(self.seen("SELECT name FROM generation"), [("accounts",)])
        self.assertEqual(self.flushLoggedErrors(), [])
        yield self.assertFailure(self.database.write(declining), AccountError)

    @inlineCallbacks
    def test_every_statement_does_its_work(self) -> Any:
        """A message goes through all prepared statements, with more rows than one statement takes, and nothing is left."""
        numbers = range(1, 200)
        yield self.database.run([step for number in numbers for step in message(number)])
        yield self.database.run([(writes.INSERT_CHUNK, (number, 1, b"tail")) for number in numbers])
        yield self.database.run([(writes.COMMIT_MESSAGE, (schema.QUEUED, "c@d", "app", 2, 5, 9.0, 2, None, number)) for number in numbers])
        self.assertEqual(self.seen("SELECT DISTINCT state, sender, level, size, chunks FROM messages"), [(1, "c@d", 2, 5, 2)])
        yield self.database.run([(writes.RECORD_ATTEMPT, (1, 60.0, number, 0, 1.0)) for number in numbers])
        yield self.database.run([(writes.RECORD_DEFERRAL, (90.0, "451 later", True, number, 0)) for number in numbers])
        self.assertEqual(self.seen("SELECT DISTINCT attempts, due, reply, warned FROM recipients"), [(1, 90.0, "451 later", 1)])
        yield self.database.run([(writes.DELETE_RECIPIENT, (1, 0))])
        self.assertEqual(self.seen("SELECT count(*) FROM recipients"), [(198,)])
        yield self.database.run(
            [
                (statement, (number,))
                for number in numbers
                for statement in (writes.DELETE_RECIPIENTS, writes.DELETE_CHUNKS, writes.DELETE_MESSAGE)
            ]
        )
        for table in ("messages", "chunks", "recipients"):
            self.assertEqual(self.seen(f"SELECT count(*) FROM {table}"), [(0,)])

    @inlineCallbacks
    def test_an_exact_statement_fails_alone(self) -> Any:
        """A30: an attempt at a recipient that is gone or put off is not recorded, and the unit with it fails whole; others succeed."""
        yield self.database.run([*message(1), *message(2), *message(3)])
        yield self.database.run([(writes.RECORD_DEFERRAL, (500.0, None, False, 2, 0))])
        attempts = [[(writes.RECORD_ATTEMPT, (1, 60.0, number, 0, 10.0)) for number in numbers] for numbers in ((1,), (3, 2), (9,))]
        results = yield DeferredList([self.database.run(steps) for steps in attempts], consumeErrors=True)
        self.assertEqual([success for success, _ in results], [True, False, False])
        results[1][1].trap(RowsGone)
        self.assertEqual(self.seen("SELECT attempts, due FROM recipients ORDER BY message_id"), [(1, 60.0), (0, 500.0), (0, 1.0)])

    @inlineCallbacks
    def test_a_message_goes_with_its_last_recipient(self) -> Any:
        """A removal on condition takes a message and its chunks only when no recipient is left."""
        second = (writes.INSERT_RECIPIENT, (1, 1, "c@example.net", 3, "app", 0, 1.0, None, "default", "example.com"))
        yield self.database.run([*message(1), second, (writes.INSERT_CHUNK, (1, 1, b"tail")), *message(2)])
        remove = [(writes.REMOVE_CHUNKS_IF_SETTLED, (1,)), (writes.REMOVE_IF_SETTLED, (1,))]
        yield self.database.run([(writes.DELETE_RECIPIENT, (1, 0)), *remove])
        self.assertEqual(self.seen("SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM chunks)"), [(2, 1)])
        yield self.database.run([(writes.DELETE_RECIPIENT, (1, 1)), *remove])
        self.assertEqual(self.seen("SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM chunks)"), [(1, 0)])

    @inlineCallbacks
    def test_only_what_is_promised_is_synced(self) -> Any:
        """C2: what nobody relies on yet is committed without an fsync, anything else with one, alone or beside it, after a fault too."""
        said: list[str] = []
        yield self.database.run(message(1))
        driver: Any = self.database.writer._connection.connection.driver_connection
        driver.set_trace_callback(said.append)
        first, second, third = ([(writes.INSERT_CHUNK, (1, number, b"x"))] for number in (1, 2, 3))
        yield self.database.run(first, durable=False)
        yield self.assertFailure(self.database.run(first, durable=False), sqlalchemy.exc.IntegrityError)
        yield DeferredList([self.database.run(second, durable=False), self.database.run(third)])
        self.assertEqual(self.seen("SELECT number FROM chunks ORDER BY number"), [(1,), (2,), (3,)])
        unsynced = ["PRAGMA synchronous=NORMAL", "BEGIN IMMEDIATE", "COMMIT", "PRAGMA synchronous=FULL"]
        failed = [*unsynced[:2], "ROLLBACK", unsynced[3]]
        self.assertEqual([line for line in said if not line.startswith("INSERT")], [*unsynced, *failed, "BEGIN IMMEDIATE", "COMMIT"])

    @inlineCallbacks
    def test_stop_commits_what_was_handed_in(self) -> Any:
        """C2: stopping loses nothing that was handed in, and refuses what comes later."""
        handed_in = self.database.run(message(1))
        self.stopped = True
        yield self.database.stop()
        yield handed_in
        self.assertEqual(self.seen("SELECT id FROM messages"), [(1,)])
        yield self.assertFailure(self.database.run(message(2)), DatabaseClosed)

    @inlineCallbacks
    def test_readers_see_only_what_is_committed(self) -> Any:
        """A read sees the committed state."""
        yield self.database.run(message(1))
        count = yield self.database.read(lambda connection: connection.execute(sqlalchemy.select(schema.messages.c.id)).scalars().all())
        self.assertEqual(count, [1])


class Tenure:
    """Of a server: back in time or not, and it may have committed what it was given last."""

    def __init__(self, connection: sqlalchemy.Connection, *, back: bool = True, kept: bool = False) -> None:
        self.transaction = connection.begin
        self._back, self._kept = back, kept
        self.asked: list[str] = []

    def regained(self) -> bool:
        self.asked.append("regained")
        return self._back

    def committed(self) -> bool:
        self.asked.append("committed")
        return self._kept


class LostServerTests(TestCase):
    """A server that goes away in the midst of a commit."""

    def setUp(self) -> None:
        url = f"sqlite:///{Path(self.mktemp()) / 'smtpplus.sqlite'}"
        migrate(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.addCleanup(self.database.stop)
        self.losses = 1
        self.calls = 0

    def serve(self, **said: bool) -> Tenure:
        writer: Any = self.database.writer
        tenure = writer._tenure = Tenure(writer._connection, **said)
        return tenure

    def lose(self, connection: sqlalchemy.Connection) -> int:
        """A unit of work in which the server is lost."""
        self.calls += 1
        if self.losses:
            self.losses -= 1
            connection.invalidate()
            raise OSError("server closed the connection unexpectedly")
        return self.calls

    def both(self) -> Any:
        return DeferredList([self.database.run(message(1)), self.database.write(self.lose)], consumeErrors=True)

    @inlineCallbacks
    def messages(self) -> Any:
        found = yield self.database.read(lambda connection: list(connection.scalars(sqlalchemy.select(schema.messages.c.id))))
        return found

    @inlineCallbacks
    def test_one_that_is_soon_back(self) -> Any:
        """C2: the whole batch is written anew, and nobody hears of it."""
        tenure = self.serve()
        self.assertEqual((yield self.both()), [(True, None), (True, 2)])
        self.assertEqual(((yield self.messages()), tenure.asked), ([1], ["regained", "committed"]))

    @inlineCallbacks
    def test_one_that_had_committed(self) -> Any:
        """C2: what was committed without a word is not written twice."""
        self.serve(kept=True)
        self.assertEqual([success for success, _ in (yield self.both())], [True, True])
        self.assertEqual((self.calls, (yield self.messages())), (1, []))  # here it was not, but the server says so

    @inlineCallbacks
    def test_one_that_stays_away(self) -> Any:
        """C2: everybody is refused at once, none is tried alone; what comes later finds it again."""
        tenure = self.serve(back=False)
        self.assertEqual([success for success, _ in (yield self.both())], [False, False])
        self.assertEqual((self.calls, tenure.asked), (1, ["regained"]))
        yield self.database.run(message(2))
        self.assertEqual((yield self.messages()), [2])
