"""Schedules over a running queue: not before their time, within a second of it, whatever the clock on the wall does."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import inlineCallbacks

from smtpplus import events as facts
from smtpplus.mail.envelope import queue_id
from smtpplus.queue import actions
from smtpplus.queue.rules import Rule, Rules
from smtpplus.queue.selection import QueueView, Selection
from tests.queue.fixtures import LATER, OK, envelope
from tests.queue.house import CONTENT, QueueCase


class ScheduleTests(QueueCase):
    """Messages with a time of release."""

    @inlineCallbacks
    def schedule(self, number: int, after: float, level: int = 3) -> Any:
        yield self.accept(msgspec.structs.replace(envelope(number, level, at=self.wall), release_at=self.wall + after))

    @inlineCallbacks
    def test_held_until_due_within_a_second(self) -> Any:
        """A30: a scheduled message is not begun before its time, and within a second of it."""
        yield self.schedule(1, 10.3)
        yield self.turn(10.25)
        self.assertEqual((self.agent.begun(), self.queue.scheduler.waiting()[1]), ([], 1))
        yield self.turn(1)
        self.assertEqual(self.agent.begun(), [1])

    @inlineCallbacks
    def test_neither_a_schedule_nor_a_hold_gains_a_level(self) -> Any:
        """D1: when it is due, bulk mail that was scheduled or held for hours stands behind normal mail that has just come."""
        for number in range(1, 21):
            yield self.accept(envelope(number, at=self.wall))
        yield self.begun(20)
        hold = Rule(1, "user", "held", created_at=self.wall)
        self.queue.scheduler.obey(Rules([hold], self.wall))
        yield self.schedule(21, 7200, 5)
        yield self.accept(envelope(22, 5, "held", at=self.wall))
        self.wall += 7200
        self.queue.scheduler.obey(Rules([msgspec.structs.replace(hold, lifted_at=self.wall)], self.wall))
        yield self.turn(2)
        yield self.accept(envelope(23, 4, at=self.wall))
        for transfer in list(self.agent.transfers):
            transfer.end(OK)
        yield self.begun(23)
        self.assertEqual(self.agent.begun()[20], 23)

    @inlineCallbacks
    def test_many_at_one_moment(self) -> Any:
        """A30: five thousand messages of one moment are all in line within seconds, without being in memory all at once."""
        for number in range(1, 5001):
            last = self.queue.spool.accept(msgspec.structs.replace(envelope(number, at=self.wall), release_at=self.wall + 600), CONTENT)
        yield last
        yield self.turn(1)
        self.assertEqual(self.queue.scheduler.waiting(), (0, 5000, 0))
        self.wall += 600
        self.clock.advance(0.25)
        yield self.until(lambda: sum(self.queue.scheduler.waiting()) == 5000 and not self.queue.scheduler.waiting()[1])
        self.assertEqual(len(self.agent.transfers), 20)
        self.assertLess(len(self.queue.scheduler._ready), 1000)

    @inlineCallbacks
    def test_the_clock_is_set(self) -> Any:
        """A30: set forward past its time a message goes at once; set back, it waits for its time on the wall."""
        yield self.schedule(1, 1000)
        yield self.schedule(2, 5000)
        self.wall += 2000
        yield self.turn(1)
        self.assertEqual(self.agent.begun(), [1])
        self.wall -= 4000
        yield self.turn(10)
        self.assertEqual(self.agent.begun(), [1])
        self.wall += 7000
        yield self.turn(1)
        self.assertEqual(self.agent.begun(), [1, 2])

    @inlineCallbacks
    def test_mail_without_a_schedule_does_not_mind_the_clock(self) -> Any:
        """A30: a clock that is set back an hour delays nothing that was to go at once, over a restart too."""
        for number in range(1, 30):
            last = self.queue.spool.accept(envelope(number, at=self.wall), CONTENT)
        yield last
        yield self.begun(20)
        self.wall -= 3600
        self.agent.transfers[0].end(OK)
        yield self.begun(21)
        yield self.database.stop()
        self.open()
        yield self.queue.start()
        yield self.begun(20)
        for transfer in list(self.agent.transfers):
            transfer.end(OK)
        yield self.begun(28)
        self.assertEqual(sorted(self.agent.begun()), list(range(2, 30)))

    @inlineCallbacks
    def deferred(self) -> Any:
        """One message that failed, and one that did and was put off by six hours since."""
        for number in (1, 2):
            yield self.accept(envelope(number, 3, "app", f"b@d{number}.net", at=self.wall))
        yield self.begun(2)
        for transfer in self.agent.transfers:
            transfer.end(LATER)
        yield self.turn(1)

        def put_off(connection: Any) -> None:
            view = QueueView(connection, Rules(), lambda domain: domain, self.wall)
            actions.move(connection, list(view.select(Selection(ids=(2,)))), self.wall + 6 * 3600, who="me", reason="test", now=self.wall)

        self.operate(put_off)
        yield self.turn(1)

    def due(self) -> list[float]:
        """In how many seconds each is due."""
        return [due - self.wall for (due,) in self.rows("SELECT due FROM recipients ORDER BY message_id")]

    @inlineCallbacks
    def test_retries_do_not_wait_for_a_clock_that_was_set_back(self) -> Any:
        """C2: after the clock was set back a message that failed waits for the longest step of the schedule, four hours, at most; what was
        put off stays where it is."""
        yield self.deferred()
        self.wall -= 86_400
        self.clock.advance(0.25)
        yield self.until(lambda: self.due()[0] < 86_400)
        self.assertEqual(self.due(), [4 * 3600, 86_400 + 6 * 3600 - 1])
        self.wall += 4 * 3600 - 2
        yield self.turn(1)
        self.assertEqual(self.agent.begun(), [1, 2])
        yield self.turn(2)
        self.assertEqual(self.agent.begun(), [1, 2, 1])

    @inlineCallbacks
    def test_a_start_with_the_clock_set_back_brings_retries_forward(self) -> Any:
        """C2: the same if the clock was set back while the daemon was down."""
        yield self.deferred()
        yield self.close()
        self.wall -= 86_400
        self.open()
        yield self.queue.start()
        yield self.until(lambda: self.due()[0] < 86_400)
        self.assertEqual(self.due(), [4 * 3600, 86_400 + 6 * 3600 - 1])

    @inlineCallbacks
    def test_a_schedule_outlives_a_restart(self) -> Any:
        """A30: after a crash a scheduled message still waits for its time, and one whose time came meanwhile goes."""
        yield self.schedule(1, 100)
        yield self.schedule(2, 1000)
        yield self.database.stop()
        self.wall += 500
        self.open()
        yield self.queue.start()
        yield self.turn(2)
        self.assertEqual(self.agent.begun(), [1])
        self.wall += 500
        yield self.turn(1)
        self.assertEqual(self.agent.begun(), [1, 2])

    @inlineCallbacks
    def test_a_due_message_waits_behind_urgent_ones(self) -> Any:
        """A30: when its time comes a scheduled message takes its place by its level; urgent mail that is ready goes first."""
        yield self.schedule(500, 10, level=4)
        for number in range(1, 31):
            last = self.queue.spool.accept(envelope(number, 3, at=self.wall), CONTENT)
        yield last
        yield self.begun(20)
        yield self.turn(11)
        for count in range(20, 31):
            self.agent.transfers[count - 20].end(OK)
            yield self.begun(count + 1)
        self.assertEqual(self.agent.begun()[20:], [*range(21, 31), 500])

    @inlineCallbacks
    def test_the_lifetime_begins_with_the_release(self) -> Any:
        """A30, C4: a message held longer than the lifetime is still retried after its first attempt."""
        yield self.schedule(1, 30 * 86400)
        yield self.database.stop()
        self.wall += 30 * 86400
        self.open()
        yield self.queue.start()
        yield self.begun(1)
        self.agent.transfers[0].end(LATER)
        self.assertEqual([event.id for event in self.stated(facts.Deferred)], [queue_id(1)])

    @inlineCallbacks
    def test_what_was_due_when_it_was_parked_is_not_forgotten(self) -> Any:
        """A30: a due message that a rule keeps outside memory is not due any more when the clock is set back: it goes when it is again."""
        scheduled = msgspec.structs.replace(envelope(1, at=self.wall), release_at=self.wall + 10)
        self.queue.scheduler.obey(Rules([Rule(1, "user", "app")]))
        yield self.accept(scheduled)
        yield self.turn(11)
        self.assertEqual(self.queue.scheduler.waiting(), (1, 0, 0))
        self.wall -= 60
        self.queue.scheduler.obey(Rules())
        yield self.turn()
        self.assertEqual(self.queue.scheduler.waiting(), (0, 1, 0))
        self.wall += 60
        yield self.turn()
        self.assertEqual(self.agent.begun(), [1])
