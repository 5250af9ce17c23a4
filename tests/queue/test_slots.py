"""Slots over a running queue: a destination's limit holds for urgent mail too, and urgent mail has a slot as soon as may be."""

from __future__ import annotations

import threading
from typing import Any

from sqlalchemy import Connection
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread

from smtpplus import events as facts
from smtpplus.config import Configuration, Delivery
from smtpplus.queue.preemption import SLOT_WANTED, URGENT_MAIL_SENT
from tests.queue.fixtures import OK, envelope
from tests.queue.house import CONTENT, QueueCase


class OneSlotTests(QueueCase):
    """A destination that takes one message at a time: there is nothing to reserve."""

    configuration = Configuration(hostname="relay.example.com", delivery=Delivery(per_destination=1))

    def stopped(self) -> list[bool]:
        return [transfer.stopped for transfer in self.agent.transfers]

    @inlineCallbacks
    def test_who_has_the_only_slot_goes_on(self) -> Any:
        """A27 (c), C3: bulk in the only slot of the destination that urgent mail waits for comes to its end, bulk elsewhere stops; the
        urgent message is next, before the bulk that came earlier, and there is never a second one beside it."""
        for number, to in ((1, "b@one.net"), (2, "b@other.net"), (3, "b@one.net")):
            yield self.accept(envelope(number, 3, "app", to, at=self.wall))
        yield self.begun(2)
        yield self.accept(envelope(4, 1, "app", "b@one.net", at=self.wall))
        yield self.turn()
        self.assertEqual((self.agent.begun(), self.stopped()), ([1, 2], [False, True]))
        self.agent.transfers[0].end(OK)
        yield self.begun(3)
        self.assertEqual((self.agent.begun(), self.stopped()[1:]), ([1, 2, 4], [True, False]))
        self.agent.transfers[2].end(OK)
        yield self.begun(4)
        self.assertEqual((self.agent.begun(), self.stopped()[1]), ([1, 2, 4, 3], False))
        self.assertEqual([event.why for event in self.stated(facts.Resumed)], [SLOT_WANTED, URGENT_MAIL_SENT])

    @inlineCallbacks
    def test_who_is_about_to_have_the_only_slot_goes_on(self) -> Any:
        """A27 (c): so does bulk whose attempt is being recorded when the urgent message comes, at once when it has begun."""
        yield self.accept(envelope(1, 3, at=self.wall))
        reached, released = threading.Event(), threading.Event()
        self.addCleanup(released.set)
        urgent = self.queue.spool.accept(envelope(2, 1, "app", "b@example.net", "b@other.net", at=self.wall), CONTENT)

        def wait(connection: Connection) -> None:
            reached.set()
            released.wait(30.0)

        self.database.write(wait)
        yield deferToThread(reached.wait, 30.0)
        self.clock.advance(0)  # bulk has the slot, and is recorded after the urgent message
        released.set()
        yield urgent
        yield self.until(lambda: self.stated(facts.Resumed))
        (bulk,) = (transfer for transfer in self.agent.transfers if transfer.request.envelope.level == 3)
        self.assertFalse(bulk.stopped)
        bulk.end(OK)
        yield self.begun(3)
        self.assertEqual((self.agent.begun()[-1], self.agent.transfers[-1].request.destination), (2, "example.net"))


class FullHouseTests(QueueCase):
    """Four connections, for whatever destination, of which one is reserved."""

    configuration = Configuration(hostname="relay.example.com", delivery=Delivery(connections=4, reserved_for_preempting=1))

    @inlineCallbacks
    def test_urgent_mail_that_fills_the_house_gives_way(self) -> Any:
        """A26, A27 (c): where messages of level 2 have every slot and stop for one of level 1, which has none, one of them goes on."""
        accepted = [self.queue.spool.accept(envelope(number, 2, "app", f"b@{number}.net", at=self.wall), CONTENT) for number in range(1, 7)]
        yield gatherResults(accepted)
        yield self.begun(4)
        yield self.accept(envelope(10, 1, "app", "b@10.net", at=self.wall))
        yield self.turn()
        self.assertEqual(self.agent.begun(), [1, 2, 3, 4])
        self.assertEqual([transfer.stopped for transfer in self.agent.transfers], [False, True, True, True])
        self.agent.transfers[0].end(OK)
        yield self.begun(5)
        self.assertEqual(self.agent.begun()[4:], [10])
