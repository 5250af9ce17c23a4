"""One connection to a next hop: moves octets between a `Dialogue` and the transport, and opens, uses and ends the session.

What is asked of the peer for a message is delivery.transaction. The kernel is asked to hold little unsent, so that a stop takes effect
at once.
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

import msgspec
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
from smtpplus.delivery.keeper import Keeper
from smtpplus.delivery.terms import Step
from smtpplus.delivery.transaction import Transaction
from smtpplus.delivery.transfer import NOTHING, Transfer
from smtpplus.mail import reasons
from smtpplus.right_of_way import Favour
from smtpplus.wire import send

UNSENT = 131_072  # octets the kernel may hold that are not on the wire yet (TCP_NOTSENT_LOWAT)
HANDSHAKE_PATIENCE = 120.0  # seconds for the TLS handshake, ours
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
        spare: bool = False,
        favour: Favour | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.peer = peer
        self.dialogue = dialogue
        self.phase = Phase.OPENING
        self.deadline = math.inf  # of clock.seconds()
        self.transaction = Transaction(self, clock, now)
        self._clock = clock
        self._encryption = encryption
        self._keeper = keeper
        self._opened = opened
        self._most = most  # transactions
        self._favour = favour  # see right_of_way
        self._spare = spare  # there are other hosts for the same mail
        self._count = 0  # transactions begun
        self._handshaking = False
        self._tcp: TCPConnection | None = None

    # --- Twisted's side ---------------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        try:
            self._begin_session()
        except Exception:
            self._stumble()

    def _begin_session(self) -> None:
        transport = self._tcp = cast(TCPConnection, self.transport)  # as connectTCP makes it
        transport.setTcpNoDelay(True)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            transport.getHandle().setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        self.allow(self.dialogue.patience)
        if self.dialogue.secure:
            self._start_tls()

    def dataReceived(self, data: bytes) -> None:
        try:
            self._receive(data)
        except Exception:
            self._stumble()

    def _stumble(self) -> None:
        self._log.failure("delivery to {peer} failed", peer=self.peer)
        self.cut(Fault(reasons.UNEXPECTED))

    def handshakeCompleted(self) -> None:
        self._handshaking = False
        self.dialogue.secured()
        self.flush()
        self.allow(self.dialogue.patience)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        cause = "the peer closed it" if reason.check(ConnectionDone) else str(reason.value) or type(reason.value).__name__
        if self._handshaking:
            self._end(Fault(reasons.TLS_FAILED, cause))
            return
        where = "" if self.transaction.dotted else f", waiting for the answer to {self.dialogue.awaited}"
        self._end(Fault(reasons.CONNECTION_LOST, cause + where))

    @property
    def is_open(self) -> bool:
        """Whether the peer had the session, and has it still."""
        return self.phase in (Phase.IDLE, Phase.BUSY)

    # --- the pool's side ----------------------------------------------------------------------------------------------------------

    def begin(self, transfer: Transfer) -> None:
        """Begin a transaction. The connection must be idle. Never raises."""
        self.phase = Phase.BUSY
        self._count += 1
        self.transaction.begin(transfer)
        if transfer.request.urgent and self._favour is not None and self._tcp is not None:
            self._favour(self._tcp, lambda: self.transaction.transfer is transfer)

    def quit(self) -> None:
        """End an idle session politely."""
        self.phase = Phase.LEAVING
        self._keeper.gone(self)
        self.dialogue.quit()
        self.flush()
        self.allow(CLOSE_PATIENCE)

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

    # --- the transaction's side -----------------------------------------------------------------------------------------------------

    def allow(self, seconds: float) -> None:
        self.deadline = self._clock.seconds() + seconds

    def flush(self) -> None:
        out = self.dialogue.take()
        if out and self._tcp is not None:
            send(self._tcp, out)

    def held(self) -> None:
        self._keeper.held(self)

    def misfit(self, transfer: Transfer, fault: Fault | None) -> None:
        self._finish(transfer, fault)

    # --- the session ------------------------------------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        if self.phase is Phase.GONE:
            return
        dialogue = self.dialogue
        answered = dialogue.answered
        step = dialogue.receive(data)
        self.flush()
        if dialogue.answered != answered and not self.transaction.flowing:  # octets that complete no reply buy no time
            self.allow(dialogue.patience)
        if step is not Step.WAIT:
            self._STEPS[step](self)

    def _start_tls(self) -> None:
        self._handshaking = True
        self.allow(HANDSHAKE_PATIENCE)
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
        self.allow(CLOSE_PATIENCE)
        transfer = self.transaction.leave()
        if self.transaction.dotted:
            fault = msgspec.structs.replace(fault, doubtful=True)
        if transfer and self._count > 1 and fault.reason is reasons.CONNECTION_LOST and not self.transaction.answers:
            self._keeper.again(transfer)  # the session had been idle, and was dead
            transfer = None
        if phase is Phase.OPENING:
            self._opened(self, fault)
        elif phase in (Phase.IDLE, Phase.BUSY):
            self._keeper.gone(self)
        if transfer is not None:
            transfer.settle(self.peer, self.dialogue.replies, fault)

    # --- a transaction ------------------------------------------------------------------------------------------------------------------

    def _content(self) -> None:
        assert self._tcp is not None
        self.transaction.send(self._tcp)

    def _transacted(self) -> None:
        transfer = self.transaction.transfer
        if transfer is None:
            return
        if self.dialogue.closing and self._count > 1 and self.transaction.answers == 1:
            self.dialogue.unwilling = False
            self._keeper.again(transfer)  # the session had been idle, and all it says is that it closes
            self._leave()
        elif self.transaction.is_part():
            self._go_on(transfer)
        else:
            self._finish(transfer, self.transaction.refusal)

    def _go_on(self, transfer: Transfer) -> None:
        """The transfer wants another transaction: here, unless the session is over or somebody more urgent waits."""
        if transfer.given_up:
            self._finish(transfer, Fault(reasons.ABANDONED))
            return
        self.transaction.leave()
        if self.dialogue.closing:
            self._keeper.again(transfer)
            self._leave()
        elif self._count >= self._most:
            self._keeper.again(transfer)
            self.quit()
        else:
            self._rest()
            self._keeper.unfinished(self, transfer)

    def _rest(self) -> None:
        self.phase = Phase.IDLE
        self.allow(self.dialogue.patience)

    def _finish(self, transfer: Transfer, fault: Fault | None) -> None:
        """The transaction is over. The connection is free before the dispositions are told: they may bring the next transfer."""
        replies, proposal = self.dialogue.replies, self.transaction.proposal
        if self.dialogue.closing:
            self._leave()
        else:
            self.transaction.leave()
            if self._count >= self._most or (self._spare and self.dialogue.unwilling):
                self.quit()
            else:
                self._rest()
                self._keeper.free(self)
        transfer.settle(self.peer, replies, fault, proposal=proposal or NOTHING)

    def _leave(self) -> None:
        """Close without QUIT. In the middle of the data only a reset keeps the rest from being read as commands."""
        assert self._tcp is not None
        if self.transaction.flowing:
            self._tcp.abortConnection()
        else:
            self._tcp.loseConnection()
        self.transaction.leave()
        self._end(Fault(reasons.CONNECTION_LOST))

    _STEPS: ClassVar[dict[Step, Callable[[Connection], None]]] = {
        Step.START_TLS: _start_tls,
        Step.READY: _ready,
        Step.CONTENT: _content,
        Step.DONE: _transacted,
        Step.BROKEN: _broken,
        Step.CLOSED: _closed,
    }
