"""What a peer has for some recipients is settled while the attempt goes on for the others."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import inlineCallbacks

from smtpplus import events as facts
from smtpplus.mail.envelope import Recipient
from smtpplus.queue import actions
from smtpplus.queue.rules import Rules
from smtpplus.queue.selection import QueueView, Selection
from tests.queue.fixtures import LATER, NEVER, OK, envelope
from tests.queue.house import QueueCase

TO = ("a@x.net", "b@x.net", "c@x.net", "d@x.net")
LEFT = "SELECT address FROM recipients ORDER BY number"


class TakenTests(QueueCase):
    @inlineCallbacks
    def begin(self) -> Any:
        """An attempt of which two recipients are settled, and committed."""
        yield self.accept(envelope(1, 3, "app", *TO, at=self.wall))
        yield self.begun(1)
        self.agent.transfers[0].part("a@x.net", "c@x.net")
        yield self.until(lambda: self.rows(LEFT) == [("b@x.net",), ("d@x.net",)])

    @inlineCallbacks
    def test_a_crash_does_not_send_it_to_them_again(self) -> Any:
        """C2: after a restart in the middle of an attempt those alone are tried again who do not have the message."""
        yield self.begin()
        self.assertEqual([each.recipient for each in self.stated(facts.Delivered)], ["a@x.net", "c@x.net"])
        yield self.database.stop()  # as after a kill
        self.open()
        yield self.queue.start()
        self.wall += 60
        self.clock.advance(1)
        yield self.begun(1)
        self.assertEqual([each.address for each in self.agent.transfers[0].request.recipients], ["b@x.net", "d@x.net"])

    @inlineCallbacks
    def test_the_rest_is_settled_at_the_end(self) -> Any:
        """C4: the others are put off, bounce or are delivered as ever, each of them once, and the message leaves with the last."""
        yield self.begin()
        self.agent.transfers[0].end(NEVER, LATER)
        yield self.until(lambda: self.stated(facts.Bounced))
        self.assertEqual(self.rows("SELECT address FROM recipients WHERE message_id = 1"), [("d@x.net",)])
        yield self.turn(60)
        yield self.begun(3)
        [again] = [each for each in self.agent.transfers[1:] if each.request.envelope.id == 1]
        again.end(OK)
        yield self.until(lambda: self.rows("SELECT count(*) FROM messages WHERE id = 1") == [(0,)])
        told = [[each.recipient for each in self.stated(kind)] for kind in (facts.Delivered, facts.Failed, facts.Deferred)]
        self.assertEqual(told, [["a@x.net", "c@x.net", "d@x.net"], ["b@x.net"], ["d@x.net"]])

    @inlineCallbacks
    def test_at_once_at_the_end(self) -> Any:
        """A part and the end in one group commit leave nothing behind."""
        yield self.accept(envelope(1, 3, "app", *TO, at=self.wall))
        yield self.begun(1)
        self.agent.transfers[0].part("a@x.net")
        self.agent.transfers[0].part("b@x.net", "c@x.net")
        self.agent.transfers[0].end(OK)
        yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])
        self.assertEqual(self.rows(LEFT), [])
        self.assertEqual([each.recipient for each in self.stated(facts.Delivered)], list(TO))

    @inlineCallbacks
    def test_the_rest_can_be_cancelled(self) -> Any:
        """What is cancelled in the middle of an attempt is gone for those who do not have it, and nobody is told of a failure."""
        yield self.begin()
        self.operate(
            lambda connection: actions.cancel(
                connection,
                list(QueueView(connection, Rules(), lambda domain: domain, self.wall).select(Selection(ids=(1,)))),
                who="me",
                reason="test",
                now=self.wall,
            )
        )
        yield self.turn()
        self.agent.transfers[0].end(NEVER)
        yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])
        yield self.turn()
        self.assertEqual([self.stated(facts.Failed), self.stated(facts.Bounced)], [[], []])

    @inlineCallbacks
    def test_success_is_told_of_a_part(self) -> Any:
        """RFC 3461 §5.2.1: who wants to hear of success hears it of each part."""
        asked = tuple(Recipient(address, "SUCCESS") for address in TO)
        yield self.accept(msgspec.structs.replace(envelope(1, at=self.wall), recipients=asked))
        yield self.begun(1)
        self.agent.transfers[0].part("b@x.net")
        yield self.until(lambda: self.stated(facts.Bounced))
        self.assertEqual([each.kind for each in self.stated(facts.Bounced)], ["delivered"])
