"""A transaction on a connection: what is asked of the peer for a transfer, and the content on its way.

It holds the transfer while it runs, and so stops and goes on as the transfer says. Nothing is proposed to a peer that the message does
not fit; where only the content can tell, it is looked at first, and converted if it has 8-bit octets that the peer does not take. The
first piece of the content is at hand before anything is proposed: a message that is lost costs the peer nothing. Of more recipients than
the peer takes at a time the first are proposed, and `is_part` says that others are left. How a transaction ends is the connection's
business: it hears of a misfit by `misfit`, of everything else from the peer. Whatever goes wrong unexpectedly cuts the connection.
"""

from __future__ import annotations

import math
from typing import Callable, Protocol, Sequence

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Connection as TCPConnection
from twisted.logger import Logger

from smtpplus.delivery.dialogue import Dialogue, is_too_many
from smtpplus.delivery.fault import Fault, answered
from smtpplus.delivery.fit import Fit, all_ascii, beyond, fit
from smtpplus.delivery.outflow import Chunked, Dotted, Outflow
from smtpplus.delivery.proposal import propose
from smtpplus.delivery.terms import Proposal
from smtpplus.delivery.transfer import NOTHING, Transfer
from smtpplus.mail import reasons
from smtpplus.mail.disposition import Request
from smtpplus.mail.envelope import Content
from smtpplus.mail.reply import Reply

BLOCK_PATIENCE = 180.0  # seconds for one piece of data, RFC 5321 §4.5.3.2.5


class Link(Protocol):
    """The connection, as its transaction sees it."""

    peer: str
    dialogue: Dialogue

    def allow(self, seconds: float) -> None:
        """Give the peer so much time from now."""

    def flush(self) -> None:
        """Write what the dialogue has to say."""

    def misfit(self, transfer: Transfer, fault: Fault | None) -> None:
        """The transfer was not proposed to the peer, which cannot take it."""

    def held(self) -> None:
        """The transfer was stopped."""

    def cut(self, fault: Fault) -> None:
        """End the session at once; the transfer hears the fault."""


class Transaction:
    """One after the other, on one connection. Implements transfer.Holder and outflow.Session; `transfer` is None between them."""

    __slots__ = ("_answered", "_clock", "_first", "_link", "_now", "_outflow", "dotted", "proposal", "transfer")
    _log = Logger()

    def __init__(self, link: Link, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._link = link
        self._clock = clock
        self._now = now  # seconds since the epoch, for what the envelope says of times
        self._outflow = Outflow(self)
        self._answered = 0  # replies read when it began
        self._first: bytes | None = None  # piece of the content, until it is sent
        self.transfer: Transfer | None = None
        self.proposal: Proposal | None = None
        self.dotted = False  # the final dot is with the transport

    def begin(self, transfer: Transfer) -> None:
        """Ask the peer to take `transfer`. Never raises."""
        self.transfer = transfer
        transfer.holder = self
        self._answered = self._link.dialogue.answered
        self._link.dialogue.replies = []
        self.dotted = False
        self.proposal = None
        try:
            self._approach(transfer)
        except Exception:
            self._stumble()

    def leave(self) -> Transfer | None:
        """It is over: no more is written, and the transfer that it was about belongs to the caller."""
        self._outflow.cancel()
        self._first = None
        transfer, self.transfer = self.transfer, None
        return transfer

    def is_part(self) -> bool:
        """The peer has answered. Whether recipients are left for another transaction; what it said of the others is recorded then.

        So it is if there are more than it takes at a time, or if it said so after it took some (RFC 5321 §4.5.3.1.10): each transaction
        settles one recipient at least. Where the message is refused as a whole, it is so for all who are left: `refusal`.
        """
        transfer, dialogue, replies = self.transfer, self._link.dialogue, self._verdicts()
        if transfer is None or dialogue.refusal is not None or (len(replies) == len(transfer.left) and None not in replies):
            return False
        if not dialogue.taken and is_too_many(replies[-1]):
            return False
        transfer.record(self._link.peer, replies, self.proposal or NOTHING)
        dialogue.replies = []
        return True

    def _verdicts(self) -> Sequence[Reply | None]:
        """The peer's, without those that put a recipient off to the next transaction."""
        dialogue = self._link.dialogue
        replies = dialogue.replies
        return [None if is_too_many(reply) else reply for reply in replies] if dialogue.taken else replies

    @property
    def refusal(self) -> Fault | None:
        """What recipients hear that were not proposed, of a transaction after which there is no other; None if there are none."""
        dialogue, transfer = self._link.dialogue, self.transfer
        if transfer is None or len(dialogue.replies) == len(transfer.left):
            return None
        reply = dialogue.refusal or dialogue.replies[-1]
        return answered(reply) if reply is not None else None

    @property
    def answers(self) -> int:
        """Replies read since it began."""
        return self._link.dialogue.answered - self._answered

    @property
    def flowing(self) -> bool:
        """Whether the content is on its way, without its end."""
        return self._outflow.active

    @property
    def left(self) -> int:
        """Pieces of content still to be written."""
        return self.transfer.request.content.chunks - self._outflow.written if self.transfer is not None else 0

    def press(self) -> None:
        """Bring the transfer to its end although it is stopped."""
        if self.transfer is not None:
            self.transfer.pressed = True
            self.resumed(self.transfer)

    # --- before the first command -------------------------------------------------------------------------------------------------

    def _approach(self, transfer: Transfer) -> None:
        dialogue = self._link.dialogue
        unfit = beyond([transfer.request.recipients[number] for number in transfer.left], transfer.request.envelope, dialogue)
        if unfit:
            transfer.record(self._link.peer, unfit, NOTHING)
        request = _part(transfer, dialogue)
        verdict = fit(request, dialogue, self._now())
        if isinstance(verdict, Fault):
            self._clock.callLater(0, self._misfit, transfer, verdict)  # not now: `done` would be called within `deliver`
        elif verdict.doubt:
            self._link.allow(math.inf)
            self._clock.callLater(0, self._examine, transfer, request, verdict)
        else:
            self._prepare(transfer, request, verdict)

    def _prepare(self, transfer: Transfer, request: Request, verdict: Fit) -> None:
        """Have the first piece at hand, which is at once if the content is in memory; then propose the message."""

        def arrived(piece: bytes | None) -> None:
            if self.transfer is not transfer:
                return
            if piece is None:
                self._clock.callLater(0, self._misfit, transfer, Fault(reasons.CONTENT_LOST))
                return
            self._first = piece
            try:
                self._propose(request, verdict)
            except Exception:
                self._stumble()

        if request.content.chunks:
            self._link.allow(math.inf)
            request.content.read(0, arrived)
        else:
            self._propose(request, verdict)

    def _stumble(self) -> None:
        self._log.failure("delivery to {peer} failed", peer=self._link.peer)
        self._clock.callLater(0, self._link.cut, Fault(reasons.UNEXPECTED))

    def _propose(self, request: Request, verdict: Fit) -> None:
        dialogue = self._link.dialogue
        proposal = self.proposal = propose(request, dialogue.extensions, verdict, self._now())
        dialogue.begin(proposal)
        self._link.flush()
        self._link.allow(dialogue.patience)

    def _misfit(self, transfer: Transfer, fault: Fault | None) -> None:
        if self.transfer is transfer:
            self._link.misfit(transfer, fault)

    def _examine(self, transfer: Transfer, request: Request, verdict: Fit) -> None:
        """Read the content, as the peer lacks what the envelope says it needs."""
        looking = Deferred.fromCoroutine(all_ascii(transfer.request.content))
        looking.addCallback(lambda clean: self._examined(transfer, request, verdict, clean))
        looking.addErrback(lambda failure: self._link.cut(Fault(reasons.UNEXPECTED, str(failure.value))))

    def _examined(self, transfer: Transfer, request: Request, verdict: Fit, clean: bool | None) -> None:
        if self.transfer is not transfer:
            return
        if clean:
            self._prepare(transfer, request, verdict)
        elif clean is not None and verdict.doubt is not None and verdict.doubt.reason is reasons.PEER_LACKS_8BITMIME and transfer.convert:
            converting = transfer.convert(transfer).addCallback(lambda content: self._converted(transfer, content))
            converting.addErrback(lambda failure: self._link.cut(Fault(reasons.UNEXPECTED, str(failure.value))))
        else:
            self._misfit(transfer, Fault(reasons.CONTENT_LOST) if clean is None else verdict.doubt)

    def _converted(self, transfer: Transfer, content: Content | Fault) -> None:
        """The content in 7 bits is another one: it is looked at like the first, also for its size."""
        if self.transfer is not transfer:
            return
        if isinstance(content, Fault):
            self._misfit(transfer, content)
        else:
            transfer.convert = None
            transfer.request = msgspec.structs.replace(transfer.request, content=content)
            self._approach(transfer)

    # --- the content --------------------------------------------------------------------------------------------------------------

    def send(self, transport: TCPConnection) -> None:
        """The peer wants the data."""
        transfer = self.transfer
        assert transfer is not None
        self._link.allow(math.inf if transfer.held else BLOCK_PATIENCE)
        chunked = self.proposal is not None and self.proposal.chunked
        first, self._first = self._first, None
        self._outflow.start(transfer, transport, Chunked() if chunked else Dotted(), first)

    def moved(self) -> None:
        self._link.dialogue.content_sent(last=False)
        self._link.allow(BLOCK_PATIENCE)

    def ended(self) -> None:
        self.dotted = True
        self._link.dialogue.content_sent()
        self._link.allow(self._link.dialogue.patience)

    def unreadable(self) -> None:
        self._link.cut(Fault(reasons.CONTENT_LOST))

    # --- the transfer's side ------------------------------------------------------------------------------------------------------

    def may_stop(self) -> bool:
        if not self.dotted or self.transfer is None:
            return True
        replies = self._link.dialogue.replies
        return len(replies) < len(self.transfer.left) or any(map(is_too_many, replies))

    def halted(self, transfer: Transfer) -> None:
        if self._outflow.active:
            self._link.allow(math.inf)  # it is we who keep the peer waiting
        self._link.held()

    def resumed(self, transfer: Transfer) -> None:
        if self._outflow.active:
            self._link.allow(BLOCK_PATIENCE)
            self._outflow.pump()

    def abandoned(self, transfer: Transfer) -> None:
        if not self.dotted:
            self._link.cut(Fault(reasons.ABANDONED))


def _part(transfer: Transfer, dialogue: Dialogue) -> Request:
    """The request for the first recipients that are left, as many as the peer takes at a time (RFC 9422 §4)."""
    request = transfer.request
    left = len(transfer.left)
    if left <= dialogue.recipient_limit and left == len(request.recipients) and not dialogue.domain_limit:
        return request
    recipients = [request.recipients[number] for number in transfer.left[: dialogue.recipient_limit]]
    domains: set[str] = set()
    for place, recipient in enumerate(recipients):
        domains.add(recipient.address.rpartition("@")[2].lower())
        if 0 < dialogue.domain_limit < len(domains):
            recipients = recipients[:place]
            break
    return msgspec.structs.replace(request, recipients=tuple(recipients))
