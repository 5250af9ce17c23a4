"""What the end of an attempt says of its destination. tests/queue/test_scheduler has what a destination does that is closed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from smtpplus.mail import reasons
from tests.queue.fixtures import LATER, envelope
from tests.queue.house import QueueCase

OURS = (reasons.CONTENT_LOST, reasons.UNEXPECTED, reasons.TOO_LATE, reasons.PEER_LACKS_REQUIRETLS, reasons.ABANDONED)


class ReachTests(QueueCase):
    """Attempts that the test ends."""

    def known(self) -> tuple[bool, int, int]:
        """Whether the destination is closed, its window, its failures."""
        destination = self.queue.scheduler._ready.destination("x.net")
        return destination.closed, destination.window, destination.failures

    @inlineCallbacks
    def test_a_fault_of_ours_says_nothing_of_a_destination(self) -> Any:
        """C3: content that is lost, a defect or an end of ours before anybody was asked closes a destination for nobody, and opens none."""
        for number, reason in enumerate(OURS, 1):
            yield self.accept(envelope(number, 3, "app", "b@x.net", sender="", at=self.wall))
            yield self.begun(number)
            self.agent.transfers[-1].end(reason.reply(peer="x.net", domain="x.net", cause=""), peer="", reason=reason.code)
            self.assertEqual(self.known(), (False, 20, 0), reason.code)
        for number in (10, 11):
            yield self.accept(envelope(number, 3, "app", "b@x.net", sender="", at=self.wall))
        yield self.begun(7)
        self.agent.transfers[5].end(LATER, peer="", reason="connection_refused")
        self.assertEqual(self.known(), (False, 10, 1))
        self.agent.transfers[6].end(reasons.TOO_LATE.reply(), peer="", reason="too_late")
        self.assertEqual(self.known(), (False, 10, 1))
