"""The scheduler over a real database: from acceptance to the last disposition, faults and restarts included."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater

from smtpplus import events as facts
from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import Recipient, queue_id
from smtpplus.queue.rules import Rule, Rules
from smtpplus.queue.standing import Crowded, Slots
from tests.queue.fixtures import LATER, NEVER, OK, envelope
from tests.queue.house import CONTENT, QueueCase

FAULT = "CREATE TRIGGER fault BEFORE UPDATE ON recipients BEGIN SELECT RAISE(ABORT, 'a fault'); END"


class SchedulerTests(QueueCase):
    """From acceptance to the last disposition."""

    @inlineCallbacks
    def test_delivered_and_gone(self) -> Any:
        """C2: an accepted message is attempted, recorded first, and leaves nothing once it is delivered."""
        yield self.accept(envelope(7, at=self.wall))
        yield self.begun(1)
        self.assertEqual(self.rows("SELECT attempts, due FROM recipients"), [(1, self.wall + 60)])
        self.agent.transfers[0].end(OK)
        yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])
        self.assertEqual(self.rows("SELECT count(*) FROM recipients"), [(0,)])
        (delivered,) = self.stated(facts.Delivered)
        self.assertEqual((delivered.recipient, delivered.attempt), ("b@example.net", 1))

    @inlineCallbacks
    def test_one_attempt_per_destination(self) -> Any:
        """C3: recipients of one destination go in one attempt, others in their own."""
        yield self.accept(envelope(1, 3, "app", "a@x.net", "b@y.net", "c@x.net", at=self.wall))
        yield self.begun(2)
        shares = sorted(tuple(r.address for r in transfer.request.recipients) for transfer in self.agent.transfers)
        self.assertEqual(shares, [("a@x.net", "c@x.net"), ("b@y.net",)])

    @inlineCallbacks
    def test_partial_outcome(self) -> Any:
        """C4: of three recipients one is done, one bounces, one is tried again; only the last stays."""
        yield self.accept(envelope(1, 3, "app", "a@x.net", "b@x.net", "c@x.net", at=self.wall))
        yield self.begun(1)
        self.agent.transfers[0].end(OK, NEVER, LATER)
        yield self.until(lambda: self.stated(facts.Bounced))
        self.assertEqual(self.rows("SELECT number, address, reply FROM recipients WHERE message_id = 1"), [(2, "c@x.net", str(LATER))])
        yield self.begun(2)
        notification = self.agent.transfers[1].request
        self.assertEqual((notification.envelope.sender, notification.envelope.level), ("", 2))
        self.assertEqual([r.address for r in notification.recipients], ["a@example.com"])

    @inlineCallbacks
    def test_success_is_told_by_one_side_alone(self) -> Any:
        """RFC 3461 §5.2.1: who wants to hear of success hears it from us, unless the peer has taken that over."""
        for number, passed_on in ((1, True), (2, False)):
            asked = msgspec.structs.replace(envelope(number, at=self.wall), recipients=(Recipient("b@example.net", "SUCCESS"),))
            yield self.accept(asked)
            yield self.begun(number)
            transfer = self.agent.transfers[number - 1]
            transfer.done([Disposition(asked.recipients[0], OK, "mx[192.0.2.1]:25", "delivered", passed_on)])
        yield self.until(lambda: self.stated(facts.Bounced))
        self.assertEqual([(told.id, told.kind) for told in self.stated(facts.Bounced)], [(queue_id(2), "delivered")])

    @inlineCallbacks
    def test_retried_by_the_schedule(self) -> Any:
        """C4: a deferred message is attempted again when its time has come, not before."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        self.agent.transfers[0].end(LATER)
        (deferred,) = self.stated(facts.Deferred)
        self.assertEqual(deferred.next_attempt, self.wall + 60)
        yield self.until(lambda: self.queue.scheduler.waiting()[1] == 1)
        self.wall += 59
        self.clock.advance(1)
        self.assertEqual(len(self.agent.transfers), 1)
        self.wall += 1
        self.clock.advance(1)
        yield self.begun(2)
        self.assertEqual(self.agent.transfers[1].request.attempt, 2)

    @inlineCallbacks
    def test_expiry_bounces(self) -> Any:
        """C4: a message that is still deferred at the end of its lifetime bounces with what was said last."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        self.wall += 5 * 86400
        self.agent.transfers[0].end(LATER)
        yield self.until(lambda: self.stated(facts.Bounced))
        (failed,) = self.stated(facts.Failed)
        self.assertEqual(failed.reason, "expired")
        self.assertIn("greylisted", failed.reply)

    @inlineCallbacks
    def test_expiry_behind_a_failed_login_keeps_its_words(self) -> Any:
        """What a smarthost says of our login is stated for who runs this server; the bounce has its code and status."""
        login = reasons.PEER_LOGIN_FAILED
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        self.wall += 5 * 86400
        self.agent.transfers[0].end(login.reply(peer="mx", cause="535 5.7.8 Hunter2"), reason=login.code)
        yield self.begun(2)
        (failed,) = self.stated(facts.Failed)
        self.assertIn("Hunter2", failed.reply)
        told: list[bytes | None] = []
        self.agent.transfers[1].request.content.read(0, told.append)
        (bounce,) = told
        assert bounce is not None
        self.assertIn(b"454 4.7.0; send it", b" ".join(bounce.split()))
        self.assertNotIn(b"Hunter2", bounce)

    @inlineCallbacks
    def test_a_delay_is_told_once(self) -> Any:
        """C4: after warn_after the sender is told once that the message waits."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        self.wall += 4 * 3600
        self.agent.transfers[0].end(LATER)
        yield self.until(lambda: self.stated(facts.Bounced))
        self.assertEqual([event.kind for event in self.stated(facts.Bounced)], ["delayed"])
        self.assertEqual(self.rows("SELECT warned FROM recipients WHERE message_id = 1"), [(1,)])

    @inlineCallbacks
    def test_never_a_bounce_of_a_bounce(self) -> Any:
        """C4: a failed message with the null reverse-path is dropped, said so, and nobody is written to."""
        yield self.accept(envelope(1, sender="", at=self.wall))
        yield self.begun(1)
        self.agent.transfers[0].end(NEVER)
        yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])
        self.assertEqual([event.reason for event in self.stated(facts.Dropped)], [""])
        self.assertEqual(self.stated(facts.Bounced), [])

    @inlineCallbacks
    def test_urgent_mail_stops_bulk_and_lets_it_go(self) -> Any:
        """A27: bulk that runs is stopped from the moment urgent mail is ready until it is sent; bulk that waits starts after it."""
        for number in range(1, 30):
            yield self.accept(envelope(number, at=self.wall))
        yield self.begun(20)
        yield self.accept(envelope(100, 1, at=self.wall))
        yield self.begun(21)
        bulk, urgent = self.agent.transfers[:20], self.agent.transfers[20]
        self.assertEqual(urgent.request.envelope.id, 100)
        self.assertEqual([held.stopped for held in bulk], [True] * 20)
        bulk[0].end(OK)
        self.clock.advance(0)
        yield deferLater(reactor, 0.05, lambda: None)
        self.assertEqual(len(self.agent.transfers), 21)
        urgent.end(OK)
        self.assertEqual([held.stopped for held in bulk[1:]], [False] * 19)
        yield self.begun(22)
        self.assertEqual(self.agent.transfers[21].request.envelope.id, 21)

    @inlineCallbacks
    def test_a_deferred_urgent_message_stops_nobody(self) -> Any:
        """A27: urgent mail that waits for its retry is no reason to hold bulk."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        yield self.accept(envelope(2, 1, "app", "u@urgent.net", at=self.wall))
        yield self.begun(2)
        self.assertTrue(self.agent.transfers[0].stopped)
        held = {transfer.request.envelope.id: transfer for transfer in self.agent.transfers}
        held[2].end(LATER, peer="", reason="connection_refused")
        self.assertFalse(held[1].stopped)
        yield self.accept(envelope(3, 1, "app", "v@urgent.net", at=self.wall))
        self.clock.advance(0)
        self.assertFalse(held[1].stopped)

    @inlineCallbacks
    def test_slow_destinations_do_not_take_every_slot(self) -> Any:
        """C3: when nine of ten slots are taken the others are for destinations that have none, one each, and for urgent mail; once there
        is room again the others go on."""
        for number in range(1, 121):
            last = self.queue.spool.accept(envelope(number, 3, "app", f"b@slow{number % 6}.net", at=self.wall), CONTENT)
        yield last
        yield self.begun(86)
        for number, to in ((200, "b@one.net"), (201, "c@one.net"), (202, "b@two.net")):
            yield self.accept(envelope(number, 3, "other", to, at=self.wall))
        yield self.begun(88)
        yield self.turn()
        yield self.accept(envelope(203, 1, "other", "b@slow1.net", at=self.wall))
        yield self.begun(89)
        self.assertEqual(sorted(self.agent.begun()[86:]), [200, 202, 203])
        for transfer in list(self.agent.transfers):
            transfer.end(OK)
        yield self.begun(124)
        self.assertEqual(len(set(self.agent.begun())), 124)

    @inlineCallbacks
    def test_urgent_mail_at_the_end_stops_nobody(self) -> Any:
        """A27: once the daemon is ending nothing new begins, so nothing is stopped for it: what runs may come to its end."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        self.queue.scheduler.stop(60.0)
        yield self.accept(envelope(2, 1, at=self.wall))
        self.clock.advance(0)
        self.assertFalse(self.agent.transfers[0].stopped)
        self.agent.transfers[0].end(OK)

    @inlineCallbacks
    def test_what_changed_leaves_the_others_their_order(self) -> Any:
        """A25: of twenty attempts that are recorded together one was cancelled by another process: the others begin, in order."""
        for number in range(1, 41):
            last = self.queue.spool.accept(envelope(number, at=self.wall), CONTENT)
        yield last  # and nothing has begun, as the clock stands still
        self.operate(lambda connection: connection.exec_driver_sql("DELETE FROM recipients WHERE message_id = 3") and None)
        yield self.begun(20)
        self.assertEqual(self.agent.begun(), [1, 2, *range(4, 22)])
        self.queue.scheduler.changed({3}, {(3, 0)})

    @inlineCallbacks
    def test_what_cannot_be_recorded_keeps_its_place(self) -> Any:
        """C2, A25, A31: attempts that the database did not take are made in their order, and only if no rule holds them by then."""
        self.operate(lambda connection: connection.exec_driver_sql(FAULT) and None)
        for number in range(1, 41):
            last = self.queue.spool.accept(envelope(number, 3, "held" if number == 2 else "app", at=self.wall), CONTENT)
        yield last
        yield self.until(lambda: self.stated(facts.Fault))
        self.flushLoggedErrors()
        self.operate(lambda connection: connection.exec_driver_sql("DROP TRIGGER fault") and None)
        self.queue.scheduler.obey(Rules([Rule(1, "user", "held")]))
        yield self.turn(6)
        self.flushLoggedErrors()
        self.assertEqual(self.agent.begun(), [1, *range(3, 22)])

    @inlineCallbacks
    def test_a_dead_destination_is_tried_by_one(self) -> Any:
        """C3: a destination that nobody reached is left alone, then tried by one attempt; others are not disturbed."""
        for number in range(1, 4):
            yield self.accept(envelope(number, 3, "app", "b@dead.net", at=self.wall))
        yield self.begun(3)
        for transfer in self.agent.transfers:
            transfer.end(LATER, peer="", reason="connection_refused")
        yield self.accept(envelope(4, 3, "app", "b@dead.net", at=self.wall))
        yield self.accept(envelope(5, 3, "app", "b@dead.net", at=self.wall))
        yield self.accept(envelope(6, 3, "app", "b@live.net", at=self.wall))
        yield self.begun(4)
        self.assertEqual(self.agent.begun()[3:], [6])
        self.clock.advance(60)
        yield self.begun(5)
        self.assertEqual(self.agent.begun()[3:], [6, 4])
        self.agent.transfers[4].end(OK)
        yield self.begun(6)
        self.assertEqual(self.agent.begun()[3:], [6, 4, 5])

    @inlineCallbacks
    def test_it_tells_its_limits_and_who_waits_for_them(self) -> Any:
        """D3: the daemon says how many attempts may be under way, and which destinations have mail beyond what they take at a time."""
        for number in range(1, 25):
            last = self.queue.spool.accept(envelope(number, at=self.wall), CONTENT)
        yield last
        yield self.accept(envelope(25, 3, "app", "b@other.net", at=self.wall))
        yield self.begun(21)
        stands = self.queue.scheduler.standing()
        self.assertEqual(stands.slots, Slots(100, 4, 10, (1, 2)))
        self.assertEqual(stands.crowded, (Crowded("example.net", 20, 20, 20, 4, 4),))

    @inlineCallbacks
    def test_a_destination_without_mail_is_forgotten(self) -> Any:
        """One that did not answer, and has no mail left when it is tried again, does not stay in memory."""
        yield self.accept(envelope(1, 3, "app", "b@dead.net", sender="", at=self.wall - 5 * 86_400))
        yield self.begun(1)
        self.agent.transfers[0].end(LATER, peer="", reason="connection_refused")
        yield self.turn(1)
        self.assertEqual(self.rows("SELECT count(*) FROM messages"), [(0,)])
        self.assertEqual(self.queue.scheduler.standing().destinations_backing_off, 1)
        yield self.turn(60)
        self.assertEqual(self.queue.scheduler.standing().destinations_backing_off, 0)
        self.assertEqual(self.queue.scheduler._ready.spread(), 0)

    @inlineCallbacks
    def test_deferred_mail_keeps_nothing_in_memory(self) -> Any:
        """The content of a message that is tried later leaves the cache to others, whether it goes to one destination or to more."""
        free = self.queue.spool._cache
        yield self.accept(envelope(1, 3, "app", "b@x.net", at=self.wall))
        yield self.accept(envelope(2, 3, "app", "b@x.net", "b@y.net", at=self.wall))
        yield self.begun(3)
        self.assertEqual(self.queue.spool._cache, free - 2 * len(CONTENT))
        for transfer in self.agent.transfers:
            transfer.end(LATER)
        yield self.until(lambda: self.queue.spool._cache == free)

    @inlineCallbacks
    def test_a_restart_with_the_clock_set_back_finds_everything(self) -> Any:
        """A30, C2: mail whose ids are ahead of the clock at the start is found, and goes, and new mail gets no id of it."""
        yield self.accept(envelope(5_000_000 << 32, at=self.wall))
        yield self.close()
        self.wall -= 600.0
        self.open()
        yield self.queue.start()
        self.assertGreater(self.queue.new_id(), 5_000_000 << 32)
        self.wall += 60.0
        yield self.turn()
        yield self.begun(1)

    @inlineCallbacks
    def test_a_restart_finds_everything(self) -> Any:
        """C2: after a crash what waited is lined up, what was under way is tried again at once, and nothing is lost or doubled."""
        for number in range(1, 4):
            yield self.accept(envelope(number, 3, "app", "a@x.net", "b@y.net", at=self.wall))
        yield self.begun(6)
        self.agent.transfers[0].end(OK)
        yield self.until(lambda: self.rows("SELECT count(*) FROM recipients") == [(5,)])
        yield self.database.stop()  # as after a kill: the scheduler of before is never heard of again
        self.open()
        count = yield self.queue.start()
        self.assertEqual(count, 5)
        yield self.accept(envelope(self.queue.new_id(), at=self.wall))
        yield self.begun(6)
        sent = [(t.request.envelope.id, r.address) for t in self.agent.transfers for r in t.request.recipients]
        self.assertEqual(sorted(sent)[:5], [(1, "b@y.net"), (2, "a@x.net"), (2, "b@y.net"), (3, "a@x.net"), (3, "b@y.net")])

    @inlineCallbacks
    def test_stopping_lets_running_attempts_finish(self) -> Any:
        """C11: stop waits for what runs, begins nothing, and gives up after the grace period; what was given up is due at once."""
        for number in (1, 2):
            yield self.accept(envelope(number, 3, "app", f"b@{number}.net", at=self.wall))
        yield self.begun(2)
        stopped: Deferred[None] = self.queue.stop(30)
        yield self.accept(envelope(3, at=self.wall))
        self.agent.transfers[0].end(OK)
        self.assertNoResult(stopped)
        self.clock.advance(30)
        yield stopped
        yield self.until(lambda: self.rows("SELECT message_id, due FROM recipients") == [(2, self.wall), (3, 0.0)])
        self.assertEqual(len(self.agent.transfers), 2)

    @inlineCallbacks
    def test_a_long_queue_is_mostly_outside_memory(self) -> Any:
        """D1, A25: of a thousand messages for one destination a window is loaded; all go once, in order, urgent ones in front."""
        for number in range(1, 1001):
            last = self.queue.spool.accept(envelope(number, at=self.wall), CONTENT)
        yield last
        yield self.begun(20)
        self.assertEqual(self.queue.scheduler.waiting()[0], 980)
        yield self.accept(envelope(5000, 2, at=self.wall))
        ended = 0
        while ended < 1001:
            yield self.begun(ended + 1)
            for transfer in self.agent.transfers[ended:]:
                transfer.end(OK)
                ended += 1
        begun = self.agent.begun()
        self.assertEqual(begun[20], 5000)
        self.assertEqual(sorted(begun), [*range(1, 1001), 5000])
        self.assertEqual([number for number in begun if number != 5000], list(range(1, 1001)))
        yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])

    @inlineCallbacks
    def test_a_restart_loads_urgent_mail_first(self) -> Any:
        """A26: of a long queue found at start what is urgent goes first, wherever it lies."""
        yield self.queue.stop(0)
        for number in range(1, 300):
            last = self.queue.spool.accept(envelope(number, at=self.wall), CONTENT)
        yield last
        yield self.accept(envelope(1000, 1, at=self.wall))
        yield self.database.stop()
        self.open()
        yield self.queue.start()
        yield self.begun(1)
        self.assertEqual(self.agent.begun()[0], 1000)

    @inlineCallbacks
    def test_a_destination_of_a_message_is_sent_once(self) -> Any:
        """C2: of a message with two destinations one is parked, the other deferred and read again: neither is doubled or lost."""
        for number in range(1, 260):
            last = self.queue.spool.accept(envelope(number, 3, "app", "b@busy.net", at=self.wall), CONTENT)
        yield last
        yield self.accept(envelope(1000, 3, "app", "x@busy.net", "y@quick.net", at=self.wall))
        yield self.until(lambda: 1000 in self.agent.begun())
        (quick,) = [transfer for transfer in self.agent.transfers if transfer.request.destination == "quick.net"]
        quick.end(LATER)
        yield self.until(lambda: self.queue.scheduler.waiting()[1] == 1)
        self.wall += 61
        self.clock.advance(1)
        yield self.until(lambda: self.agent.begun().count(1000) == 2)

        def empty() -> bool:
            """All that runs is delivered, until nothing is left"""
            for transfer in self.agent.transfers:
                if not transfer.ended:
                    transfer.end(OK)
            return self.rows("SELECT count(*) FROM messages") == [(0,)]

        yield self.until(empty)
        sent = [(t.request.envelope.id, r.address) for t in self.agent.transfers for r in t.request.recipients]
        self.assertEqual(sent.count((1000, "x@busy.net")), 1)
        self.assertEqual(sent.count((1000, "y@quick.net")), 2)
        self.assertEqual(len(sent), 259 + 3)
