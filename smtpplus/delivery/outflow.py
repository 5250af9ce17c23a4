"""The message data on its way out: from the content's pieces, dot-stuffed or as chunks, to the transport, one piece at a time.

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
        """A piece, not the last one, goes to the transport."""

    def ended(self) -> None:
        """The last piece, with the final dot or as the last chunk, is about to go to the transport."""

    def unreadable(self) -> None:
        """The content cannot be read. A dot now would make a whole message of the part that is there: the connection must be cut."""


class Framing(Protocol):
    """What makes pieces of content what goes over the wire."""

    def frame(self, piece: bytes, last: bool) -> bytes: ...


class Dotted:
    """For DATA (RFC 5321 §4.5.2)."""

    __slots__ = ("_stuffer",)

    def __init__(self) -> None:
        self._stuffer = Stuffer()

    def frame(self, piece: bytes, last: bool) -> bytes:
        """The piece dot-stuffed, the last one with the final dot."""
        data = self._stuffer.feed(piece)
        return data + self._stuffer.finish() if last else data


class Chunked:
    """For BDAT: a chunk for each piece (RFC 3030 §2). A last line without an end gets one, as it does by DATA."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def frame(self, piece: bytes, last: bool) -> bytes:
        """The command and the piece."""
        if not last:
            self._tail = (self._tail + piece[-2:])[-2:]
            return b"BDAT %d\r\n%b" % (len(piece), piece)
        end = b"" if (self._tail + piece[-2:])[-2:] == b"\r\n" else b"\r\n"
        return b"BDAT %d LAST\r\n%b%b" % (len(piece) + len(end), piece, end)


@implementer(IPushProducer)
class Outflow:
    """The data of one message after the other, on one connection. `active` until the final dot is handed over or `cancel`."""

    __slots__ = (
        "_blocked",
        "_framing",
        "_index",
        "_piece",
        "_producing",
        "_pumping",
        "_reading",
        "_session",
        "_transfer",
        "_transport",
        "active",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self._transport: TCPConnection | None = None
        self._transfer: Transfer | None = None
        self._framing: Framing = Dotted()
        self._piece: bytes | None = None
        self._index = 0  # pieces written
        self._reading = False  # a piece is asked for
        self._blocked = False  # the transport has enough
        self._pumping = False
        self._producing = False  # registered with the transport
        self.active = False

    def start(self, transfer: Transfer, transport: TCPConnection, framing: Framing, first: bytes | None) -> None:
        """Begin to send the content of `transfer`, whose `first` piece was read before; if it is stopped, only `pump` begins."""
        self._transport = transport
        self._transfer = transfer
        self._framing = framing
        self._piece = first
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

    @property
    def written(self) -> int:
        """Pieces with the transport."""
        return self._index if self.active else 0

    def pump(self) -> None:
        """Write pieces while the transport takes them and nobody said stop."""
        transfer = self._transfer
        if self._pumping or transfer is None:
            return
        content = transfer.request.content
        self._pumping = True
        try:
            while self.active and not (self._reading or self._blocked or transfer.held):
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
        self._index += 1
        last = self._index >= chunks
        data = self._framing.frame(self._piece or b"", last)
        self._piece = None
        if not last:
            self._blocked = not transport.TLS
            self._session.moved()
            transport.write(data)
            return
        self.active = False
        self._transfer = None
        self._release()
        self._session.ended()
        send(transport, data)

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
