"""Which address is connected to, from which, and for how many messages; mail that requires TLS has sessions of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.ssl import Certificate
from twisted.names import dns as dns_types
from twisted.trial.unittest import SkipTest

from smtpplus.config import Route
from smtpplus.delivery import opening, questions
from tests.delivery.name_server import NameServer, a, aaaa, mx
from tests.delivery.peer import EHLO, Line, Peer, encrypted, plain
from tests.delivery.pem import certificate
from tests.delivery.rig import DeliveryCase, Underway, reactor, request, said

DELIVERED = [("bob@b.example", 250, "delivered")]


@contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """An address where connecting hangs: a listener whose backlog is full."""
    with socket.socket() as listening:
        listening.bind((host, port))
        listening.listen(0)
        waiting = []
        for _ in range(3):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex((host, port))
            waiting.append(each)
        try:
            yield
        finally:
            for each in waiting:
                each.close()


class QuestionTests(DeliveryCase):
    async def test_urgent_mail_hurries_what_was_asked_for_bulk(self) -> None:
        """A27: urgent mail to a host of which bulk, stopped since, had asked takes over that question, and the place in front of others."""
        self.patch(questions, "AT_ONCE", 1)
        server = NameServer(reactor, {f"d{number}.example": [mx(10, "127.0.0.1")] for number in range(4)})
        self.addCleanup(server.stop)
        server.zone.held = {("d0.example", dns_types.MX)}
        with Peer(plain) as peer:
            delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=peer.port)
            bulk = [Underway(delivery, request(f"d{number}.example")) for number in range(4)]
            for each in bulk:
                assert each.transfer.stop()
            urgent = self.sending(delivery, request("d3.example", level=1))
            await self.turn(0.1)
            server.zone.release()
            assert said(await urgent) == DELIVERED
            bulk.pop().transfer.abandon()
            for each in bulk:
                each.transfer.go()
                assert said(await each.ended) == DELIVERED
            await delivery.stop()
        assert [name for name, kind in server.zone.questions if kind == dns_types.MX] == [f"d{number}.example" for number in (0, 3, 1, 2)]


class RaceTests(DeliveryCase):
    def zone(self, records: dict[str, list[Any]]) -> tuple[str, int]:
        server = NameServer(reactor, records)
        self.addCleanup(server.stop)
        return server.address

    async def test_a_silent_address_does_not_hold_up_the_next(self) -> None:
        """RFC 8305: while the first address of a host does not answer, the next is tried; then the first is called off."""
        self.patch(opening, "CONNECT_PATIENCE", 600.0)  # longer than the test may take
        dns = self.zone({"b.example": [mx(10, "host.example")], "host.example": [a("127.0.0.2"), a("127.0.0.1")]})
        with Peer(plain) as peer, silent("127.0.0.2", peer.port):
            delivery = self.make(("*", "mx"), dns=(dns,), mx_port=peer.port)
            [disposition] = await self.send(delivery, request("b.example"))
            assert disposition.peer == f"host.example[127.0.0.1]:{peer.port}"
            await delivery.stop()
        assert len(peer.lines) == 1

    async def test_a_better_host_is_waited_for(self) -> None:
        """Hosts are not raced: a worse one hears nothing while the better one is only slow to answer."""
        dns = self.zone(
            {
                "b.example": [mx(10, "slow.example"), mx(20, "worse.example")],
                "slow.example": [a("127.0.0.2")],
                "worse.example": [a("127.0.0.1")],
            }
        )
        with Peer(plain) as peer:
            self.patch(opening, "CONNECT_PATIENCE", 1.0)
            with silent("127.0.0.2", peer.port):
                delivery = self.make(("*", "mx"), dns=(dns,), mx_port=peer.port)
                sending = self.sending(delivery, request("b.example"))
                await self.turn(3 * opening.STAGGER)
                assert not peer.lines
                assert said(await sending) == DELIVERED
                await delivery.stop()

    async def test_families_take_turns(self) -> None:
        """RFC 8305 §4: IPv6 and IPv4 addresses of a host are tried by turns; a family that is not there costs nothing."""
        dns = self.zone({"host.example": [a("127.0.0.2"), a("127.0.0.1"), aaaa("::2"), aaaa("::3"), aaaa("::4")]})
        with Peer(plain) as peer:
            delivery = self.make(("*", f"smtp://host.example:{peer.port}"), dns=(dns,))
            found = await delivery.resolver.addresses("host.example")
            assert isinstance(found, tuple)
            assert [each.address for each in found] == ["::2", "127.0.0.2", "::3", "127.0.0.1", "::4"]
            assert said(await self.send(delivery, request(delivery.router.destination("b.example")))) == DELIVERED
            await delivery.stop()

    async def test_ipv6_goes_first_and_ipv4_is_there_for_it(self) -> None:
        """C3, RFC 8305: of a host with both families IPv6 gets the message, or IPv4 if nobody is there; a literal is as good as a name."""
        try:
            six = Peer(plain, plain, host="::1")
        except OSError:
            raise SkipTest("this machine has no IPv6") from None
        dns = self.zone({"b.example": [mx(10, "host.example")], "host.example": [a("127.0.0.1"), aaaa("::1")]})
        with six, Peer(plain, port=six.port) as four:
            delivery = self.make(("*", "mx"), dns=(dns,), mx_port=six.port)
            found = [await self.send(delivery, request(domain)) for domain in ("b.example", "[IPv6:::1]")]
            await delivery.stop()
            assert [each.peer for (each,) in found] == [f"{host}[::1]:{six.port}" for host in ("host.example", "[IPv6:::1]")]
            assert not four.lines
        with Peer(plain, port=six.port):
            delivery = self.make(("*", "mx"), dns=(dns,), mx_port=six.port)
            [disposition] = await self.send(delivery, request("b.example"))
            assert disposition.peer == f"host.example[127.0.0.1]:{six.port}"
            await delivery.stop()

    async def test_an_opening_is_abandoned_in_the_middle_of_a_race(self) -> None:
        """`stop` ends both connections on their way, and the message is deferred."""
        dns = self.zone({"host.example": [a("127.0.0.2"), a("127.0.0.3")]})
        with Peer(plain) as peer, silent("127.0.0.2", peer.port), silent("127.0.0.3", peer.port):
            delivery = self.make(("*", f"smtp://host.example:{peer.port}"), dns=(dns,))
            sending = self.sending(delivery, request(delivery.router.destination("b.example")))
            await self.turn(2 * opening.STAGGER)
            await delivery.stop()
            assert said(await sending) == [("bob@b.example", 451, "abandoned")]


class SourceTests(DeliveryCase):
    async def test_a_route_has_its_source(self) -> None:
        """The next hop sees the source address of the route."""
        seen: list[str] = []

        def script(line: Line) -> None:
            seen.append(line.socket.getpeername()[0])
            plain(line)

        with Peer(script) as peer:
            for source in ((), ("127.0.0.5",), ("::1", "127.0.0.6")):
                delivery = self.make(Route(via=peer.via, source=source))
                assert said(await self.send(delivery, request(delivery.router.destination("b.example")))) == DELIVERED
                await delivery.stop()
        assert seen == ["127.0.0.1", "127.0.0.5", "127.0.0.6"]

    async def test_a_source_that_cannot_be_used_defers(self) -> None:
        """An address that is not ours, or of the wrong family, is the operator's slip: the mail waits."""
        with Peer(plain) as peer:
            for source in ("192.0.2.1", "::1"):
                delivery = self.make(Route(via=peer.via, source=(source,)))
                found = await self.send(delivery, request(delivery.router.destination("b.example")))
                assert said(found) == [("bob@b.example", 451, "source_unfit")]
                await delivery.stop()
        assert not peer.lines


class MessagesTests(DeliveryCase):
    async def test_a_connection_carries_what_is_set_and_what_the_peer_allows(self) -> None:
        """`messages_per_connection`, and MAILMAX of the peer if that is less (RFC 9422 §4), end a connection with QUIT."""
        for offers, most, expected in (
            (EHLO, 2, [2, 2, 1]),
            (EHLO.replace("250-SIZE", "250-LIMITS RCPTMAX=9 MAILMAX=1\r\n250-SIZE"), 2, [1] * 5),
        ):

            def script(line: Line, offers: str = offers) -> None:
                line.greet(offers)
                while b"QUIT" not in line.buffer:
                    line.message()
                    while not line.buffer and line.read():
                        pass
                line.gone()

            with Peer(script) as peer:
                delivery = self.make(("*", peer.via), messages=most)
                for _ in range(5):
                    assert said(await self.send(delivery, request(peer.via))) == DELIVERED
                await delivery.stop()
            assert [line.received.count(b"MAIL FROM") for line in peer.lines] == expected
            assert all(line.received.endswith(b"QUIT\r\n") for line in peer.lines)


class RequireTLSTests(DeliveryCase):
    async def test_mail_that_requires_tls_has_verified_sessions(self) -> None:
        """REQUIRETLS goes to a smarthost over TLS that is verified although the route is opportunistic, apart from other mail."""
        path = certificate(Path(self.mktemp()).absolute(), "127.0.0.1")
        trust = Certificate.loadPEM(path.read_bytes())

        with Peer(encrypted(path, EHLO.replace("250-PIPELINING", "250-REQUIRETLS\r\n250-PIPELINING"))) as peer:
            delivery = self.make(("*", peer.via), tls="opportunistic", trust=trust)
            for require in (True, False):
                assert said(await self.send(delivery, request(peer.via, require_tls=require))) == DELIVERED
            await delivery.stop()
            distrusting = self.make(("*", peer.via), tls="opportunistic")
            assert said(await self.send(distrusting, request(peer.via, require_tls=True))) == [("bob@b.example", 454, "tls_failed")]
            await distrusting.stop()
        assert len(peer.lines) == 3
        assert [b" REQUIRETLS\r\n" in line.received for line in peer.lines[:2]] == [True, False]

    async def test_by_mx_it_goes_nowhere(self) -> None:
        """RFC 8689 §4.2.1: MX records that nothing authenticates are no way for such mail, at once and for good, and the reply says so."""
        delivery = self.make(("*", "mx"))
        found = await self.send(delivery, request("b.example", require_tls=True))
        assert [str(each.reply) for each in found] == [
            "554 5.7.30 b.example gets no message that requires TLS: its mail hosts are found by MX records, which nobody authenticates; "
            "send it without REQUIRETLS, or give the domain a [[route]] to a host that offers it"
        ]

    async def test_a_notification_goes_without(self) -> None:
        """RFC 8689 §5: what comes from the null reverse-path is not lost for want of REQUIRETLS, by MX or to a smarthost without TLS."""
        server = NameServer(reactor, {"b.example": [mx(10, "host.example")], "host.example": [a("127.0.0.1")]})
        self.addCleanup(server.stop)
        with Peer(plain) as peer:
            for via in ("mx", peer.via):
                delivery = self.make(("*", via), dns=(server.address,), mx_port=peer.port)
                wanted = request(delivery.router.destination("b.example"), sender="", require_tls=True)
                assert said(await self.send(delivery, wanted)) == DELIVERED
                await delivery.stop()
        assert len(peer.lines) == 2
        assert not any(b"REQUIRETLS" in line.received for line in peer.lines)

    async def test_a_route_has_its_own_encryption(self) -> None:
        """`tls` of a route counts more than that of [delivery]."""
        with Peer(plain) as peer:
            delivery = self.make(Route(via=peer.via, tls="none"), tls="verify")
            assert said(await self.send(delivery, request(delivery.router.destination("b.example")))) == DELIVERED
            await delivery.stop()
            strict = self.make(msgspec.structs.replace(Route(via=peer.via), tls="required"), tls="none")
            assert said(await self.send(strict, request(strict.router.destination("b.example"))))[0][2] == "tls_unavailable"
            await strict.stop()
