"""DELIVERBY (RFC 2852): a message whose time is over goes back or is reported as delayed, and nobody sends it too late."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import inlineCallbacks

from smtpplus import events as facts
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import Envelope, Recipient, queue_id
from smtpplus.queue import retry
from tests.queue.fixtures import LATER, OK, envelope
from tests.queue.house import QueueCase


class DeliverByTests(QueueCase):
    """The clock on the wall is at 1,000,000; the schedule's first wait is a minute."""

    def asked(self, mode: str, seconds: float, number: int = 1) -> Envelope:
        """An envelope that is to be delivered within `seconds`."""
        accepted = envelope(number, at=self.wall)
        return msgspec.structs.replace(accepted, deliver_by=self.wall + seconds, by_mode=mode)

    def relayed(self, number: int, *, time_passed_on: bool = False) -> None:
        """End the attempt at message `number` well."""
        transfer = self.agent.transfers[number - 1]
        [recipient] = transfer.request.recipients
        transfer.done([Disposition(recipient, OK, "mx[192.0.2.1]:25", "delivered", time_passed_on=time_passed_on)])

    def told(self) -> list[str]:
        """The kinds of the notifications that were sent."""
        return [event.kind for event in self.stated(facts.Bounced)]

    @inlineCallbacks
    def test_it_goes_back_when_its_time_is_over(self) -> Any:
        """RFC 2852 §4.1.2: by-mode R: the attempts end at the time asked for, and the sender has the message back with 5.4.7."""
        yield self.accept(self.asked("R", 90))
        yield self.begun(1)
        self.agent.transfers[0].end(LATER)
        (deferred,) = self.stated(facts.Deferred)
        self.assertEqual(deferred.next_attempt, self.wall + 60)
        self.wall += 60
        yield self.turn(1)
        self.agent.transfers[1].end(LATER)
        self.assertEqual(self.stated(facts.Deferred)[1].next_attempt, 1_000_090.0)
        self.wall += 29
        yield self.turn(1)
        yield self.until(lambda: self.stated(facts.Bounced))
        (failed,) = self.stated(facts.Failed)
        self.assertEqual((failed.reason, "5.4.7" in failed.reply, self.told()), ("too_late", True, ["failed"]))
        self.assertEqual([transfer.request.envelope.sender for transfer in self.agent.transfers], ["a@example.com"] * 2 + [""])

    @inlineCallbacks
    def test_an_attempt_that_ends_too_late_is_the_last(self) -> Any:
        """RFC 2852 §4.1.2: by-mode R: an attempt that fails for now when the time is over fails for good; success is success."""
        for number in (1, 2):
            yield self.accept(self.asked("R", 60, number))
        yield self.begun(2)
        self.wall += 70
        self.agent.transfers[0].end(LATER)
        self.agent.transfers[1].end(OK)
        yield self.until(lambda: self.stated(facts.Bounced))
        self.assertEqual([event.reason for event in self.stated(facts.Failed)], ["expired"])
        self.assertEqual(len(self.stated(facts.Delivered)), 1)

    @inlineCallbacks
    def test_the_sender_hears_of_the_delay_when_the_time_is_over(self) -> Any:
        """RFC 2852 §4.1.2: by-mode N: a report of the delay at the time asked for, once, and the attempts go on."""
        yield self.accept(self.asked("N", 20))
        yield self.begun(1)
        self.agent.transfers[0].end(LATER)
        self.assertEqual(self.stated(facts.Deferred)[0].next_attempt, 1_000_020.0)
        self.wall += 20
        yield self.turn(1)
        self.assertEqual(self.told(), [])
        self.agent.transfers[1].end(LATER)
        yield self.until(lambda: self.stated(facts.Bounced))
        self.assertEqual(self.told(), ["delayed"])
        yield self.begun(3)
        self.agent.transfers[2].end(OK)
        self.wall += 300
        yield self.turn(1)
        self.agent.transfers[3].end(LATER)
        yield self.turn(1)
        self.assertEqual(self.told(), ["delayed"])

    @inlineCallbacks
    def test_it_survives_a_restart(self) -> Any:
        """C2: what was asked for is in the database with the message."""
        yield self.accept(self.asked("RT", 90))
        yield self.begun(1)
        self.agent.transfers[0].end(LATER)
        yield self.turn(1)
        yield self.close()
        self.wall += 100
        self.open()
        yield self.queue.start()
        yield self.turn(1)
        yield self.until(lambda: self.stated(facts.Bounced))
        self.assertEqual([event.reason for event in self.stated(facts.Failed)], ["too_late"])

    @inlineCallbacks
    def test_all_that_the_client_said_survives_a_restart(self) -> Any:
        """C1, C2: RET, ENVID, NOTIFY, ORCPT, BODY, SMTPUTF8, BY and REQUIRETLS are with the message when it is read back."""
        accepted = msgspec.structs.replace(
            self.asked("NT", 9_000),
            recipients=(Recipient("b@example.net", "SUCCESS,DELAY", "utf-8;jörg@example.net"),),
            body="8BITMIME",
            smtputf8=True,
            ret="HDRS",
            envid="order+7",
            require_tls=True,
            unauthorized=True,
        )
        yield self.accept(accepted)
        yield self.begun(1)
        self.agent.transfers[0].end(LATER)
        yield self.turn(1)
        yield self.close()
        self.wall += 100
        self.open()
        yield self.queue.start()
        yield self.turn(1)
        self.assertEqual(self.agent.transfers[0].request.envelope, accepted)

    @inlineCallbacks
    def test_a_traced_message_is_reported_when_it_is_relayed(self) -> Any:
        """RFC 2852 §4: by-trace: the sender hears of the relay though NOTIFY did not ask for it, and the next hop knows the time."""
        for number, mode in enumerate(("N", "RT", "R"), 1):
            yield self.accept(self.asked(mode, 600, number))
            yield self.begun(number)
            self.relayed(number, time_passed_on=True)
        yield self.until(lambda: self.stated(facts.Bounced))
        self.assertEqual([told.id for told in self.stated(facts.Bounced)], [queue_id(2)])

    @inlineCallbacks
    def test_mode_n_is_reported_where_its_time_is_lost(self) -> Any:
        """RFC 2852 §4.1.4: a next hop that does not know DELIVERBY: a report of the relay, once, unless NOTIFY says never; none of a
        message that lies in its mailbox."""
        notified = {1: "", 2: "NEVER", 3: "FAILURE", 4: "SUCCESS"}
        for number, notify in notified.items():
            yield self.accept(msgspec.structs.replace(self.asked("N", 600, number), recipients=(Recipient("b@example.net", notify),)))
            yield self.begun(number)
            self.relayed(number)
        yield self.accept(self.asked("N", 600, 5))
        yield self.begun(5)
        self.agent.transfers[4].end(OK, peer="maildir:/var/mail/b")
        yield self.until(lambda: len(self.stated(facts.Bounced)) == 3)
        yield self.turn(1)
        self.assertEqual([told.id for told in self.stated(facts.Bounced)], [queue_id(1), queue_id(3), queue_id(4)])


def test_when_a_message_is_given_up_and_reported() -> None:
    """RFC 2852 §4.1.2: R shortens the lifetime and does not lengthen it; N takes the place of `warn_after`."""
    assert retry.returned_at(100.0, 50.0, "R") == retry.returned_at(100.0, 50.0, "RT") == 50.0
    assert retry.returned_at(100.0, 150.0, "R") == retry.returned_at(100.0, 50.0, "N") == retry.returned_at(100.0, 0.0, "") == 100.0
    assert retry.warned_at(10.0, 5.0, 50.0, "NT") == 50.0
    assert retry.warned_at(10.0, 5.0, 50.0, "R") == retry.warned_at(10.0, 5.0, 0.0, "") == 15.0
    assert retry.warned_at(10.0, 0.0, 0.0, "") == float("inf")
