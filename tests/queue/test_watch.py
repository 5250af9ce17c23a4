"""Rules over a running queue: what they hold, what they stop, and that lifting them loses and doubles nothing."""

from __future__ import annotations

import collections
from typing import Any

from sqlalchemy import Connection
from twisted.internet.defer import inlineCallbacks

from smtpplus import events as facts
from smtpplus.mail.envelope import queue_id
from smtpplus.queue import rulebook
from smtpplus.queue.rules import Kind, Rule, Running
from tests.queue.fixtures import LATER, OK, envelope
from tests.queue.house import CONTENT, QueueCase


class RuleTests(QueueCase):
    """Rules made and lifted by another process."""

    def hold(self, kind: Kind, value: str = "", *, running: Running = "finish", lasting: float = 0.0, keep_expiry: bool = False) -> Rule:
        def work(connection: Connection) -> Rule:
            return rulebook.add(
                connection,
                kind,
                value,
                running=running,
                reason="test",
                who="me",
                now=self.wall,
                lasting=lasting,
                keep_expiry=keep_expiry,
            )

        return self.operate(work)

    def lift(self, rule: Rule) -> None:
        self.operate(lambda connection: rulebook.lift(connection, [rule.id], who="me", now=self.wall))

    @inlineCallbacks
    def drain(self, count: int) -> Any:
        """Deliver what runs until `count` attempts have ended; the ids in the order of their beginning."""

        def all_ended() -> bool:
            """So many attempts ended"""
            for transfer in self.agent.transfers:
                if not transfer.ended:
                    transfer.end(OK)
            return len(self.agent.transfers) >= count

        yield self.until(all_ended)

    @inlineCallbacks
    def test_each_kind_holds_and_is_lifted(self) -> Any:
        """A31, D7: mail that a rule of any kind selects waits, other mail goes; lifted, it goes within a second, in order, once."""
        values: dict[Kind, str] = {
            "level": "4",
            "destination": "held.net",
            "user": "held",
            "sender-domain": "held.com",
            "list": "held",
            "message": queue_id(101),
        }
        for kind, value in values.items():
            self.agent.transfers.clear()
            rule = self.hold(kind, value)
            yield self.turn()
            held = {
                "level": envelope(101, 4, at=self.wall),
                "destination": envelope(101, 3, "app", "b@held.net", at=self.wall),
                "user": envelope(101, 3, "held", at=self.wall),
                "sender-domain": envelope(101, sender="a@HELD.com", at=self.wall),
                "list": envelope(101, at=self.wall),
                "message": envelope(101, at=self.wall),
            }[kind]
            yield self.accept(held if kind != "list" else _of_list(held, "held"))
            yield self.accept(envelope(102, 5, "other", at=self.wall))
            yield self.drain(1)
            yield self.turn()
            self.assertEqual((kind, self.agent.begun()), (kind, [102]))
            self.lift(rule)
            yield self.turn()
            self.assertEqual((kind, self.agent.begun()), (kind, [102, 101]))
            yield self.drain(2)
            yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])

    @inlineCallbacks
    def test_many_are_held_without_being_read(self) -> Any:
        """D7: a rule on a user, level, or destination holds a thousand messages, leaves the others their way, and keeps the order."""
        for kind, value in (("user", "bulk"), ("level", "4"), ("destination", "bulk.net")):
            self.agent.transfers.clear()
            for number in range(1, 601):
                last = self.queue.spool.accept(envelope(number, 4, "bulk", "b@bulk.net", at=self.wall), CONTENT)
            yield last
            yield self.begun(20)
            rule = self.hold(kind, value)  # type: ignore[arg-type]  # of a tuple of literals mypy makes strings
            yield self.turn()
            for number in range(601, 700):
                last = self.queue.spool.accept(envelope(number, 4, "bulk", "b@bulk.net", at=self.wall), CONTENT)
            yield last
            yield self.accept(envelope(1000, 5, "other", at=self.wall))
            yield self.drain(21)
            yield self.turn()
            self.assertEqual((kind, self.agent.begun()), (kind, [*range(1, 21), 1000]))
            self.lift(rule)
            yield self.turn()
            yield self.drain(700)
            self.assertEqual((kind, self.agent.begun()), (kind, [*range(1, 21), 1000, *range(21, 700)]))
            yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])

    @inlineCallbacks
    def test_everything_stops_and_goes_on(self) -> Any:
        """A31: a rule on everything lets nothing start, urgent mail among it, which then stops nobody; what runs finishes or stops."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        rule = self.hold("everything")
        yield self.turn()
        yield self.accept(envelope(2, 1, at=self.wall))
        yield self.turn()
        self.assertEqual((self.agent.begun(), self.agent.transfers[0].stopped), ([1], False))
        self.lift(rule)
        yield self.turn()
        self.assertEqual((self.agent.begun(), self.agent.transfers[0].stopped), ([1, 2], True))

    @inlineCallbacks
    def test_a_pause_stops_what_runs(self) -> Any:
        """A31: a rule that stops what runs does so like urgent mail, with the rule as cause; lifted, it goes on where it was."""
        yield self.accept(envelope(1, 3, "held", at=self.wall))
        yield self.accept(envelope(2, 3, "other", at=self.wall))
        yield self.begun(2)
        rule = self.hold("user", "held", running="stop")
        yield self.turn()
        self.assertEqual([held.stopped for held in self.agent.transfers], [True, False])
        self.lift(rule)
        yield self.turn()
        self.assertEqual([held.stopped for held in self.agent.transfers], [False, False])
        (paused,), (resumed,) = self.stated(facts.Paused), self.stated(facts.Resumed)
        self.assertEqual((paused.id, paused.cause, resumed.why), (queue_id(1), "rule 1 (test)", "the rule has ended"))

    @inlineCallbacks
    def test_a_pause_is_bounded(self) -> Any:
        """D1: a rule that is not lifted stops a transfer for max_pause, and then it goes on for good."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        self.hold("everything", running="stop")
        yield self.turn(29)
        stopped = [self.agent.transfers[0].stopped]
        yield self.turn(3)
        stopped.append(self.agent.transfers[0].stopped)
        self.assertEqual(stopped, [True, False])

    @inlineCallbacks
    def test_a_rule_expires(self) -> Any:
        """D7: a rule with an expiry ends by itself within a second, with no other change in the database."""
        self.hold("user", "app", lasting=5.0)
        yield self.turn()
        yield self.accept(envelope(1, at=self.wall))
        yield self.turn(3)
        self.assertEqual(self.agent.begun(), [])
        yield self.turn(2)
        yield self.begun(1)

    @inlineCallbacks
    def test_a_rule_that_was_lifted_stays_so(self) -> Any:
        """D7: the clock is set back to before a rule was lifted, and it holds nothing, also when the rules are read again."""
        rule = self.hold("user", "app")
        yield self.turn(5)
        self.lift(rule)
        yield self.turn()
        self.wall -= 4
        self.hold("user", "other")
        yield self.turn()
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)

    @inlineCallbacks
    def test_a_rule_that_expired_is_in_force_again(self) -> Any:
        """D7: the clock is set back to before a rule expires, and the queue holds what the rule selects, as its list says, until then."""
        rule = self.hold("user", "app", lasting=100.0)
        self.wall += 200
        yield self.turn()
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        self.wall -= 150
        yield self.turn()
        yield self.accept(envelope(2, at=self.wall))
        yield self.turn()
        self.assertEqual(self.operate(lambda connection: rulebook.in_force(connection, self.wall)), [rule])
        self.assertEqual(self.agent.begun(), [1])
        self.wall = rule.expires_at
        yield self.turn()
        self.assertEqual(self.agent.begun(), [1, 2])

    @inlineCallbacks
    def test_of_a_message_only_the_recipients_meant_wait(self) -> Any:
        """A31: of recipients that share a smarthost only those of the held domain wait; the others go at once, and each once."""
        rule = self.hold("destination", "a.smart.net")
        yield self.turn()
        yield self.accept(envelope(1, 3, "app", "x@a.smart.net", "y@b.smart.net", "z@c.smart.net", at=self.wall))
        yield self.begun(1)
        self.assertEqual([r.address for r in self.agent.transfers[0].request.recipients], ["y@b.smart.net", "z@c.smart.net"])
        self.lift(rule)  # while the others are under way
        yield self.turn()
        self.agent.transfers[0].end(OK)
        yield self.begun(2)
        self.assertEqual([r.address for r in self.agent.transfers[1].request.recipients], ["x@a.smart.net"])
        self.agent.transfers[1].end(OK)
        yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])

    @inlineCallbacks
    def test_two_rules_are_two_reasons(self) -> Any:
        """A31: mail that two rules hold goes when both have ended."""
        first, second = self.hold("list", "default"), self.hold("user", "app")
        yield self.turn()
        yield self.accept(envelope(1, at=self.wall))
        self.lift(first)
        yield self.turn()
        self.assertEqual(self.agent.begun(), [])
        self.lift(second)
        yield self.turn()
        self.assertEqual(self.agent.begun(), [1])

    @inlineCallbacks
    def test_a_rule_outlives_a_restart(self) -> Any:
        """D7: what is held stays held over a crash; not one message starts before the rules are known."""
        rules = [self.hold("user", "held"), self.hold("sender-domain", "held.com")]
        yield self.turn()
        yield self.accept(envelope(1, 3, "held", at=self.wall))
        yield self.accept(envelope(2, 3, "app", sender="a@held.com", at=self.wall))
        yield self.database.stop()
        self.open()
        yield self.queue.start()
        yield self.accept(envelope(3, 3, "app", at=self.wall))
        yield self.turn()
        self.assertEqual(self.agent.begun(), [3])
        for rule in rules:
            self.lift(rule)
        yield self.turn()
        self.assertEqual(collections.Counter(self.agent.begun()), {1: 1, 2: 1, 3: 1})

    @inlineCallbacks
    def test_time_on_hold_is_added_to_the_lifetime(self) -> Any:
        """D7: a message held for six days of its five is tried again; one whose rule keeps the expiry is given up at its next attempt."""
        outcomes: list[str] = []
        for number, keep in ((1, False), (2, True)):
            rule = self.hold("everything", keep_expiry=keep)
            yield self.turn()
            yield self.accept(envelope(number, at=self.wall))
            self.wall += 6 * 86400
            self.lift(rule)
            yield self.turn()
            yield self.begun(1)
            self.agent.transfers[-1].end(LATER)
            outcomes += [type(event).__name__ for event in self.events if isinstance(event, facts.Deferred | facts.Failed)]
            self.events.clear()
            yield self.turn(61)
            for transfer in self.agent.transfers:
                if not transfer.ended:
                    transfer.end(OK)
            self.agent.transfers.clear()
            yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])
        self.assertEqual(outcomes, ["Deferred", "Failed"])


def _of_list(accepted: Any, name: str) -> Any:
    import msgspec

    return msgspec.structs.replace(accepted, list=name)
