"""What dispositions an attempt ends in, apart from any peer."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from smtpplus.delivery.fault import Fault
from smtpplus.delivery.transfer import Transfer
from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.reply import Reply
from tests.delivery.rig import request, said


class _Nobody:
    def may_stop(self) -> bool:
        return True

    def halted(self, transfer: Transfer) -> None: ...

    def resumed(self, transfer: Transfer) -> None: ...

    def abandoned(self, transfer: Transfer) -> None: ...


class TransferTests(SynchronousTestCase):
    def test_no_fault_means_delivered(self) -> None:
        """A fault whose answer says yes, or go on, defers: only the answer to a message can be its success."""
        for code in (250, 354):
            found: list[Disposition] = []
            transfer = Transfer(request("b.example", "a@x", "b@x"), found.extend, _Nobody())
            transfer.settle("peer", [Reply(250, "", "taken")], Fault(reasons.PEER_DEFERRED, answer=Reply(code, "", "go")))
            assert said(found) == [("a@x", 250, "delivered"), ("b@x", 451, "unexpected")]
