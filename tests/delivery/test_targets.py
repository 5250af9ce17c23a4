"""Of several hosts for the same mail: what one of them says, or cannot say, decides nothing for the others."""

from __future__ import annotations

from typing import Any

from twisted.internet.ssl import Certificate

from tests.delivery.name_server import Broken, NameServer, a, mx
from tests.delivery.peer import Peer, encrypted
from tests.delivery.pem import certificate
from tests.delivery.rig import DeliveryCase, reactor, request, said


class TargetsTests(DeliveryCase):
    def served(self, records: dict[str, list[Any]], broken: tuple[str, ...] = ()) -> NameServer:
        server = NameServer(reactor, records, broken)
        self.addCleanup(server.stop)
        return server

    async def test_one_host_of_several_refuses_for_itself_alone(self) -> None:
        """5xx to a session counts if all hosts say so: not while a better one is down, or its address is not to be had."""
        server = self.served(
            {
                "down.example": [mx(10, "down-host.example"), mx(20, "no.example")],
                "lost.example": [mx(10, "lost-host.example"), mx(20, "no.example")],
                "both.example": [mx(10, "no.example"), mx(20, "never.example")],
                "down-host.example": [a("127.0.0.9")],
                "no.example": [a("127.0.0.1")],
                "never.example": [a("127.0.0.1")],
            },
            broken=("lost-host.example",),
        )
        with Peer(lambda line: line.send("554 5.7.1 not here\r\n")) as peer:
            delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=peer.port)
            found = [said(await self.send(delivery, request(f"{domain}.example")))[0][1:] for domain in ("down", "lost", "both")]
            await delivery.stop()
        assert found == [(451, "connection_refused"), (451, "session_refused"), (554, "peer_refused")]
        assert len(self.flushLoggedErrors(Broken)) == 2

    async def test_a_name_that_no_certificate_has(self) -> None:
        """A mail host whose name cannot be verified is passed over; alone it defers, and nothing of the session is left."""
        odd, fit = "mx!1.example", "my--mx_1.example"
        server = self.served(
            {"odd.example": [mx(10, odd)], "b.example": [mx(10, odd), mx(20, fit)], odd: [a("127.0.0.1")], fit: [a("127.0.0.1")]}
        )
        folder = self.folder()
        folder.mkdir()
        path = certificate(folder / "peer.pem", fit)
        with Peer(encrypted(path)) as peer:
            trust = Certificate.loadPEM(path.read_bytes())
            delivery = self.make(("*", "mx"), tls="verify", trust=trust, dns=(server.address,), mx_port=peer.port)
            found = [said(await self.send(delivery, request(f"{domain}.example")))[0][1:] for domain in ("odd", "b")]
            await delivery.stop()
        assert found == [(454, "tls_failed"), (250, "delivered")]
