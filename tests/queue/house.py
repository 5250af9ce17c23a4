"""A queue as the daemon assembles it, over a real database, with a holding agent at its end and clocks that the test sets."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from smtpplus import events as facts
from smtpplus.config import Configuration, Delivery
from smtpplus.mail.envelope import Envelope
from smtpplus.queue.assembly import Allowances, Queue, assemble
from smtpplus.storage.database import Database
from smtpplus.storage.engine import create_engine, migrate
from tests.queue.fixtures import HoldingAgent
from tests.turns import PATIENCE

CONTENT = b"Subject: test\r\n\r\nbody".ljust(98, b".") + b"\r\n"  # of the size that `envelope` says
T = TypeVar("T")


class QueueCase(TestCase):
    """`wall` is the clock on the wall, `clock` the reactor's. Mail for *.smart.net shares a smarthost.

    A destination has 20 slots, and 4 that are reserved.
    """

    configuration = Configuration(hostname="relay.example.com", delivery=Delivery(per_destination=24, initial_per_destination=20))
    allowances: Callable[[sqlalchemy.Connection], Allowances] | None = None  # without: as the configuration says

    def setUp(self) -> Any:
        self.path = Path(self.mktemp()) / "smtpplus.sqlite"
        migrate(f"sqlite:///{self.path}")
        self.wall = 1_000_000.0
        self.open()
        return self.queue.start()

    def open(self) -> None:
        self.database = Database(f"sqlite:///{self.path}", reactor)
        self.database.start()
        self.clock = Clock()
        self.agent = HoldingAgent()
        self.events: list[facts.Event] = []
        bus = facts.Events()
        bus.subscribe(self.events.append)
        self.queue: Queue = assemble(
            configuration=self.configuration,
            database=self.database,
            agent=self.agent,
            destination=lambda domain: "smtp://smart:25" if domain.endswith(".smart.net") else domain,
            clock=self.clock,
            now=lambda: self.wall,
            process=1,
            events=bus,
            allowances=self.allowances,
        )

    @inlineCallbacks
    def close(self) -> Any:
        yield self.queue.stop(0)
        yield self.database.stop()

    def tearDown(self) -> Any:
        return self.wind_up()

    @inlineCallbacks
    def wind_up(self) -> Any:
        stopped: list[object] = []
        self.queue.stop(1).addCallback(stopped.append)
        deadline = time.monotonic() + PATIENCE
        while not stopped and time.monotonic() < deadline:
            self.clock.advance(1)
            yield deferLater(reactor, 0.002, lambda: None)
        yield self.database.stop()
        self.assertTrue(stopped, "the queue does not stop")

    def rows(self, query: str) -> list[Any]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    @inlineCallbacks
    def accept(self, accepted: Envelope) -> Any:
        yield self.queue.spool.accept(accepted, CONTENT)

    @inlineCallbacks
    def until(self, condition: Any) -> Any:
        """Let the reactor and the writer's thread turn until `condition` holds; bounded."""
        deadline = time.monotonic() + PATIENCE
        self.clock.advance(0)
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"never happened: {condition.__doc__ or condition}; {self.events}")
            yield deferLater(reactor, 0.002, lambda: None)
            self.clock.advance(0)

    @inlineCallbacks
    def begun(self, count: int) -> Any:
        yield self.until(lambda: len(self.agent.transfers) >= count)

    def stated(self, kind: type[facts.Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    def operate(self, work: Callable[[sqlalchemy.Connection], T]) -> T:
        """What another process does to the database."""
        engine = create_engine(f"sqlite:///{self.path}")
        try:
            with engine.begin() as connection:
                return work(connection)
        finally:
            engine.dispose()

    @inlineCallbacks
    def turn(self, seconds: float = 1.0) -> Any:
        """Let time pass, on both clocks, and what follows from it happen."""
        for _ in range(int(seconds * 4)):
            self.wall += 0.25
            self.clock.advance(0.25)
            for _ in range(4):
                # What was handed in before is committed, and what was asked for before is read, however busy the machine is.
                yield self.database.write(lambda connection: None)
                yield self.database.read(lambda connection: None)
                yield deferLater(reactor, 0.001, lambda: None)
                self.clock.advance(0)
