"""Would-be refusals are added up in the database, in batches, on a real database with its real writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpplus.events import Authenticated, WouldRefuse
from smtpplus.observation.would_block import GATHER, KEPT, LIMIT, WouldBlock
from smtpplus.storage.database import Database
from smtpplus.storage.engine import create_engine, migrate
from smtpplus.storage.schema import would_refuse

DAY = 86_400.0


def refusal(at: float, sender: str = "x@b.com", user: str = "app", reply: str = "550 5.7.1 no") -> WouldRefuse:
    return WouldRefuse(at, "s", "192.0.2.1:5", user, sender, "domain_not_authorized", reply)


class WouldBlockTests(TestCase):
    """An observer on a database; `self.engine` stands for another process that reads it."""

    def setUp(self) -> None:
        url = f"sqlite:///{Path(self.mktemp())}/smtpplus.sqlite"
        migrate(url)
        self.engine = create_engine(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.clock = Clock()
        self.observer = WouldBlock(self.database, self.clock)

    def tearDown(self) -> Any:
        self.engine.dispose()
        return self.database.stop()

    def rows(self) -> list[tuple[Any, ...]]:
        """User, sender, count, first and last time."""
        table = would_refuse.c
        chosen = select(table.user, table.sender, table.count, table.first_at, table.last_at).order_by(table.user, table.sender)
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(chosen)]

    @inlineCallbacks
    def write(self, *events: WouldRefuse) -> Any:
        """State events, let a second pass, and wait for the writer."""
        for event in events:
            self.observer(event)
        self.clock.advance(GATHER)
        yield self.database.write(lambda _: None)  # the writer takes work in order

    @inlineCallbacks
    def test_added_up(self) -> Any:
        """D5: equal ones are one row with count, first and last time, over many batches; others have rows of their own."""
        yield self.write(refusal(1.0), refusal(2.0), refusal(2.5, "y@b.com"), refusal(3.0, user="shop"))
        yield self.write(refusal(9.0, reply="550 5.7.1 later"))
        self.assertEqual(self.rows(), [("app", "x@b.com", 3, 1.0, 9.0), ("app", "y@b.com", 1, 2.5, 2.5), ("shop", "x@b.com", 1, 3.0, 3.0)])
        with self.engine.connect() as connection:
            replies = connection.scalars(select(would_refuse.c.reply).where(would_refuse.c.count == 3)).all()
        self.assertEqual(replies, ["550 5.7.1 later"])

    @inlineCallbacks
    def test_one_unit_of_work_per_second(self) -> Any:
        """A thousand messages within a second are one unit for the writer; no event, or another one, is none."""
        yield self.write(*(refusal(1.0 + number / 1000) for number in range(1000)))
        self.assertEqual(self.database.writer.committed, 2)  # it, and the one of `write`
        self.observer(Authenticated(1.0, "s", "c", "app", "PLAIN", ""))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.rows(), [("app", "x@b.com", 1000, 1.0, 1.999)])

    @inlineCallbacks
    def test_close_writes_what_is_left(self) -> Any:
        """What was counted when the daemon stops is in the database when `close` fires."""
        self.observer(refusal(1.0))
        yield self.observer.close()
        self.assertEqual(self.rows(), [("app", "x@b.com", 1, 1.0, 1.0)])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        yield self.observer.close()

    @inlineCallbacks
    def test_a_fault_of_the_database_loses_nothing(self) -> Any:
        """What could not be written is added to what comes next."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE would_refuse RENAME TO elsewhere")
        yield self.write(refusal(1.0))
        self.assertIn("no such table", str(self.flushLoggedErrors()))
        with self.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO would_refuse")
        yield self.write(refusal(2.0))
        self.assertEqual(self.rows(), [("app", "x@b.com", 2, 1.0, 2.0)])

    @inlineCallbacks
    def test_bounded(self) -> Any:
        """Entries that wait are bounded in number, and what nobody sent for a month is forgotten."""
        yield self.write(refusal(1.0, "old@b.com"), *(refusal(DAY, f"{number}@b.com") for number in range(LIMIT + 5)))
        self.assertEqual(len(self.rows()), LIMIT)
        yield self.write(refusal(KEPT + DAY - 1.0, "new@b.com"))
        self.assertEqual(len(self.rows()), LIMIT)
        self.assertNotIn("old@b.com", [row[1] for row in self.rows()])
