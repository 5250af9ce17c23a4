"""The daemon's database: one writer with group commit, a few threads that read beside it, and with SQLite the files beside it.

Invariant: what `run` and `write` were called for is durable when their Deferred fires, unless it was said that it need not be, and not
before. A fault of the database reaches the caller as a failure of its own Deferred; the writer goes on with the next unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from smtpplus.right_of_way import NoRightOfWay, RightOfWay
from smtpplus.storage.engine import content_directory, create_engine
from smtpplus.storage.files import ContentFiles
from smtpplus.storage.writer import Steps, Writer

T = TypeVar("T")
READERS = 2  # threads; SQLite's readers do not wait for its writer


class Database:
    """An open database. `start` it on the reactor's thread, `stop` it last of all."""

    def __init__(self, url: str, reactor: Any, road: RightOfWay | None = None) -> None:
        self._engine = create_engine(url)
        self._reactor = reactor
        self._readers = ThreadPool(0, READERS, name="smtpplus-reader")
        self._road = road or NoRightOfWay(reactor)
        self.give_way = self._road.wait  # for what reads much: to be called between a few rows
        self.writer = Writer(self._engine, reactor, self._road)
        directory = content_directory(url)
        self.files = None if directory is None else ContentFiles(directory, reactor)  # None: machines share the database, not files

    def start(self) -> None:
        """Start the threads. The schema must be up to date (engine.migrate)."""
        self._readers.start()
        if self.files is not None:
            self.files.start()
        self.writer.start()

    def stop(self) -> Deferred[None]:
        """Commit what was handed in, end the threads, close the connections."""

        def close(_: None) -> None:
            self._readers.stop()
            if self.files is not None:
                self.files.stop()
            self._engine.dispose()

        return self.writer.stop().addCallback(close)

    def run(self, steps: Steps, *, durable: bool = True, urgent: bool = False) -> Deferred[Any]:
        """Write rows by prepared statements (storage.schema) in the next group commit; see Writer.add."""
        return self.writer.add(steps, durable=durable, urgent=urgent)

    def write(self, work: Callable[[sqlalchemy.Connection], T], *, durable: bool = True) -> Deferred[T]:
        """Call `work` in the writer's thread inside the next group commit; it may be called twice if another unit fails."""
        return self.writer.add((), work, durable=durable)

    def read(self, query: Callable[[sqlalchemy.Connection], T]) -> Deferred[T]:
        """Call `query` in a reader's thread, in a transaction of its own that sees only what is committed."""

        def call() -> T:
            self._road.wait()
            with self._engine.connect().execution_options(reading=True) as connection:
                return query(connection)

        return deferToThreadPool(self._reactor, self._readers, call)
