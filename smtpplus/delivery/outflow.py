"""The message data on its way out: from the content's pieces, dot-stuffed, to the transport, one piece at a time.

Stopping holds the next piece back; what the transport has is never taken back. So that little is there, the transport has one
piece at most, and it alone decides when the next may come.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Connection as TCPConnection
from zope.interface import implementer

from smtpplus.delivery.transfer import Transfer
from smtpplus.mail.transparency import Stuffer
from smtpplus.wire import send


class Session(Protocol):
    """Who sends."""

    def moved(self) -> None:
        """A piece went to the transport."""

    def ended(self) -> None:
        """The last piece and the final dot are about to go to the transport."""

    def unreadable(self) -> None:
        """The content cannot be read. A dot now would make a whole message of the part that is there: the connection must be cut."""


@implementer(IPushProducer)
class Outflow:
    """The data of one message after the other, on one connection. `active` until the final dot is handed over or `cancel`."""

    __slots__ = (
        "_blocked",
        "_index",
        "_piece",
        "_producing",
        "_pumping",
        "_reading",
        "_session",
        "_stuffer",
        "_transfer",
        "_transport",
        "active",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self._transport: TCPConnection | None = None
        self._transfer: Transfer | None = None
        self._stuffer = Stuffer()
        self._piece: bytes | None = None
        self._index = 0  # pieces written
        self._reading = False  # a piece is asked for
        self._blocked = False  # the transport has enough
        self._pumping = False
        self._producing = False  # registered with the transport
        self.active = False

    def start(self, transfer: Transfer, transport: TCPConnection) -> None:
        """Begin to send the content of `transfer`; if it is stopped, only `pump` begins."""
        self._transport = transport
        self._transfer = transfer
        self._stuffer = Stuffer()
        self._piece = None
        self._index = 0
        self._blocked = self._reading = False
        self.active = True
        if transfer.request.content.chunks > 1:
            self._producing = True
            # Over plain TCP the transport asks for each piece; under TLS, where such asking costs a timer, it says when it has enough.
            transport.registerProducer(self, bool(transport.TLS))
        self.pump()

    def cancel(self) -> None:
        """No more: the connection is at its end."""
        self.active = False
        self._transfer = None
        self._release()

    def pump(self) -> None:
        """Write pieces while the transport takes them and nobody said stop."""
        transfer = self._transfer
        if self._pumping or transfer is None:
            return
        content = transfer.request.content
        self._pumping = True
        try:
            while self.active and not (self._reading or self._blocked or transfer.stopped):
                if self._piece is None and self._index < content.chunks:
                    self._reading = True
                    content.read(self._index, self._arrived)
                else:
                    self._write(content.chunks)
        finally:
            self._pumping = False

    def _arrived(self, piece: bytes | None) -> None:
        self._reading = False
        if not self.active:
            return
        if piece is None:
            self._session.unreadable()
            return
        self._piece = piece
        self.pump()

    def _write(self, chunks: int) -> None:
        transport = self._transport
        assert transport is not None
        data = self._stuffer.feed(self._piece or b"")
        self._piece = None
        self._index += 1
        if self._index < chunks:
            self._blocked = not transport.TLS
            self._session.moved()
            transport.write(data)
            return
        self.active = False
        self._transfer = None
        self._release()
        self._session.ended()
        send(transport, data + self._stuffer.finish())

    def _release(self) -> None:
        if self._producing and self._transport is not None:
            self._producing = False
            self._transport.unregisterProducer()

    # --- what the transport calls ------------------------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._blocked = True

    def resumeProducing(self) -> None:
        self._blocked = False
        self.pump()

    def stopProducing(self) -> None:
        """The transport is gone; its protocol hears so by itself."""
