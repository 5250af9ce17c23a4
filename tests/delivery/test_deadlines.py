"""Time limits of RFC 5321 §4.5.3.2, with a clock that can be put ahead: who keeps us waiting too long is cut off."""

from __future__ import annotations

import random
import threading
from typing import Any

from smtpplus.client_tls import Contexts
from smtpplus.delivery.dial import Dialer, Manner
from smtpplus.delivery.pool import Pool
from smtpplus.delivery.resolver import Resolver
from smtpplus.delivery.routing import Hop, Way
from smtpplus.delivery.terms import Awaited
from smtpplus.delivery.transaction import BLOCK_PATIENCE
from smtpplus.delivery.transfer import Done, Transfer
from smtpplus.mail.disposition import Disposition, Request
from smtpplus.mail.envelope import Envelope
from tests.delivery.peer import EHLO, Line, Peer
from tests.delivery.rig import DeliveryCase, Pieces, Underway, cut, reactor, request, said

LATE = [("bob@b.example", 451, "connection_timed_out")]


class Ahead:
    """The reactor, `ahead` seconds in the future as far as it is asked for the time."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def seconds(self) -> float:
        return float(reactor.seconds()) + self.ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class Agent:
    """A pool for one peer on a clock of its own."""

    def __init__(self, port: int, tls: str) -> None:
        self.clock = Ahead()
        reactor_like: Any = self.clock
        resolver = Resolver(reactor=reactor_like, servers=[("127.0.0.1", 9)], random=random.Random(1))
        manner = Manner("relay.example", tls, set(), 100, 100)
        self.dialer = Dialer(reactor=self.clock, resolver=resolver, contexts=Contexts(), manner=manner)
        self.emptied = 0
        self.pool = Pool(Hop("hop", Way.SMTP, "127.0.0.1", port), self.dialer, self._empty)

    def _empty(self, pool: Pool) -> None:
        self.emptied += 1

    def deliver(self, request: Request, done: Done, taken: Done | None = None) -> Transfer:
        transfer = Transfer(request, done, self.pool)
        self.pool.take(transfer)
        return transfer

    def prepare(self, envelope: Envelope, destination: str) -> None:
        self.pool.prepare(envelope.level)

    def later(self, seconds: float) -> None:
        """Let that much time pass, and sweep."""
        self.clock.ahead += seconds
        self.dialer.sweep()


class DeadlineTests(DeliveryCase):
    def agent(self, peer: Peer, tls: str = "none") -> Agent:
        agent = Agent(peer.port, tls)
        self.addCleanup(agent.dialer.stop, 1.0)
        return agent

    async def waiting(self, agent: Agent, peer: Peer, sent: bytes, content: Any = None) -> Underway:
        """A transfer whose peer has got `sent` last."""
        underway = Underway(agent, request("hop", content=content))
        await self.until(lambda: peer.lines and peer.lines[0].received.endswith(sent))
        return underway

    async def found(self, underway: Underway) -> list[tuple[str, int, str]]:
        dispositions: list[Disposition] = await underway.ended
        return said(dispositions)

    async def test_each_wait_has_its_limit(self) -> None:
        """Over sockets: greeting, EHLO, MAIL and RCPT may take 5 minutes, DATA 2, the final dot 10, and no less (RFC 5321 §4.5.3.2)."""

        def no_greeting(line: Line) -> None:
            line.gone()

        def no_ehlo(line: Line) -> None:
            line.send("220 x\r\n")
            line.until(b"EHLO relay.example\r\n")
            line.gone()

        def no_mail(line: Line) -> None:
            line.greet()
            line.gone()

        def no_rcpt(line: Line) -> None:
            line.greet(EHLO.replace("250-PIPELINING\r\n", ""))
            line.command("MAIL")
            line.send("250 ok\r\n")
            line.gone()

        def no_data(line: Line) -> None:
            line.greet(EHLO.replace("250-PIPELINING\r\n", ""))
            for verb in ("MAIL", "RCPT"):
                line.command(verb)
                line.send("250 ok\r\n")
            line.gone()

        def no_final(line: Line) -> None:
            line.greet()
            line.envelope()
            line.gone()

        for script, sent, limit in (
            (no_greeting, b"", 300.0),
            (no_ehlo, b"example\r\n", 300.0),
            (no_mail, b"DATA\r\n", 300.0),
            (no_rcpt, b"RCPT TO:<bob@b.example>\r\n", 300.0),
            (no_data, b"\r\nDATA\r\n", 120.0),
            (no_final, b"\r\n.\r\n", 600.0),
        ):
            with Peer(script) as peer:
                agent = self.agent(peer)
                underway = await self.waiting(agent, peer, sent)
                await self.until(lambda agent=agent: agent.dialer.live)
                agent.later(limit - 5.0)
                await self.turn(0.05)
                assert underway.calls == 0, script
                agent.later(5.1)
                assert await self.found(underway) == LATE
                await self.until(lambda agent=agent: not agent.dialer.live)
                assert agent.emptied == 1

    def test_the_limits_of_the_rfc(self) -> None:
        """RFC 5321 §4.5.3.2.1 to .6, minute by minute, and what else a session waits for."""
        assert {each.name: each.patience / 60 for each in Awaited} == {
            "GREETING": 5,
            "EHLO": 5,
            "HELO": 5,
            "STARTTLS": 2,
            "AUTH": 3,
            "RSET": 1,
            "MAIL": 5,
            "RCPT": 5,
            "DATA": 2,
            "CHUNK": 10,
            "FINAL": 10,
            "QUIT": 10 / 60,
            "NOTHING": 0.5,
        }
        assert BLOCK_PATIENCE / 60 == 3

    async def test_a_handshake_has_its_limit(self) -> None:
        """A peer that keeps silent behind STARTTLS is cut off after two minutes; where TLS is required the message waits."""

        def script(line: Line) -> None:
            line.greet(EHLO.replace("250-PIPELINING", "250-STARTTLS\r\n250-PIPELINING"))
            line.command("STARTTLS")
            line.send("220 go\r\n")
            line.gone()

        with Peer(script) as peer:
            agent = self.agent(peer, tls="required")
            underway = Underway(agent, request("hop"))
            await self.until(lambda: peer.lines and b"\x16\x03" in peer.lines[0].received)
            agent.later(119.0)
            await self.turn(0.05)
            assert underway.calls == 0
            agent.later(1.1)
            assert await self.found(underway) == [("bob@b.example", 454, "tls_failed")]
            await self.until(lambda: not agent.dialer.live)

    async def test_octets_that_complete_no_reply_buy_no_time(self) -> None:
        """A peer that drips octets is cut off as one that says nothing."""

        begun = threading.Event()

        def script(line: Line) -> None:
            line.send("220-wait\r\n220-")
            begun.set()
            line.gone()

        with Peer(script) as peer:
            agent = self.agent(peer)
            underway = await self.waiting(agent, peer, b"")
            await self.until(lambda: agent.dialer.live and begun.is_set())
            agent.clock.ahead = 200.0
            peer.lines[0].send("still\r\n220-")
            await self.turn(0.1)
            agent.later(101.0)
            assert await self.found(underway) == LATE
            await self.until(lambda: not agent.dialer.live)

    async def test_an_idle_session_ends_with_quit(self) -> None:
        """A session without work for 30 seconds says goodbye."""

        def script(line: Line) -> None:
            line.greet()
            line.message()
            line.gone()

        with Peer(script) as peer:
            agent = self.agent(peer)
            underway = await self.waiting(agent, peer, b"\r\n.\r\n")
            assert (await self.found(underway))[0][1] == 250
            agent.later(29.0)
            assert agent.dialer.idle
            agent.later(1.1)
            await self.until(lambda: peer.lines[0].received.endswith(b"QUIT\r\n") and not agent.dialer.live)
            assert agent.emptied == 1

    async def test_our_own_stop_is_not_the_peers_delay(self) -> None:
        """A stopped transfer has no deadline; when it goes on, a peer that takes no data for 3 minutes is cut off. A27."""

        holding = threading.Event()

        def script(line: Line) -> None:
            line.greet()
            line.envelope()
            line.until(b"Subject")
            holding.wait(20)

        with Peer(script) as peer:
            agent = self.agent(peer)
            underway = Underway(agent, request("hop", content=Pieces(cut(b"Subject: x\r\n\r\n" + b"y" * 60_000_000))))
            await self.until(lambda: peer.lines and b"Subject" in peer.lines[0].received)
            await self.turn(0.2)
            assert underway.transfer.stop()
            agent.later(3600.0)
            await self.turn(0.05)
            assert underway.calls == 0
            underway.transfer.go()
            agent.later(175.0)
            await self.turn(0.05)
            assert underway.calls == 0
            agent.later(5.1)
            assert await self.found(underway) == LATE
            holding.set()
