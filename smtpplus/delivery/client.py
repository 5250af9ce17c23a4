"""One connection to a next hop: moves octets between a `Dialogue`, the message's content and the transport.

At most one piece of content is with the transport, and the kernel is asked to hold little unsent, so that a stop takes effect at once.
Time limits are one attribute, `deadline`, that the dialer's sweep compares with the clock: there is no timer per connection.
Whatever happens, a transfer that was begun here is settled, or handed back to the pool if a connection that had been idle turns out
to be dead before it answered anything.
"""

from __future__ import annotations

import enum
import math
import socket
import time
from typing import Callable, ClassVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpplus.delivery.dialogue import Dialogue
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.fit import Fit, all_ascii, fit
from smtpplus.delivery.keeper import Keeper
from smtpplus.delivery.outflow import Chunked, Dotted, Outflow
from smtpplus.delivery.proposal import propose
from smtpplus.delivery.terms import Proposal, Step
from smtpplus.delivery.transfer import NOTHING, Transfer
from smtpplus.mail import reasons
from smtpplus.wire import send

UNSENT = 131_072  # octets the kernel may hold that are not on the wire yet (TCP_NOTSENT_LOWAT)
HANDSHAKE_PATIENCE = 120.0  # seconds for the TLS handshake, ours
BLOCK_PATIENCE = 180.0  # seconds for one piece of data, RFC 5321 §4.5.3.2.5
CLOSE_PATIENCE = 10.0  # seconds for a closed connection to vanish, ours


class Phase(enum.Enum):
    OPENING = "opening"
    IDLE = "idle"
    BUSY = "busy"
    LEAVING = "leaving"  # QUIT was sent
    GONE = "gone"


Opened = Callable[["Connection", "Fault | None"], None]


@implementer(IHandshakeListener)
class Connection(TwistedProtocol):
    """A session and its socket. `opened` is called once: with None when the session is ready, else with the fault."""

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        dialogue: Dialogue,
        peer: str,
        encryption: IOpenSSLClientConnectionCreator,
        keeper: Keeper,
        opened: Opened,
        most: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.peer = peer
        self.dialogue = dialogue
        self.phase = Phase.OPENING
        self.deadline = math.inf  # of clock.seconds()
        self.transfer: Transfer | None = None
        self._clock = clock
        self._now = now  # seconds since the epoch, for what the envelope says of times
        self._encryption = encryption
        self._keeper = keeper
        self._opened = opened
        self._most = most  # transactions
        self._count = 0  # transactions begun
        self._answered = 0  # replies read when the transaction began
        self._handshaking = False
        self._dotted = False  # the final dot is with the transport
        self._proposal: Proposal | None = None  # of the transaction under way
        self._outflow = Outflow(self)
        self._tcp: TCPConnection | None = None

    # --- Twisted's side ---------------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        transport = self._tcp = cast(TCPConnection, self.transport)  # as connectTCP makes it
        transport.setTcpNoDelay(True)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            transport.getHandle().setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        self._await(self.dialogue.patience)
        if self.dialogue.secure:
            self._start_tls()

    def dataReceived(self, data: bytes) -> None:
        try:
            self._receive(data)
        except Exception:
            self._log.failure("delivery to {peer} failed", peer=self.peer)
            self.cut(Fault(reasons.UNEXPECTED))

    def handshakeCompleted(self) -> None:
        self._handshaking = False
        self.dialogue.secured()
        self._flush()
        self._await(self.dialogue.patience)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        cause = "the peer closed it" if reason.check(ConnectionDone) else str(reason.value) or type(reason.value).__name__
        if self._handshaking:
            self._end(Fault(reasons.TLS_FAILED, cause))
            return
        where = (
            "after the final dot; the message may arrive twice" if self._dotted else f"waiting for the answer to {self.dialogue.awaited}"
        )
        self._end(Fault(reasons.CONNECTION_LOST, f"{cause}, {where}"))

    # --- the pool's side ----------------------------------------------------------------------------------------------------------

    def begin(self, transfer: Transfer) -> None:
        """Begin a transaction. The connection must be idle. Never raises."""
        self.transfer = transfer
        transfer.holder = self
        self.phase = Phase.BUSY
        self._count += 1
        self._answered = self.dialogue.answered
        self._dotted = False
        self.dialogue.replies = []
        self._proposal = None
        try:
            self._approach(transfer)
        except Exception:
            self._log.failure("delivery to {peer} failed", peer=self.peer)
            self._clock.callLater(0, self.cut, Fault(reasons.UNEXPECTED))

    @property
    def left(self) -> int:
        """Pieces of content still to be written."""
        return self.transfer.request.content.chunks - self._outflow.written if self.transfer is not None else 0

    def press(self) -> None:
        """Bring the transfer that runs here to its end although it is stopped."""
        if self.transfer is not None:
            self.transfer.pressed = True
            self.resumed(self.transfer)

    def quit(self) -> None:
        """End an idle session politely."""
        self.phase = Phase.LEAVING
        self._keeper.gone(self)
        self.dialogue.quit()
        self._flush()
        self._await(CLOSE_PATIENCE)

    def cut(self, fault: Fault) -> None:
        """End the session at once; a transfer on it hears the fault."""
        if self._tcp is not None:
            self._tcp.abortConnection()
        self._end(fault)

    def expire(self) -> None:
        """The deadline has passed."""
        if self.phase is Phase.IDLE:
            self.quit()
        elif self._handshaking:
            self.cut(Fault(reasons.TLS_FAILED, "the handshake takes too long"))
        else:
            self.cut(Fault(reasons.CONNECTION_TIMED_OUT))

    # --- the transfer's side --------------------------------------------------------------------------------------------------------

    def may_stop(self) -> bool:
        return not self._dotted

    def halted(self, transfer: Transfer) -> None:
        if self._outflow.active:
            self._await(math.inf)  # it is we who keep the peer waiting
        self._keeper.held(self)

    def resumed(self, transfer: Transfer) -> None:
        if self._outflow.active:
            self._await(BLOCK_PATIENCE)
            self._outflow.pump()

    def abandoned(self, transfer: Transfer) -> None:
        if not self._dotted:
            self.cut(Fault(reasons.ABANDONED))

    # --- the session ------------------------------------------------------------------------------------------------------------------

    def _await(self, seconds: float) -> None:
        self.deadline = self._clock.seconds() + seconds

    def _flush(self) -> None:
        out = self.dialogue.take()
        if out and self._tcp is not None:
            send(self._tcp, out)

    def _receive(self, data: bytes) -> None:
        if self.phase is Phase.GONE:
            return
        dialogue = self.dialogue
        answered = dialogue.answered
        step = dialogue.receive(data)
        self._flush()
        if dialogue.answered != answered and not self._outflow.active:  # octets that complete no reply buy no time
            self._await(dialogue.patience)
        if step is not Step.WAIT:
            self._STEPS[step](self)

    def _start_tls(self) -> None:
        self._handshaking = True
        self._await(HANDSHAKE_PATIENCE)
        assert self._tcp is not None
        self._tcp.startTLS(self._encryption)

    def _ready(self) -> None:
        self._most = min(self._most, self.dialogue.mail_limit or self._most)
        self.phase = Phase.IDLE
        self._opened(self, None)

    def _broken(self) -> None:
        fault = self.dialogue.fault
        self.cut(fault or Fault(reasons.UNEXPECTED))

    def _closed(self) -> None:
        assert self._tcp is not None
        self._tcp.loseConnection()

    def _end(self, fault: Fault) -> None:
        """The session is over: tell whoever waits for it, once."""
        phase, self.phase = self.phase, Phase.GONE
        self._await(CLOSE_PATIENCE)
        self._outflow.cancel()
        transfer, self.transfer = self.transfer, None
        if transfer and self._count > 1 and fault.reason is reasons.CONNECTION_LOST and self.dialogue.answered == self._answered:
            self._keeper.again(transfer)  # the session had been idle, and was dead
            transfer = None
        if phase is Phase.OPENING:
            self._opened(self, fault)
        elif phase in (Phase.IDLE, Phase.BUSY):
            self._keeper.gone(self)
        if transfer is not None:
            transfer.settle(self.peer, self.dialogue.replies, fault)

    # --- a transaction ------------------------------------------------------------------------------------------------------------------

    def _approach(self, transfer: Transfer) -> None:
        verdict = fit(transfer.request, self.dialogue, self._now())
        if isinstance(verdict, Fault):
            self._clock.callLater(0, self._misfit, transfer, verdict)  # not now: `done` would be called within `deliver`
        elif verdict.doubt:
            self._await(math.inf)
            self._clock.callLater(0, self._examine, transfer, verdict)
        else:
            self._propose(transfer, verdict)

    def _propose(self, transfer: Transfer, verdict: Fit) -> None:
        dialogue = self.dialogue
        proposal = self._proposal = propose(transfer.request, dialogue.extensions, verdict, self._now())
        dialogue.begin(proposal)
        self._flush()
        self._await(dialogue.patience)

    def _misfit(self, transfer: Transfer, fault: Fault) -> None:
        if self.transfer is transfer:
            self._finish(transfer, fault)

    def _examine(self, transfer: Transfer, verdict: Fit) -> None:
        """Read the content, as the peer lacks what the envelope says it needs."""
        looking = Deferred.fromCoroutine(all_ascii(transfer.request.content))
        looking.addCallback(lambda clean: self._examined(transfer, verdict, clean))
        looking.addErrback(lambda failure: self.cut(Fault(reasons.UNEXPECTED, str(failure.value))))

    def _examined(self, transfer: Transfer, verdict: Fit, clean: bool | None) -> None:
        if self.transfer is not transfer:
            return
        if clean:
            self._propose(transfer, verdict)
        else:
            self._finish(transfer, Fault(reasons.CONTENT_LOST) if clean is None else verdict.doubt)

    def _content(self) -> None:
        """The peer wants the data."""
        transfer = self.transfer
        assert transfer is not None
        assert self._tcp is not None
        self._await(math.inf if transfer.held else BLOCK_PATIENCE)
        chunked = self._proposal is not None and self._proposal.chunked
        self._outflow.start(transfer, self._tcp, Chunked() if chunked else Dotted())

    def moved(self) -> None:
        self.dialogue.content_sent(last=False)
        self._await(BLOCK_PATIENCE)

    def ended(self) -> None:
        self._dotted = True
        self.dialogue.content_sent()
        self._await(self.dialogue.patience)

    def unreadable(self) -> None:
        self.cut(Fault(reasons.CONTENT_LOST))

    def _transacted(self) -> None:
        transfer = self.transfer
        if transfer is None:
            return
        dialogue = self.dialogue
        if dialogue.closing and self._count > 1 and dialogue.answered == self._answered + 1:
            self._keeper.again(transfer)  # the session had been idle, and all it says is that it closes
            self._leave()
        else:
            self._finish(transfer, None)

    def _finish(self, transfer: Transfer, fault: Fault | None) -> None:
        """The transaction is over. The connection is free before the dispositions are told: they may bring the next transfer."""
        replies = self.dialogue.replies
        self.transfer = None
        if self.dialogue.closing:
            self._leave()
        elif self._count >= self._most:
            self.quit()
        else:
            self.phase = Phase.IDLE
            self._await(self.dialogue.patience)
            self._keeper.free(self)
        transfer.settle(self.peer, replies, fault, proposal=self._proposal or NOTHING)

    def _leave(self) -> None:
        """Close without QUIT. In the middle of the data only a reset keeps the rest from being read as commands."""
        assert self._tcp is not None
        self.transfer = None
        if self._outflow.active:
            self._tcp.abortConnection()
        else:
            self._tcp.loseConnection()
        self._end(Fault(reasons.CONNECTION_LOST))

    _STEPS: ClassVar[dict[Step, Callable[[Connection], None]]] = {
        Step.START_TLS: _start_tls,
        Step.READY: _ready,
        Step.CONTENT: _content,
        Step.DONE: _transacted,
        Step.BROKEN: _broken,
        Step.CLOSED: _closed,
    }
