"""One attempt under way: what the scheduler stops and lets go, and what ends in one disposition per recipient.

A transfer is always with a holder: it waits in a pool, runs on a connection, or is being written to a Maildir. It may take several
transactions, each for some of its recipients: `left` are those that have no disposition yet. Invariant: `done` is called exactly once,
with a disposition for every recipient but those that `taken` was told of, who have the message; what either raises is logged and
changes nothing.
"""

from __future__ import annotations

from typing import Callable, Protocol, Sequence

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from smtpplus.delivery.fault import Fault
from smtpplus.delivery.terms import Proposal
from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition, Request
from smtpplus.mail.envelope import Content
from smtpplus.mail.reply import Outcome, Reply

Done = Callable[[list[Disposition]], None]
Convert = Callable[["Transfer"], Deferred[Content | Fault]]
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
        """False once the end of the message is out of our hands, for all recipients that are left."""

    def halted(self, transfer: Transfer) -> None:
        """`transfer.stopped` was set."""

    def resumed(self, transfer: Transfer) -> None:
        """`transfer.stopped` was cleared."""

    def abandoned(self, transfer: Transfer) -> None:
        """Give the transfer up, unless it may not be stopped any more."""


class Transfer:
    """Implements mail.disposition.Transfer."""

    __slots__ = ("_decided", "_done", "_taken", "content", "convert", "given_up", "holder", "left", "over", "pressed", "request", "stopped")
    _log = Logger()

    def __init__(self, request: Request, done: Done, holder: Holder, taken: Done | None = None, convert: Convert | None = None) -> None:
        self.request = request
        self.content = request.content  # as it was accepted
        self.convert = convert  # makes of that what a peer without 8BITMIME takes; None: that was done, or nobody can
        self.holder = holder
        self.stopped = False
        self.pressed = False  # it goes on although it is stopped: who is more urgent waits for its connection
        self.over = False
        self.given_up = False  # it was abandoned: what is under way may end, and nothing more begins
        self.left: Sequence[int] = range(len(request.recipients))  # numbers of recipients, in their order
        self._decided: dict[int, Disposition] = {}  # by number
        self._done = done
        self._taken = taken

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
            self.given_up = True
            self.holder.abandoned(self)

    def settle(self, peer: str, verdicts: Sequence[Verdict], fault: Fault | None = None, *, proposal: Proposal = NOTHING) -> None:
        """End the attempt: each recipient that is left has its verdict, and where that is missing (None, or too short a list) the fault.

        `proposal` is what the peer was told.
        """
        if self.over:
            return
        self.over = True
        missing = fault or Fault(reasons.UNEXPECTED)
        self._decide(peer, [verdict or missing for verdict in verdicts], proposal)
        if missing.doubtful:
            missing = msgspec.structs.replace(missing, doubtful=False)  # who was not proposed cannot have it
        for number in self.left[len(verdicts) :]:
            self._decided[number] = self._failed(number, peer, missing)
        try:
            self._done([self._decided[number] for number in sorted(self._decided)])
        except Exception:
            self._log.failure("the queue failed on the dispositions of an attempt")

    def record(self, peer: str, verdicts: Sequence[Verdict], proposal: Proposal) -> None:
        """End a transaction, not the attempt: the first of those that are left have their verdicts; who has none (None) is left."""
        self._decide(peer, verdicts, proposal)
        self.left = [number for number in self.left if number not in self._decided]
        taken = [number for number, each in self._decided.items() if each.outcome is Outcome.DONE]
        if self._taken is None or not taken:
            return
        try:
            self._taken([self._decided.pop(number) for number in taken])
        except Exception:
            self._log.failure("the queue failed on a part of an attempt")

    def _decide(self, peer: str, verdicts: Sequence[Verdict], proposal: Proposal) -> None:
        for number, verdict in zip(self.left, verdicts, strict=False):  # the first of them
            if isinstance(verdict, Fault):
                self._decided[number] = self._failed(number, peer, verdict)
            elif verdict is not None:
                recipient, reason = self.request.recipients[number], REASON_OF[verdict.outcome]
                self._decided[number] = Disposition(recipient, verdict, peer, reason, proposal.passed_on, proposal.time_passed_on)

    def _failed(self, number: int, peer: str, fault: Fault) -> Disposition:
        """Whatever is at fault, nobody has the message: a reply that says otherwise is none to a message."""
        request = self.request
        reply = fault.reply(peer, request.destination)
        if reply.outcome is Outcome.DONE:
            self._log.error("a fault of {peer} says {reply}", peer=peer, reply=str(reply))
            return self._failed(number, peer, Fault(reasons.UNEXPECTED))
        return Disposition(request.recipients[number], reply, peer, fault.reason.code)
