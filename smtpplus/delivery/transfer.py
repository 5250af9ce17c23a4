"""One attempt under way: what the scheduler stops and lets go, and what ends in one disposition per recipient.

A transfer is always with a holder: it waits in a pool, runs on a connection, or is being written to a Maildir. Invariant: `done` is
called exactly once, with a disposition for every recipient; what `done` raises is logged and changes nothing.
"""

from __future__ import annotations

from typing import Callable, Protocol, Sequence

from twisted.logger import Logger

from smtpplus.delivery.fault import Fault
from smtpplus.delivery.terms import Proposal
from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition, Request
from smtpplus.mail.reply import Outcome, Reply

Done = Callable[[list[Disposition]], None]
Verdict = Reply | Fault | None  # on one recipient: the peer's, ours, or none
NOTHING = Proposal("", ())  # was told to whoever is no SMTP peer
REASON_OF = {  # of a verdict that the peer gave
    Outcome.DONE: reasons.DELIVERED.code,
    Outcome.DEFERRED: reasons.PEER_DEFERRED.code,
    Outcome.FAILED: reasons.PEER_REFUSED.code,
}


class Holder(Protocol):
    """Where a transfer is."""

    def may_stop(self) -> bool:
        """False once the end of the message is out of our hands."""

    def halted(self, transfer: Transfer) -> None:
        """`transfer.stopped` was set."""

    def resumed(self, transfer: Transfer) -> None:
        """`transfer.stopped` was cleared."""

    def abandoned(self, transfer: Transfer) -> None:
        """Give the transfer up, unless it may not be stopped any more."""


class Transfer:
    """Implements mail.disposition.Transfer."""

    __slots__ = ("_done", "holder", "over", "pressed", "request", "stopped")
    _log = Logger()

    def __init__(self, request: Request, done: Done, holder: Holder) -> None:
        self.request = request
        self.holder = holder
        self.stopped = False
        self.pressed = False  # it goes on although it is stopped: who is more urgent waits for its connection
        self.over = False
        self._done = done

    @property
    def held(self) -> bool:
        """Whether it may write nothing now."""
        return self.stopped and not self.pressed

    def stop(self) -> bool:
        if self.over or not self.holder.may_stop():
            return False
        if not self.stopped:
            self.stopped = True
            self.holder.halted(self)
        return True

    def go(self) -> None:
        if self.stopped:
            self.stopped = False
            if not self.over:
                self.holder.resumed(self)

    def abandon(self) -> None:
        if not self.over:
            self.holder.abandoned(self)

    def settle(self, peer: str, verdicts: Sequence[Verdict], fault: Fault | None = None, *, proposal: Proposal = NOTHING) -> None:
        """End the attempt: each recipient has its verdict, and where that is missing (None, or too short a list) the fault.

        `proposal` is what the peer was told.
        """
        if self.over:
            return
        self.over = True
        request = self.request
        dispositions = []
        for number, recipient in enumerate(request.recipients):
            verdict = verdicts[number] if number < len(verdicts) else None
            if verdict is None:
                verdict = fault or Fault(reasons.UNEXPECTED)
            if isinstance(verdict, Fault):
                dispositions.append(Disposition(recipient, verdict.reply(peer, request.destination), peer, verdict.reason.code))
            else:
                dispositions.append(
                    Disposition(recipient, verdict, peer, REASON_OF[verdict.outcome], proposal.passed_on, proposal.time_passed_on)
                )
        try:
            self._done(dispositions)
        except Exception:
            self._log.failure("the queue failed on the dispositions of an attempt")
