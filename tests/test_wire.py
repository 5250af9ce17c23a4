"""Writing at once: octets leave in order whatever the socket takes."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from smtpplus.wire import send
from tests.turns import no_connection, until

reactor: Any = _reactor


class WireTests(TestCase):
    timeout = 30

    def connect(self) -> tuple[Deferred[Protocol], socket.socket]:
        """Our side as a protocol on a small send buffer, the other side as a plain socket."""
        made: Deferred[Protocol] = Deferred()

        class Ours(Protocol):
            def connectionMade(self) -> None:
                made.callback(self)

        port = reactor.listenTCP(0, Factory.forProtocol(Ours), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        other = socket.create_connection(("127.0.0.1", port.getHost().port))
        self.addCleanup(other.close)
        return made, other

    async def test_small_writes_leave_at_once(self) -> None:
        """What the socket takes is sent before `send` returns, without a turn of the reactor."""
        made, other = self.connect()
        transport = (await made).transport
        assert transport is not None
        send(transport, b"one ")
        send(transport, b"two")
        assert other.recv(100) == b"one two"
        transport.loseConnection()
        await until(no_connection)

    async def test_order_is_kept_when_the_socket_is_full(self) -> None:
        """What does not fit waits with the transport, and later writes queue behind it."""
        made, other = self.connect()
        transport = (await made).transport
        assert transport is not None
        parts = [bytes([number]) * 300_000 for number in range(20)]
        for part in parts:
            send(transport, part)
        transport.loseConnection()
        other.setblocking(False)
        received = b""
        while True:
            try:
                data = other.recv(1 << 20)
            except BlockingIOError:
                await deferLater(reactor, 0, lambda: None)
                continue
            if not data:
                break
            received += data
        assert received == b"".join(parts)

    async def test_a_broken_connection_is_no_exception(self) -> None:
        """To a peer that has reset the connection `send` does not raise: connectionLost follows."""
        made, other = self.connect()
        protocol = await made
        lost: Deferred[None] = Deferred()

        def gone(reason: Failure = connectionDone) -> None:
            lost.callback(None)

        protocol.connectionLost = gone  # type: ignore[method-assign]  # what the reactor calls
        transport = protocol.transport
        assert transport is not None
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        other.close()
        send(transport, b"x")
        send(transport, b"y")
        await lost
        send(transport, b"z")

    def test_other_transports_are_written_to(self) -> None:
        """A transport that is no TCP connection gets `write`."""
        transport = StringTransport()
        send(transport, b"x")
        assert transport.value() == b"x"
