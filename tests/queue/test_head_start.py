"""Urgent mail that starts with its 250: what is recorded, what stops for it, and who waits a turn all the same."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

from smtpplus import events as facts
from smtpplus.mail.envelope import CHUNK, Envelope
from smtpplus.queue import rows, rulebook
from smtpplus.queue.head_start import PATIENCE
from smtpplus.queue.rules import Rule, Rules
from tests.queue.fixtures import LATER, OK, envelope
from tests.queue.house import CONTENT, QueueCase

ATTEMPTS = "SELECT message_id, attempts, due FROM recipients ORDER BY message_id, number"


class HeadStartTests(QueueCase):
    """Nothing here lets the scheduler take its turn before it looks: what is seen was done by the acceptance itself."""

    def hold_the_writer(self) -> threading.Event:
        """Until the event is set, nothing is committed."""
        released = threading.Event()
        self.addCleanup(released.set)
        self.database.write(lambda connection: released.wait(30.0))
        return released

    @inlineCallbacks
    def test_the_attempt_is_recorded_with_the_message(self) -> Any:
        """A27: after its 250 an urgent message starts without another commit, once, and is over like any other."""
        yield self.accept(envelope(1, 1, at=self.wall))
        self.assertEqual(self.rows(ATTEMPTS), [(1, 1, self.wall + 60)])
        self.assertEqual(self.agent.begun(), [])
        self.clock.advance(0)
        self.assertEqual(self.agent.begun(), [1])
        self.agent.transfers[0].end(OK)
        yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])
        self.assertEqual(self.queue.scheduler.waiting(), (0, 0, 0))
        self.assertEqual([(event.id, event.attempt) for event in self.stated(facts.Started)], [(self.stated(facts.Delivered)[0].id, 1)])

    @inlineCallbacks
    def test_a_long_message_has_it_too(self) -> Any:
        """A27: so does one whose content came in chunks."""
        intake = self.queue.spool.begin(1)
        intake.write(b"x" * CHUNK)
        intake.write(b"y")
        yield intake.commit(msgspec.structs.replace(envelope(1, 2, at=self.wall), size=CHUNK + 1))
        self.assertEqual(self.rows(ATTEMPTS), [(1, 1, self.wall + 60)])
        self.clock.advance(0)
        self.assertEqual(self.agent.begun(), [1])

    @inlineCallbacks
    def test_a_deferral_waits_by_the_schedule(self) -> Any:
        """C4: its second attempt comes when that of any message would, as the second."""
        yield self.accept(envelope(1, 1, at=self.wall))
        self.clock.advance(0)
        self.agent.transfers[0].end(LATER)
        yield self.until(lambda: self.queue.scheduler.waiting() == (0, 1, 0))
        self.assertEqual(self.rows(ATTEMPTS), [(1, 1, self.wall + 60)])
        self.wall += 60
        self.clock.advance(1)
        yield self.begun(2)
        self.assertEqual(self.agent.transfers[1].request.attempt, 2)

    @inlineCallbacks
    def test_bulk_stops_while_the_commit_is_under_way(self) -> Any:
        """A27: what runs is stopped before urgent mail is durable; urgent mail itself starts when it is, and not before."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        released = self.hold_the_writer()
        accepted = self.queue.spool.accept(envelope(2, 1, at=self.wall), CONTENT)
        self.clock.advance(0)
        self.assertTrue(self.agent.transfers[0].stopped)
        self.assertEqual(self.agent.begun(), [1])
        self.assertEqual(self.agent.prepared, [("example.net", 1)])  # the next hop's connection is seen to meanwhile
        released.set()
        yield accepted
        self.clock.advance(0)
        self.assertEqual(self.agent.begun(), [1, 2])
        self.agent.transfers[1].end(OK)
        self.assertFalse(self.agent.transfers[0].stopped)

    @inlineCallbacks
    def test_a_slow_commit_does_not_stop_the_house(self) -> Any:
        """A27: for a disk that hangs others are stopped a second; when the commit is over they are stopped as for any urgent message."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        released = self.hold_the_writer()
        accepted = self.queue.spool.accept(envelope(2, 1, at=self.wall), CONTENT)
        self.assertTrue(self.agent.transfers[0].stopped)
        self.clock.advance(PATIENCE)
        self.assertFalse(self.agent.transfers[0].stopped)
        released.set()
        yield accepted
        self.assertTrue(self.agent.transfers[0].stopped)
        self.clock.advance(0)
        self.agent.transfers[1].end(OK)
        self.assertEqual((self.agent.begun(), self.agent.transfers[0].stopped), ([1, 2], False))

    @inlineCallbacks
    def test_what_comes_during_the_commit_is_obeyed(self) -> Any:
        """A31: a rule that comes into force, or a cancellation, between the acceptance and the start holds the message after all; lifted,
        the message goes by its first attempt."""
        for number, rule in ((1, Rule(1, "user", "app")), (2, Rule(2, "list", "default")), (3, Rule(3, "everything", ""))):
            yield self.accept(envelope(number, 1, at=self.wall))
            self.queue.scheduler.obey(Rules([rule]))
            self.clock.advance(0)
            yield self.turn()
            self.assertEqual((self.agent.begun(), self.queue.scheduler.waiting()), (list(range(1, number)), (1, 0, 0)))
            self.queue.scheduler.obey(Rules())
            yield self.begun(number)
            self.agent.transfers[-1].end(OK)
            self.assertEqual(self.agent.transfers[-1].request.attempt, 1)
        yield self.accept(envelope(4, 1, at=self.wall))
        self.operate(lambda connection: connection.exec_driver_sql("DELETE FROM recipients WHERE message_id = 4") and None)
        self.queue.scheduler.changed({4}, {(4, 0)})
        yield self.turn()
        self.assertEqual((len(self.agent.transfers), self.queue.scheduler.waiting()), (3, (0, 0, 0)))

    @inlineCallbacks
    def test_a_failed_commit_gives_the_slot_back(self) -> Any:
        """C2: what could not be committed is not sent, holds no slot, and stops nobody any more; nor does what takes its place."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        yield self.database.run([rows.insertion(envelope(2), 1, b"x")])  # so the id is taken
        refused = self.queue.spool.accept(envelope(2, 1, at=self.wall), CONTENT)
        self.assertTrue(self.agent.transfers[0].stopped)
        yield self.assertFailure(refused, IntegrityError)
        self.flushLoggedErrors()
        self.assertFalse(self.agent.transfers[0].stopped)
        self.assertEqual(self.queue.scheduler.waiting(), (0, 0, 1))
        self.agent.transfers[0].end(OK)
        yield self.accept(envelope(3, 1, at=self.wall))
        self.clock.advance(0)
        self.assertEqual(self.agent.begun(), [1, 3])

    @inlineCallbacks
    def test_after_a_crash_it_goes_at_once(self) -> Any:
        """A27: an attempt that a crash ended is made again at the start, not after its retry time; the one after that waits, as
        whatever brings the process down would do so again at once. What the next hop has answered waits as it would have."""
        for number in (1, 2):
            yield self.accept(envelope(number, 1, at=self.wall))
        self.clock.advance(0)
        self.agent.transfers[1].end(LATER)
        yield self.until(lambda: self.queue.scheduler.waiting() == (0, 1, 1))
        for begun in ([1], []):
            yield self.database.stop()  # and nothing else: so ends a process that is killed
            self.open()
            yield self.queue.start()
            yield self.turn()
            self.assertEqual(self.agent.begun(), begun)

    @inlineCallbacks
    def test_who_waits_a_turn(self) -> Any:
        """A24, A30: no head start for ordinary mail, for several destinations, or for a schedule."""
        waits: list[Envelope] = [
            envelope(1, 3, at=self.wall),
            envelope(2, 1, "app", "a@x.net", "b@y.net", at=self.wall),
            msgspec.structs.replace(envelope(3, 1, at=self.wall), release_at=self.wall + 100),
        ]
        for each in waits:
            yield self.accept(each)
        self.assertEqual([attempts for _, attempts, _ in self.rows(ATTEMPTS)], [0, 0, 0, 0])

    @inlineCallbacks
    def test_a_rule_is_asked(self) -> Any:
        """A31: urgent mail that a rule holds does not start."""

        def hold(connection: Connection) -> None:
            rulebook.add(
                connection,
                "sender-domain",
                "example.com",
                running="finish",
                who="me",
                reason="test",
                now=self.wall,
                lasting=0.0,
                keep_expiry=False,
            )

        self.operate(hold)
        yield self.turn()
        yield self.accept(envelope(1, 1, at=self.wall))
        yield self.turn()
        self.assertEqual((self.rows(ATTEMPTS), self.agent.begun()), ([(1, 0, 0.0)], []))

    @inlineCallbacks
    def test_first_in_first_out(self) -> Any:
        """A25: one that finds others of its level waiting at its destination goes behind them."""
        accepted: list[Deferred[None]] = []
        for number in range(1, 31):  # more than a destination takes at once
            accepted.append(self.queue.spool.accept(envelope(number, 2, at=self.wall), CONTENT))
        yield gatherResults(accepted)
        yield self.begun(24)
        self.assertEqual(self.agent.begun(), list(range(1, 25)))
        self.agent.transfers[3].end(OK)
        yield self.accept(envelope(31, 2, at=self.wall))
        yield self.begun(25)
        self.assertEqual(self.agent.begun()[24:], [25])
        self.assertEqual(self.rows("SELECT attempts FROM recipients WHERE message_id = 31"), [(0,)])

    @inlineCallbacks
    def test_first_in_first_out_while_commits_are_under_way(self) -> Any:
        """A25: one that found no room and is being committed is not passed by one that comes when there is room again."""
        accepted = [self.queue.spool.accept(envelope(number, 1, at=self.wall), CONTENT) for number in range(1, 25)]
        yield gatherResults(accepted)
        yield self.begun(24)
        released = self.hold_the_writer()
        first = self.queue.spool.accept(envelope(30, 1, at=self.wall), CONTENT)
        self.agent.transfers[0].end(OK)
        second = self.queue.spool.accept(envelope(31, 1, at=self.wall), CONTENT)
        released.set()
        yield gatherResults([first, second])
        yield self.begun(25)
        self.agent.transfers[1].end(OK)
        yield self.begun(26)
        self.assertEqual(self.agent.begun()[24:], [30, 31])

    @inlineCallbacks
    def test_a_closed_destination_takes_none(self) -> Any:
        """A27: urgent mail to a destination that does not answer waits for it, and stops nobody."""
        yield self.accept(envelope(1, 3, "app", "b@dead.net", at=self.wall))
        yield self.accept(envelope(2, 3, "app", "b@live.net", at=self.wall))
        yield self.begun(2)
        self.agent.transfers[0].end(LATER, peer="", reason="connection_refused")
        yield self.accept(envelope(3, 1, "app", "b@dead.net", at=self.wall))
        self.assertFalse(self.agent.transfers[1].stopped)
        self.assertEqual(self.rows("SELECT attempts FROM recipients WHERE message_id = 3"), [(0,)])
