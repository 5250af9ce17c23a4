"""How sessions come about: by MX, past dead hosts, never to ourselves, with and without TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet.ssl import Certificate

from smtpplus.config import Route
from smtpplus.delivery import dial
from smtpplus.delivery.opening import is_own
from smtpplus.mail.disposition import Disposition
from tests.delivery.name_server import NameServer, a, aaaa, mx
from tests.delivery.peer import TLS_EHLO, Line, Peer, encrypted, offering, plain, rubbish
from tests.delivery.pem import certificate
from tests.delivery.rig import SMALL, DeliveryCase, Pieces, cut, reactor, request, said

DELIVERED = [("bob@b.example", 250, "delivered")]


class MailExchangeTests(DeliveryCase):
    def zone(self, records: dict[str, list[Any]]) -> NameServer:
        server = NameServer(reactor, records)
        self.addCleanup(server.stop)
        return server

    async def test_delivery_by_mx(self) -> None:
        """Mail goes to the MX of its domain, past a better host that is down; the disposition names who took it."""
        server = self.zone(
            {"b.example": [mx(10, "down.example"), mx(20, "up.example")], "down.example": [a("127.0.0.2")], "up.example": [a("127.0.0.1")]}
        )
        with Peer(plain) as peer:
            delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=peer.port)
            [disposition] = await self.send(delivery, request("b.example"))
            await delivery.stop()
        assert said([disposition]) == DELIVERED
        assert disposition.peer == f"up.example[127.0.0.1]:{peer.port}"

    async def test_faults_of_dns_are_verdicts(self) -> None:
        """A null MX fails with 5.1.10, an unknown domain with 5.1.2, and all targets down defers."""
        server = self.zone({"null.example": [mx(0, "")], "down.example": [a("127.0.0.2")]})
        delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=1)
        found: list[Disposition] = []
        for domain in ("null.example", "nowhere.example", "down.example"):
            found += await self.send(delivery, request(domain))
        assert [(each.reply.code, each.reply.enhanced, each.reason) for each in found] == [
            (556, "5.1.10", "null_mx"),
            (550, "5.1.2", "no_such_domain"),
            (451, "4.4.1", "connection_refused"),
        ]

    async def test_a_smarthost_without_address_is_temporary(self) -> None:
        """A smarthost whose name does not exist defers: the slip is the operator's, and can be corrected while mail waits."""
        server = self.zone({"smart.example": [a("127.0.0.1")]})
        with Peer(plain) as peer:
            good, bad = (f"smtp://{name}.example:{peer.port}" for name in ("smart", "samrt"))
            delivery = self.make(("a.example", good), ("*", bad), dns=(server.address,))
            found = [said(await self.send(delivery, request(via))) for via in (good, bad)]
            await delivery.stop()
        assert found == [DELIVERED, [("bob@b.example", 451, "dns_failed")]]

    async def test_a_host_that_refuses_the_session_hands_over_to_the_next(self) -> None:
        """A target that greets 5xx or breaks the session is left for the next; the verdict of the last one counts."""
        server = self.zone(
            {"b.example": [mx(10, "one.example"), mx(20, "two.example")], "one.example": [a("127.0.0.1")], "two.example": [a("127.0.0.1")]}
        )
        with Peer(lambda line: line.send("554 not me\r\n"), plain) as peer:
            delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=peer.port)
            found = said(await self.send(delivery, request("b.example")))
            await delivery.stop()
        assert found == DELIVERED

    async def test_a_host_that_takes_no_mail_comes_last_for_a_while(self) -> None:
        """RFC 5321 §5.1: who takes the session and then answers MAIL with 4xx, or 421, is tried after the others at the next attempt."""
        records = {"b.example": [mx(10, "full.example"), mx(20, "spare.example")], "full.example": [a("127.0.0.1")]}
        server = self.zone({**records, "spare.example": [a("127.0.0.2")]})

        def full(line: Line) -> None:
            line.greet()
            line.until(b"DATA\r\n")
            line.send("452 4.3.1 no room\r\n503 no\r\n503 no\r\n")
            line.gone()

        def closes(line: Line) -> None:
            line.greet()
            line.until(b"DATA\r\n")
            line.send("250 ok\r\n421 4.3.2 no\r\n")

        for script, code in ((full, 452), (closes, 421)):
            for behind, host in ((300.0, "spare.example"), (0.0, "full.example")):
                self.patch(dial, "BEHIND", behind)
                with Peer(script, plain) as first, Peer(plain, host="127.0.0.2", port=first.port):
                    delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=first.port)
                    found = [await self.send(delivery, request("b.example")) for _ in range(2)]
                    await delivery.stop()
                assert [(each.reply.code, each.peer.partition("[")[0]) for (each,) in found] == [(code, "full.example"), (250, host)]

    async def test_421_to_an_idle_session_says_nothing_of_its_host(self) -> None:
        """A host that ends a session for want of work, or after so many messages, stays where it is."""
        records = {"b.example": [mx(10, "best.example"), mx(20, "spare.example")], "best.example": [a("127.0.0.1")]}
        server = self.zone({**records, "spare.example": [a("127.0.0.2")]})

        def at_once(line: Line) -> None:
            line.greet()
            line.message()
            line.send("421 4.4.2 idle\r\n")

        def at_mail(line: Line) -> None:
            line.greet()
            line.message()
            line.until(b"DATA\r\n")
            line.send("421 4.7.0 one is enough\r\n")

        for script in (at_once, at_mail):
            with Peer(script, plain) as best, Peer(plain, host="127.0.0.2", port=best.port):
                delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=best.port)
                for _ in range(2):
                    [disposition] = await self.send(delivery, request("b.example"))
                    assert (disposition.reply.code, disposition.peer.partition("[")[0]) == (250, "best.example")
                    await self.turn(0.1)
                await delivery.stop()
            assert len(best.lines) == 2

    async def test_a_host_alone_is_tried_again(self) -> None:
        """Without another host, one that took no mail keeps its connection, and is asked again on it."""
        server = self.zone({"b.example": [a("127.0.0.1")]})

        def full(line: Line) -> None:
            line.greet()
            line.until(b"DATA\r\n")
            line.send("452 4.3.1 no room\r\n503 no\r\n503 no\r\n")
            line.message()
            line.gone()

        with Peer(full) as peer:
            delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=peer.port)
            found = [await self.send(delivery, request("b.example")) for _ in range(2)]
            await delivery.stop()
        assert [each.reply.code for (each,) in found] == [452, 250]
        assert len(peer.lines) == 1

    async def test_we_are_our_own_mx(self) -> None:
        """Hosts that are ourselves, and those no better, are left out; if none is left, the message fails as a loop (RFC 5321 §5.1)."""
        server = self.zone(
            {
                "loop.example": [mx(10, "us.example"), mx(20, "backup.example")],
                "backed.example": [mx(5, "main.example"), mx(10, "us.example")],
                "us.example": [a("127.0.0.3")],
                "nobody.example": [a("0.0.0.0")],
                "mapped.example": [aaaa("::ffff:127.0.0.1")],
                "backup.example": [a("127.0.0.1")],
                "main.example": [a("127.0.0.1")],
            }
        )
        with Peer(plain) as peer:
            delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=peer.port, own={("127.0.0.3", peer.port)})
            loop = said(await self.send(delivery, request("loop.example")))
            backed = said(await self.send(delivery, request("backed.example")))
            await delivery.stop()
            delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=peer.port, own={("127.0.0.1", peer.port)})
            hidden = [said(await self.send(delivery, request(f"{name}.example"))) for name in ("nobody", "mapped")]
            await delivery.stop()
        self_loop = [("bob@b.example", 554, "self_loop")]
        assert (loop, backed, hidden) == (self_loop, DELIVERED, [self_loop] * 2)

    async def test_idle_connections_make_room(self) -> None:
        """At the limit of connections the one that is idle longest ends before another destination's is opened."""
        server = self.zone({f"d{number}.example": [a("127.0.0.1")] for number in range(4)})
        with Peer(plain) as peer:
            delivery = self.make(("*", "mx"), dns=(server.address,), mx_port=peer.port, connections=2)
            for number in range(4):
                assert said(await self.send(delivery, request(f"d{number}.example"))) == DELIVERED
            await self.until(lambda: [line.received.endswith(b"QUIT\r\n") for line in peer.lines] == [True, True, False, False])
            await delivery.stop()


class EncryptionTests(DeliveryCase):
    async def attempt(self, tls: str, *scripts: Any, trust: Certificate | None = None, content: Any = None) -> list[tuple[str, int, str]]:
        with Peer(*scripts) as self.peer:
            delivery = self.make(("*", self.peer.via), tls=tls, trust=trust)
            found = said(await self.send(delivery, request(self.peer.via, content=content)))
            await delivery.stop()
        return found

    def pem(self, *names: str) -> tuple[Path, Certificate]:
        folder = self.folder()
        folder.mkdir()
        path = certificate(folder / "peer.pem", *names)
        return path, Certificate.loadPEM(path.read_bytes())

    async def test_opportunistic_tls_takes_any_certificate(self) -> None:
        """Offered encryption is used, whoever the peer is; content of one and of many pieces arrives exactly through it."""
        path, _ = self.pem("elsewhere.example")
        large = b"Subject: x\r\n\r\n" + b".y" * 30 + (b"\r\n." + b"z" * 60) * 20_000 + b"\r\n"
        for octets in (SMALL, large):
            assert await self.attempt("opportunistic", encrypted(path), content=Pieces(cut(octets))) == DELIVERED
            taken = bytes(self.peer.lines[0].received).partition(b"DATA\r\n")[2].removesuffix(b"QUIT\r\n")
            assert taken == octets.replace(b"\r\n.", b"\r\n..") + b".\r\n"
            assert b"Subject" not in self.peer.lines[0].received.partition(b"STARTTLS\r\n")[0]

    async def test_verify_wants_the_peers_name(self) -> None:
        """verify takes a trusted certificate for the very host, and no other."""
        path, trust = self.pem("127.0.0.1")
        other, other_trust = self.pem("elsewhere.example")
        assert await self.attempt("verify", encrypted(path), trust=trust) == DELIVERED
        assert await self.attempt("verify", encrypted(other), trust=other_trust) == [("bob@b.example", 454, "tls_failed")]
        assert await self.attempt("verify", encrypted(path), trust=other_trust) == [("bob@b.example", 454, "tls_failed")]

    async def test_required_goes_nowhere_without(self) -> None:
        """required takes any certificate, and never plaintext."""
        path, _ = self.pem("elsewhere.example")
        assert await self.attempt("required", encrypted(path)) == DELIVERED
        assert await self.attempt("required", plain) == [("bob@b.example", 454, "tls_unavailable")]
        assert b"MAIL" not in self.peer.lines[0].received

    async def test_a_failed_handshake_falls_back_on_a_fresh_connection(self) -> None:
        """Opportunistic TLS that breaks is followed by plaintext on a new connection; required TLS is not."""
        assert await self.attempt("opportunistic", rubbish, offering) == DELIVERED
        assert len(self.peer.lines) == 2
        assert await self.attempt("required", rubbish, offering) == [("bob@b.example", 454, "tls_failed")]
        assert len(self.peer.lines) == 1

    async def test_plaintext_behind_starttls_is_never_read(self) -> None:
        """Octets sent in the clear behind the 220 of STARTTLS break the session."""

        def script(line: Line) -> None:
            line.greet(TLS_EHLO)
            line.command("STARTTLS")
            line.send("220 go\r\n250 evil.example\r\n")
            line.gone()

        assert await self.attempt("opportunistic", script) == [("bob@b.example", 451, "peer_broke_protocol")]

    async def test_smtps(self) -> None:
        """smtps:// is encrypted from the first octet."""
        path, _ = self.pem("127.0.0.1")

        def script(line: Line) -> None:
            line.start_tls(path)
            line.greet()
            line.message()
            line.gone()

        with Peer(script) as peer:
            via = f"smtps://127.0.0.1:{peer.port}"
            delivery = self.make(("*", via))
            found = said(await self.send(delivery, request(via)))
            await delivery.stop()
        assert found == DELIVERED

    async def test_login_with_the_password_file(self) -> None:
        """The route's user name and the content of its password file log in; a file that cannot be read defers."""

        def script(line: Line) -> None:
            line.greet("250-x\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n")
            assert line.command("AUTH") == "AUTH PLAIN AGFubgBzM2NyZXQ=\r\n"
            line.send("235 welcome\r\n")
            line.message()
            line.gone()

        folder = self.folder()
        folder.mkdir()
        (folder / "password").write_text("s3cret\n")
        with Peer(script) as peer:
            route = Route(via=peer.via, username="ann", password_file=str(folder / "password"))
            delivery = self.make(route)
            found = said(await self.send(delivery, request(delivery.router.destination("b.example"))))
            await delivery.stop()
            delivery = self.make(msgspec.structs.replace(route, password_file=str(folder / "missing")))
            missing = said(await self.send(delivery, request(delivery.router.destination("b.example"))))
            await delivery.stop()
        assert (found, missing) == (DELIVERED, [("bob@b.example", 454, "peer_login_failed")])


@pytest.mark.parametrize(
    ("address", "port", "own", "expected"),
    [
        ("192.0.2.1", 25, {("192.0.2.1", 25)}, True),
        ("192.0.2.1", 26, {("192.0.2.1", 25)}, False),
        ("127.0.0.1", 25, {("0.0.0.0", 25)}, True),
        ("::1", 25, {("::", 25)}, True),
        ("0.0.0.0", 25, {("127.0.0.1", 25)}, True),
        ("0.0.0.0", 26, {("127.0.0.1", 25)}, False),
        ("::", 25, {("::1", 25)}, True),
        ("::ffff:127.0.0.1", 25, {("127.0.0.1", 25)}, True),
        ("::ffff:0.0.0.0", 25, {("127.0.0.1", 25)}, True),
        ("::ffff:127.0.0.2", 25, {("0.0.0.0", 25)}, True),
        ("::ffff:192.0.2.1", 25, {("192.0.2.1", 25)}, True),
        ("::ffff:192.0.2.1", 25, {("0.0.0.0", 25)}, False),
        ("192.0.2.1", 25, {("0.0.0.0", 25), ("::", 25)}, False),  # not an address of this machine
    ],
)
def test_what_is_our_own(address: str, port: int, own: set[tuple[str, int]], expected: bool) -> None:
    """A target is ourselves if we listen on its address and port, or on all addresses and it is one of this machine's."""
    assert is_own(address, port, own) is expected
