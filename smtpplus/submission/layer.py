"""TLS under a session: Twisted's protocol over memory BIOs, with what it does per connection and per reply done once, and at once.

Twisted's `startTLS` makes a factory for each connection, declares a dozen interfaces, collects small writes until the next turn of the
reactor and then asks it to watch the socket, which is another turn. A session's replies are written whole already, so here what OpenSSL
has to send goes to the socket in the same call (see smtpplus.wire). Handshake, shutdown and errors are Twisted's own.
"""

from __future__ import annotations

from typing import Any

from OpenSSL.SSL import Error, WantReadError
from twisted.internet._newtls import _BypassTLS
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Server
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from smtpplus.wire import send_below

_RECORD = 16_384  # octets of content that a TLS record can have, RFC 8446 §5.1


class _Layers:
    """What TLSMemoryBIOProtocol asks of its factory; there is nothing to be counted here."""

    def registerProtocol(self, protocol: object) -> None: ...

    def unregisterProtocol(self, protocol: object) -> None: ...


_LAYERS: Any = _Layers()


class _Below(_BypassTLS):
    """The connection under the layer: what is written to it is sent at once."""

    def write(self, data: bytes) -> None:
        send_below(self._connection, data)


class Layer(TLSMemoryBIOProtocol):
    """TLS between a connection and its session."""

    def __init__(self, session: Any, tls: IOpenSSLServerConnectionCreator) -> None:
        super().__init__(_LAYERS, session, False)  # type: ignore[no-untyped-call]  # twisted has no types there
        self._tls = tls

    def makeConnection(self, transport: Any) -> None:
        """Begin the handshake."""
        self._tlsConnection = self._tls.serverConnectionForTLS(self)
        self._tlsConnection.set_accept_state()
        self._appSendBuffer: list[bytes] = []
        self.connected = 1
        self.transport = transport
        self._checkHandshakeStatus()  # type: ignore[no-untyped-call]  # twisted has no types there

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client; most are one record, which is one command line."""
        connection = self._tlsConnection
        if not self._handshakeDone or self._appSendBuffer or self._lostTLSConnection or self._aborted:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # twisted has no types there
            return
        connection.bio_write(data)
        if int.from_bytes(data[3:5], "big") + 5 == len(data):  # nothing else waits behind it
            try:
                clear = connection.recv(_RECORD)
            except (WantReadError, Error):
                pass  # not a whole record after all, no application data, or an end: found again below
            else:
                self.wrappedProtocol.dataReceived(clear)
                return
        self._flushReceiveBIO()  # type: ignore[no-untyped-call]  # twisted has no types there

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        below: Any = self.transport
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # twisted has no types there
        for name in ("getHandle", "getPeerCertificate"):  # they lead back here, and would keep all of it until the collector comes
            below._connection.__dict__.pop(name, None)


def start_tls(transport: Any, tls: IOpenSSLServerConnectionCreator) -> None:
    """Put a Layer between a server's connection and its protocol; on transports of other kinds, what they do themselves."""
    if not isinstance(transport, Server):
        transport.startTLS(tls)
        return
    producer, streaming = transport.producer, transport.streamingProducer
    if producer is not None:
        transport.unregisterProducer()
    layer = Layer(transport.protocol, tls)
    transport.protocol = layer
    transport.getHandle = layer.getHandle  # type: ignore[method-assign]  # as Twisted's own does
    transport.getPeerCertificate = layer.getPeerCertificate  # type: ignore[attr-defined]  # the same
    transport.TLS = True
    layer.makeConnection(_Below(FileDescriptor, transport))  # type: ignore[no-untyped-call]  # twisted has no types there
    if producer is not None:
        transport.registerProducer(producer, streaming)
