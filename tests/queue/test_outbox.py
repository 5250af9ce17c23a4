"""What another process posts is moved into the queue once, durably, by whoever looks; on a real database, with a clock the test moves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from smtpplus import events as facts
from smtpplus.config import Configuration
from smtpplus.mail.envelope import CHUNK, parse_queue_id
from smtpplus.queue import outbox
from smtpplus.queue.assembly import Queue, assemble
from smtpplus.storage import schema
from smtpplus.storage.database import Database
from smtpplus.storage.engine import create_engine, migrate
from tests.queue.fixtures import OK, HoldingAgent

CONTENT = b"Subject: =?utf-8?q?f=C3=BCr?= you\r\nMessage-ID: <1@example.com>\r\n\r\nbody\r\n"
ENOUGH = 400  # turns of 25 ms that threads may take on a busy machine


class House:
    """The queue of one daemon."""

    def __init__(self, url: str, process: int) -> None:
        self.database = Database(url, reactor)
        self.database.start()
        self.clock = Clock()
        self.agent = HoldingAgent()
        self.events: list[facts.Event] = []
        bus = facts.Events()
        bus.subscribe(self.events.append)
        self.queue: Queue = assemble(
            configuration=Configuration(hostname="relay.example.com"),
            database=self.database,
            agent=self.agent,
            destination=lambda domain: domain,
            clock=self.clock,
            now=time.time,
            process=process,
            events=bus,
        )
        self.running = False

    def start(self) -> Any:
        self.running = True
        self.queue.outbox.start()
        return self.queue.scheduler.start()

    @inlineCallbacks
    def stop(self) -> Any:
        yield self.queue.outbox.stop()
        stopped = self.queue.scheduler.stop(0)
        self.clock.advance(1)
        yield stopped
        yield self.database.stop()


class OutboxTests(TestCase):
    """`self.engine` stands for the other process, `self.one` and `self.two` for daemons on the same database."""

    def setUp(self) -> None:
        url = f"sqlite:///{Path(self.mktemp())}/smtpplus.sqlite"
        migrate(url)
        self.engine = create_engine(url)
        self.one, self.two = House(url, 1), House(url, 2)

    def tearDown(self) -> Any:
        self.engine.dispose()
        return gatherResults([self.one.stop(), self.two.stop()])

    def post(self, content: bytes = CONTENT, *to: str, at: float = 1.0) -> None:
        with self.engine.begin() as connection:
            outbox.post(connection, content, to or ("ann@example.net",), now=at)

    def stored(self, table: Any) -> int:
        with self.engine.connect() as connection:
            return len(connection.execute(table.select()).all())

    @inlineCallbacks
    def until(self, condition: Any, *houses: House) -> Any:
        """Let the clocks go on until `condition` holds; bounded."""
        for _ in range(ENOUGH):
            for house in houses or (self.one,):
                house.clock.advance(outbox.POLL)
            if condition():
                return
            yield deferLater(reactor, 0.025, lambda: None)
        self.fail("it does not happen")

    @inlineCallbacks
    def test_moved_and_sent(self) -> Any:
        """A9: what is posted before or after the start is sent whole, from nobody, at level 2; it is stated, and goes when delivered."""
        self.post()
        yield self.one.start()
        yield self.until(lambda: len(self.one.agent.transfers) == 1)
        self.post(CONTENT, "bob@example.net", "cid@example.org")
        yield self.until(lambda: len(self.one.agent.transfers) == 3)
        requests = [transfer.request for transfer in self.one.agent.transfers]
        self.assertEqual({(each.envelope.sender, each.envelope.user, each.envelope.level) for each in requests}, {("", "", 2)})
        self.assertEqual({each.envelope.received_at for each in requests}, {1.0})
        to = sorted(recipient.address for each in requests for recipient in each.recipients)
        self.assertEqual(to, ["ann@example.net", "bob@example.net", "cid@example.org"])
        read: list[bytes | None] = []
        requests[0].content.read(0, read.append)
        self.assertEqual(read, [CONTENT])
        accepted = [event for event in self.one.events if isinstance(event, facts.Accepted)]
        self.assertEqual([parse_queue_id(event.id) for event in accepted], sorted({each.envelope.id for each in requests}))
        self.assertEqual((accepted[0].subject, accepted[0].message_id, accepted[0].session), ("für you", "<1@example.com>", ""))
        for transfer in self.one.agent.transfers:
            transfer.end(OK)
        yield self.until(lambda: self.stored(schema.messages) == 0)
        self.assertEqual((self.stored(schema.outbox), self.stored(schema.recipients)), (0, 0))

    @inlineCallbacks
    def test_two_daemons_send_once(self) -> Any:
        """C14: however many look, each message is moved by one of them."""
        yield gatherResults([self.one.start(), self.two.start()])
        for number in range(30):
            self.post(CONTENT, f"ann@{number}.example.net")
        yield self.until(lambda: len(self.one.agent.transfers + self.two.agent.transfers) >= 30, self.one, self.two)
        yield self.until(lambda: self.stored(schema.outbox) == 0, self.one, self.two)
        ids = [transfer.request.envelope.id for transfer in self.one.agent.transfers + self.two.agent.transfers]
        self.assertEqual((len(ids), len(set(ids)), self.stored(schema.messages)), (30, 30, 30))

    @inlineCallbacks
    def test_a_fault_of_the_database_delays(self) -> Any:
        """What cannot be moved stays, is said once in the log, and is moved when it can be."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TRIGGER full BEFORE INSERT ON messages BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        self.post()
        yield self.one.start()
        write, failed = self.one.database.write, 0

        def counted(failure: Failure) -> Failure:
            nonlocal failed
            failed += 1
            return failure

        self.patch(self.one.database, "write", lambda work: write(work).addErrback(counted))
        yield self.until(lambda: failed >= 3)
        self.assertEqual((self.stored(schema.outbox), self.stored(schema.messages)), (1, 0))
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        with self.engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER full")
        yield self.until(lambda: len(self.one.agent.transfers) == 1)
        self.assertEqual((self.stored(schema.outbox), self.stored(schema.messages)), (0, 1))

    @inlineCallbacks
    def test_any_content_and_address(self) -> Any:
        """A message of several chunks, one without a header and one to a UTF-8 address are moved whole."""
        large = CONTENT + b"x" * (2 * CHUNK) + b"\r\n"
        for content, to in ((large, "ann@example.net"), (b"no header", "bob@example.net"), (CONTENT, "jörg@example.net")):
            self.post(content, to)
        yield self.one.start()
        yield self.until(lambda: len(self.one.agent.transfers) == 3)
        found = {each.request.recipients[0].address: each.request for each in self.one.agent.transfers}
        self.assertEqual([found[to].envelope.smtputf8 for to in ("ann@example.net", "jörg@example.net")], [False, True])
        pieces: list[bytes | None] = []
        kept = found["ann@example.net"].content
        for index in range(kept.chunks):
            kept.read(index, pieces.append)
        yield self.until(lambda: len(pieces) == kept.chunks)
        self.assertEqual(b"".join(piece or b"" for piece in pieces), large)
