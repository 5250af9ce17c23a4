"""First in, first out for one user and destination (A25): over a restart, a hold, and what operators change."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock

from smtpplus.config import Configuration, Delivery
from smtpplus.events import Events
from smtpplus.queue import actions
from smtpplus.queue.assembly import Queue, assemble
from smtpplus.queue.rules import Rule, Rules
from smtpplus.queue.selection import QueueView, Selection
from tests.queue.fixtures import OK, HoldingAgent, envelope
from tests.queue.house import CONTENT, QueueCase
from tests.queue.inline import InlineDatabase

ALL = Rule(1, "everything", "")


class OrderTests(QueueCase):
    """Two transfers at once to each destination; a window holds 200."""

    delivery = Delivery(connections=4, per_destination=2, initial_per_destination=2, reserved_for_preempting=0)
    configuration = Configuration(hostname="relay.example.com", delivery=delivery)

    @inlineCallbacks
    def store(self, numbers: Any, level: int = 3, user: str = "app") -> Any:
        for number in numbers:
            last = self.queue.spool.accept(envelope(number, level, user, at=self.wall), CONTENT)
        yield last

    @inlineCallbacks
    def send(self, count: int) -> Any:
        """End whatever runs until `count` attempts have begun and ended."""
        for index in range(count):
            yield self.begun(index + 1)
            self.agent.transfers[index].end(OK)

    def obey(self, *rules: Rule) -> None:
        self.queue.scheduler.obey(Rules(rules, self.wall))

    @inlineCallbacks
    def restarted(self, level: int) -> Any:
        """600 messages are found by a daemon that accepts the next two before it has looked."""
        self.obey(ALL)
        yield self.store(range(1, 601), level)
        yield self.close()
        self.open()
        late = self.store((10_000, 10_001), level)  # before it is started, as clients may be that quick
        started = self.queue.start()
        stranger = self.store((10_002,), level, "other")
        yield self.until(lambda: late.called and stranger.called)
        self.wall += 0.5
        yield self.until(lambda: started.called)
        yield self.send(603)
        begun = self.agent.begun()
        begun.remove(10_002)
        self.assertEqual(begun, [*range(1, 601), 10_000, 10_001])

    def test_new_mail_goes_behind_what_a_restart_finds(self) -> Any:
        """A new message does not overtake the older ones of its user that the daemon has yet to find."""
        return self.restarted(3)

    def test_new_urgent_mail_goes_behind_what_a_restart_finds(self) -> Any:
        """The same with mail that would start with its 250."""
        return self.restarted(1)

    @inlineCallbacks
    def released(self, level: int) -> Any:
        """What a list's rule held one by one is sent in order, and what comes with its end is sent behind it."""
        self.obey(Rule(1, "list", "default"))
        yield self.store(range(1, 501), level)
        self.assertEqual(self.queue.scheduler.waiting(), (500, 0, 0))
        self.obey()
        yield self.store((501,), level)
        yield self.send(501)
        self.assertEqual(self.agent.begun(), list(range(1, 502)))

    def test_new_mail_goes_behind_what_a_rule_held(self) -> Any:
        """A31: mail that a rule held message by message keeps its order, and its place before what comes later."""
        return self.released(3)

    def test_new_urgent_mail_goes_behind_what_a_rule_held(self) -> Any:
        """The same with mail that would start with its 250."""
        return self.released(1)

    @inlineCallbacks
    def test_retrying_everything_changes_no_order(self) -> Any:
        """However often all that waits is retried, nothing waits twice and everything is sent once, in its order."""
        yield self.store(range(1, 401))
        yield self.begun(2)
        for _ in range(3):

            def move(connection: Any) -> list[Any]:
                some = list(QueueView(connection, Rules(), lambda domain: domain, self.wall).select(Selection()))
                actions.move(connection, some, 0.0, who="me", reason="test", now=self.wall)
                return some

            some = self.operate(move)
            self.queue.scheduler.changed({each.id for each in some}, ())
            self.queue.scheduler.retry({each.address for each in some})
            yield self.until(lambda: self.queue.scheduler.waiting() == (398, 0, 2))
        yield self.send(400)
        yield self.turn(1)
        self.assertEqual(self.agent.begun(), list(range(1, 401)))
        self.assertEqual((self.queue.scheduler.waiting(), self.rows("SELECT count(*) FROM messages")), ((0, 0, 0), [(0,)]))

    @inlineCallbacks
    def test_what_is_held_is_counted_once(self) -> Any:
        """Changing what a rule holds message by message does not let it be held twice."""
        self.obey(Rule(1, "list", "default"))
        yield self.store(range(1, 4))
        self.queue.scheduler.changed({1, 2, 3}, ())
        yield self.turn(1)
        self.assertEqual(self.queue.scheduler.waiting(), (3, 0, 0))


def test_who_has_nothing_queued_does_not_wait_for_a_start() -> None:
    """Mail of a user of whom nothing is queued starts while that of others is still being found; theirs, once it is found."""
    database, agent, clock = InlineDatabase(), HoldingAgent(), Clock()

    def assembled() -> Queue:
        return assemble(
            configuration=Configuration(hostname="relay.example.com"),
            database=database,  # type: ignore[arg-type]  # it does what the queue asks for
            agent=agent,
            destination=lambda domain: domain,
            clock=clock,
            now=lambda: 1_000_000.0,
            process=1,
            events=Events(),
        )

    before, after = assembled(), assembled()
    before.scheduler.obey(Rules([ALL], 0.0))
    for number in range(1, 1201):
        before.spool.accept(envelope(number, 3, "app", "b@old.net"), CONTENT)
    database.commit()
    found = after.scheduler.start()
    own, others = 1 << 52, (1 << 52) + 1
    after.spool.accept(envelope(own, 3, "app", "b@new.net"), CONTENT)
    after.spool.accept(envelope(others, 3, "other", "b@new.net"), CONTENT)

    def until_begun(number: int) -> None:
        for _ in range(50):
            if number in agent.begun():
                return
            database.commit()
            clock.advance(0)
        raise AssertionError(f"{number} never begins: {agent.begun()}")

    until_begun(others)
    assert (found.called, own in agent.begun()) == (False, False)
    until_begun(own)
    assert found.called
    database.close()
