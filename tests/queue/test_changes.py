"""What another process does to queued recipients, over a running queue: cancelled is not sent, put off waits, retried goes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from smtpplus import events as facts
from smtpplus.mail.envelope import queue_id
from smtpplus.queue import actions
from smtpplus.queue.rules import Rules
from smtpplus.queue.selection import QueueView, Selection
from tests.queue.fixtures import LATER, NEVER, OK, envelope
from tests.queue.house import CONTENT, QueueCase


class ChangeTests(QueueCase):
    """Cancelled, moved and retried by another process."""

    def chosen(self, connection: Any, *ids: int, destination: str = "") -> Any:
        view = QueueView(connection, Rules(), lambda domain: domain, self.wall)
        return list(view.select(Selection(ids=ids, destinations=(destination,) if destination else ())))

    def cancel(self, *ids: int, destination: str = "") -> int:
        return self.operate(
            lambda connection: actions.cancel(
                connection, self.chosen(connection, *ids, destination=destination), who="me", reason="test", now=self.wall
            )
        )

    def move(self, due: float, *ids: int) -> int:
        return self.operate(
            lambda connection: actions.move(connection, self.chosen(connection, *ids), due, who="me", reason="test", now=self.wall)
        )

    @inlineCallbacks
    def test_cancelled_mail_is_not_sent(self) -> Any:
        """What waited in memory or outside it when it was cancelled is never attempted; each is stated once with who did it."""
        for number in range(1, 301):
            last = self.queue.spool.accept(envelope(number, at=self.wall), CONTENT)
        yield last
        yield self.begun(20)
        self.assertEqual(self.cancel(*range(21, 300)), 279)
        for _ in range(25):
            for transfer in self.agent.transfers:
                if not transfer.ended:
                    transfer.end(OK)
            yield self.turn(0.25)
        self.assertEqual(self.agent.begun(), [*range(1, 21), 300])
        self.assertEqual([event.id for event in self.stated(facts.Cancelled)], [queue_id(number) for number in range(21, 300)])
        self.assertEqual({event.who for event in self.stated(facts.Cancelled)}, {"me"})
        self.assertEqual(self.rows("SELECT count(*) FROM changes"), [(0,)])

    @inlineCallbacks
    def test_cancelled_before_the_daemon_noticed(self) -> Any:
        """From the commit on nothing cancelled begins, even if the daemon has not looked: its attempt cannot be recorded."""
        for number in range(1, 24):
            last = self.queue.spool.accept(envelope(number, at=self.wall), CONTENT)
        yield last
        yield self.begun(20)
        self.cancel(21, 23)
        for transfer in self.agent.transfers[:20]:
            transfer.end(OK)
        yield self.begun(21)
        self.assertEqual(self.agent.begun()[20:], [22])
        self.assertEqual(self.stated(facts.Cancelled), [])
        yield self.turn()
        self.assertEqual(len(self.stated(facts.Cancelled)), 2)
        self.assertEqual((self.agent.begun()[20:], self.stated(facts.Fault)), ([22], []))

    @inlineCallbacks
    def test_what_runs_is_given_up_before_its_final_dot(self) -> Any:
        """A cancelled message that is under way is abandoned and nobody is told; after its final dot it is delivered and said so."""
        for number in (1, 2, 3):
            yield self.accept(envelope(number, 3, "app", "a@x.net", at=self.wall))
        yield self.begun(3)
        first, second, third = self.agent.transfers
        second.final_dot_sent = third.final_dot_sent = True
        self.cancel(1, 2, 3)
        yield self.turn()
        self.assertEqual([transfer.ended for transfer in self.agent.transfers], [True, False, False])
        second.end(OK)
        third.end(NEVER)
        yield self.turn()
        self.assertEqual([event.id for event in self.stated(facts.Delivered)], [queue_id(2)])
        self.assertEqual(self.stated(facts.Bounced) + self.stated(facts.Deferred), [])
        self.assertEqual(self.rows("SELECT count(*) FROM messages"), [(0,)])
        yield self.accept(envelope(4, 3, "app", "b@x.net", at=self.wall))
        yield self.begun(4)
        self.assertEqual(first.request.envelope.id, 1)

    @inlineCallbacks
    def test_one_of_two_recipients_is_cancelled(self) -> Any:
        """Cancelling some recipients of a message leaves the others their way, whether it runs or waits."""
        yield self.accept(envelope(1, 3, "app", "a@x.net", "b@y.net", at=self.wall))
        yield self.begun(2)
        self.cancel(1, destination="y.net")
        yield self.turn()
        ended = {transfer.request.destination: transfer.ended for transfer in self.agent.transfers}
        self.assertEqual(ended, {"x.net": False, "y.net": True})
        next(transfer for transfer in self.agent.transfers if not transfer.ended).end(LATER)
        yield self.turn(61)
        yield self.begun(3)
        self.assertEqual([r.address for r in self.agent.transfers[2].request.recipients], ["a@x.net"])

    @inlineCallbacks
    def test_put_off_and_taken_forward(self) -> Any:
        """A30: a message that is put off waits, whatever is in memory; taken forward it goes within a second."""
        for number in range(1, 22):
            last = self.queue.spool.accept(envelope(number, at=self.wall), CONTENT)
        yield last
        yield self.begun(20)
        self.move(self.wall + 10, 21)
        self.agent.transfers[0].end(OK)
        yield self.turn(9)
        self.assertEqual(len(self.agent.transfers), 20)
        self.move(self.wall + 1000, 21)
        yield self.turn(9)
        self.assertEqual(len(self.agent.transfers), 20)
        self.move(self.wall - 1, 21)
        yield self.turn()
        self.assertEqual(self.agent.begun()[20:], [21])
        told = [(each.id, each.recipient, each.who, each.due) for each in self.stated(facts.Rescheduled)]
        start = self.wall - 19
        self.assertEqual(
            told,
            [
                (queue_id(21), "b@example.net", "me", start + 10),
                (queue_id(21), "b@example.net", "me", start + 1009),
                (queue_id(21), "b@example.net", "me", start + 17),
            ],
        )
        self.assertEqual([each.at for each in self.stated(facts.Rescheduled)], [start, start + 9, start + 18])

    @inlineCallbacks
    def test_retry_tries_a_destination_that_is_left_alone(self) -> Any:
        """Retrying reopens a destination that did not answer; its own time to reopen does not disturb it later."""
        yield self.accept(envelope(1, 3, "app", "b@dead.net", at=self.wall))
        yield self.begun(1)
        self.agent.transfers[0].end(LATER, peer="", reason="connection_refused")
        yield self.turn(5)
        self.move(0.0, 1)
        yield self.turn()
        yield self.begun(2)
        self.assertEqual(self.agent.transfers[1].request.attempt, 2)
        self.agent.transfers[1].end(LATER, peer="", reason="connection_refused")
        yield self.turn(60)  # the first wait ends here; the second lasts five minutes
        yield self.accept(envelope(2, 3, "app", "c@dead.net", at=self.wall))
        yield self.turn()
        self.assertEqual(len(self.agent.transfers), 2)
