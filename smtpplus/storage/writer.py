"""The writer thread: every write of the daemon, in group commits.

Units of work arrive from the reactor. The writer takes all that wait, runs their statements coalesced (equal statements in
one go, in the order of their ranks), then the callables, and commits once: one fsync, however many messages. If anything
fails, the batch is rolled back and each unit runs in a transaction of its own, so that a bad one harms nobody else; a callable that
raises Declined is undone alone, and the others are committed with the batch. There
is one call back into the reactor for each batch; Deferreds fire in the order of their units, but those of urgent ones first. What these
bring about has the right of way: until it is done the next commit does not begin, and one that has begun goes no further.

With a server (storage/postgresql) that is lost and soon back a batch is written then, unless it was; with one that stays away it fails.
Units that were handed in and not committed are lost with the process; that is why nobody is told 250 before its Deferred fires.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.right_of_way import NoRightOfWay, RightOfWay
from smtpplus.storage.postgresql import Tenure
from smtpplus.storage.statement import Declined, Row, Statement

Steps = Sequence[tuple[Statement, Row]]
Work = Callable[[sqlalchemy.Connection], Any]
Results = deque[tuple["Unit", Failure | None]]
BATCH = 500  # units in one group commit at most, so that one never waits long behind the others
SLICE = 8  # units that are told of their commit before what they have brought about has its turn: some 0.5 ms


class DatabaseClosed(Exception):
    """The writer has stopped; nothing was written."""


class Unit:
    """Statements with their rows, or one callable; all of it is committed or none."""

    __slots__ = ("declined", "done", "durable", "result", "steps", "urgent", "work")

    def __init__(self, steps: Steps, work: Work | None, done: Deferred[Any], *, durable: bool, urgent: bool) -> None:
        self.durable = durable
        self.urgent = urgent
        self.steps = steps
        self.work = work
        self.done = done
        self.result: Any = None
        self.declined: Failure | None = None


class Writer:
    """The thread, its inbox, and the connection nobody else uses. Methods are called on the reactor's thread."""

    _log = Logger()

    def __init__(self, engine: sqlalchemy.Engine, reactor: Any, road: RightOfWay | None = None) -> None:
        self._engine = engine
        self._reactor = reactor
        self._road = road or NoRightOfWay(reactor)
        self._gathered: list[Unit] = []
        self._urgent: Results = deque()  # of commits; who handed them in is to be told
        self._others: Results = deque()
        self._inbox: queue.SimpleQueue[list[Unit] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._finished = False  # the thread has ended
        self.commits = 0  # group commits so far
        self.committed = 0  # units in them
        self.seconds = 0.0  # that they took

    def start(self) -> None:
        """Open the connection and start the thread."""
        self._connection = self._engine.connect()
        self._sqlite = self._engine.dialect.name == "sqlite"
        self._tenure = Tenure(self._connection) if self._engine.dialect.name == "postgresql" else None
        self._thread = threading.Thread(target=self._run, name="smtpplus-writer", daemon=True)
        self._thread.start()

    def stop(self) -> Deferred[None]:
        """Commit what was handed in, then end. Later units fail with DatabaseClosed."""
        ended: Deferred[None] = Deferred()
        self._flush()
        self._closed = True
        self._ended = ended
        self._inbox.put(None)
        return ended

    def add(self, steps: Steps, work: Work | None = None, *, durable: bool = True, urgent: bool = False) -> Deferred[Any]:
        """Hand in one unit. Its Deferred fires after the commit, with what `work` returned; it fails if the unit could not be written.

        One that is not `durable` may be lost in a crash until the next durable one is committed. Of an `urgent` one
        is told first, and what that brings about at once is done before others are told.
        """
        done: Deferred[Any] = Deferred()
        if self._closed:
            done.errback(Failure(DatabaseClosed("the database is closed")))
            return done
        # One wake-up of the thread for all units of a turn of the reactor: fewer, larger commits, fewer fights for the lock.
        if not self._gathered:
            self._reactor.callLater(0, self._flush)
        self._gathered.append(Unit(steps, work, done, durable=durable, urgent=urgent))
        return done

    def _flush(self) -> None:
        if self._gathered:
            units, self._gathered = self._gathered, []
            self._inbox.put(units)

    def _tell(self, results: Sequence[tuple[Unit, Failure | None]]) -> None:
        """Units are committed, or have failed; none at all: the thread has ended."""
        waiting = bool(self._urgent or self._others)
        self._finished = self._finished or not results
        for pair in results:
            (self._urgent if pair[0].urgent else self._others).append(pair)
        if not waiting:
            self._fire()

    def _fire(self) -> None:
        """Call back a few, in order, the last of which is not urgent; the rest when what these have brought about has had its turn."""
        for place in range(SLICE):
            urgent = self._urgent and (place < SLICE - 1 or not self._others)
            results = self._urgent if urgent else self._others
            if not results:
                break
            unit, failure = results.popleft()
            if failure is None:
                unit.done.callback(unit.result)
            else:
                unit.done.errback(failure)
            if unit.urgent:
                self._road.attend()
        if self._urgent or self._others:
            self._reactor.callLater(0, self._fire)
        elif self._finished:
            self._ended.callback(None)

    # Below: on the writer's thread.

    def _run(self) -> None:
        open_ = True
        while open_:
            taken = self._inbox.get()
            self._road.wait()
            batch: list[Unit] = []
            while True:
                if taken is None:
                    open_ = False
                    break
                batch += taken
                if len(batch) >= BATCH:
                    break
                try:
                    taken = self._inbox.get_nowait()
                except queue.Empty:
                    break
            if batch:
                results = self._write(batch)
                if open_ and any(unit.urgent for unit in batch):
                    self._road.hush()
                self._reactor.callFromThread(self._tell, results)
        self._connection.close()
        self._reactor.callFromThread(self._tell, [])

    def _write(self, batch: list[Unit]) -> list[tuple[Unit, Failure | None]]:
        begun = time.monotonic()
        try:
            self._see_through(batch)
        except Exception as fault:
            if self._connection.invalidated:  # there is no server: none of them can be written
                failure = Failure()
                return [(unit, failure) for unit in batch]
            if len(batch) == 1:
                return [(batch[0], Failure())]
            if not isinstance(fault, Declined):
                self._log.failure("a group commit of {count} units failed; each is tried alone", count=len(batch))
            return [pair for unit in batch for pair in self._write([unit])]
        self.commits += 1
        self.committed += sum(unit.declined is None for unit in batch)
        self.seconds += time.monotonic() - begun
        return [(unit, unit.declined) for unit in batch]

    def _see_through(self, batch: list[Unit]) -> None:
        """Commit. A server that is lost on the way is waited for a while, and what it had committed and not told is not written twice."""
        if self._tenure is None:
            self._commit(batch)
            return
        lost = self._connection.invalidated
        try:
            self._commit(batch)
        except Exception:
            if lost or not self._connection.invalidated or not self._tenure.regained():
                raise
            if not self._tenure.committed():
                self._commit(batch)

    def _commit(self, batch: list[Unit]) -> None:
        connection = self._connection
        rows: dict[Statement, list[Row]] = {}
        for unit in batch:
            for statement, row in unit.steps:
                gathered = rows.get(statement)
                if gathered is None:
                    rows[statement] = [row]
                else:
                    gathered.append(row)
        begin = connection.begin if self._tenure is None else self._tenure.transaction
        with self._synced(any(unit.durable for unit in batch)), begin():
            for statement in sorted(rows, key=_rank):
                statement.run(connection, rows[statement], self._road.wait)
            for unit in batch:
                if unit.work is not None:
                    self._work(unit, unit.work)

    def _work(self, unit: Unit, work: Work) -> None:
        unit.declined = None
        try:
            with self._connection.begin_nested():
                unit.result = work(self._connection)
        except Declined:
            unit.declined = Failure()

    @contextmanager
    def _synced(self, durable: bool) -> Iterator[None]:
        """Commit with or without an fsync. The log is one file: the next fsync makes all that was written before durable as well."""
        if durable or not self._sqlite:
            yield
            return
        pragma = self._connection.connection.execute
        pragma("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            pragma("PRAGMA synchronous=FULL")


def _rank(statement: Statement) -> int:
    return statement.rank
