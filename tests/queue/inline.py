"""A database without threads: the same statements on a real SQLite in memory, each commit when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy
from sqlalchemy.pool import StaticPool
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smtpplus.storage import schema
from smtpplus.storage.writer import Steps

Result = tuple[Deferred[Any], Any]


class Broken(Exception):
    """The database cannot write now."""


class InlineDatabase:
    """Implements storage.database.Database. Writes wait for `commit` and are then one transaction each; reads are answered there too."""

    files = None

    def __init__(self) -> None:
        self._engine = sqlalchemy.create_engine("sqlite://", poolclass=StaticPool)
        schema.metadata.create_all(self._engine)
        self.connection = self._engine.connect()
        self.broken = False
        self._waiting: list[tuple[Deferred[Any], Callable[[], Any], bool]] = []

    def run(self, steps: Steps, *, urgent: bool = False) -> Deferred[Any]:
        def work() -> None:
            for statement, row in sorted(steps, key=lambda step: step[0].rank):
                statement.run(self.connection, [row])

        return self._add(work, writes=True)

    def write(self, work: Callable[[sqlalchemy.Connection], Any], *, durable: bool = True) -> Deferred[Any]:
        return self._add(lambda: work(self.connection), writes=True)

    def read(self, query: Callable[[sqlalchemy.Connection], Any]) -> Deferred[Any]:
        return self._add(lambda: query(self.connection), writes=False)

    def give_way(self) -> None:
        """Nobody reads beside anybody."""

    def _add(self, work: Callable[[], Any], *, writes: bool) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._waiting.append((done, work, writes))
        return done

    @property
    def waits(self) -> bool:
        """Whether anything is to be written or read."""
        return bool(self._waiting)

    def commit(self) -> bool:
        """Do all that waits, in order; False if nothing did."""
        waiting, self._waiting = self._waiting, []
        results: list[tuple[Deferred[Any], Any]] = []
        for done, work, writes in waiting:
            try:
                if self.broken and writes:
                    raise Broken
                with self.connection.begin():
                    results.append((done, work()))
            except Exception:
                results.append((done, Failure()))
        for done, result in results:
            done.callback(result)
        return bool(waiting)

    def count(self) -> int:
        """Messages stored."""
        with self.connection.begin():
            return int(self.connection.exec_driver_sql("SELECT count(*) FROM messages").scalar() or 0)

    def close(self) -> None:
        self.connection.close()
        self._engine.dispose()
