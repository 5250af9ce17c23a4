"""Peers that misbehave, over real sockets: each ends in the exact dispositions, once, and leaves nothing behind."""

from __future__ import annotations

import socket

from smtpplus.delivery import dial
from smtpplus.delivery.terms import Awaited
from tests.delivery.peer import EHLO, Line, Peer, plain
from tests.delivery.rig import SMALL, DeliveryCase, Pieces, Underway, cut, request, said

LATER = ("bob@b.example", 451)


class HostileTests(DeliveryCase):
    async def found(self, *scripts: object, times: int = 1, content: Pieces | None = None) -> list[tuple[str, int, str]]:
        """What is said of messages sent one after another to a peer that plays the scripts; `self.texts` has the words."""
        self.texts = []
        verdicts = []
        with Peer(*scripts) as self.peer:  # type: ignore[arg-type]  # tests write scripts as plain functions
            delivery = self.make(("*", self.peer.via))
            for _ in range(times):
                dispositions = await self.send(delivery, request(self.peer.via, content=content))
                verdicts += said(dispositions)
                self.texts += [str(each.reply) for each in dispositions]
            await delivery.stop()
        return verdicts

    async def test_refuses_the_connection(self) -> None:
        """Nobody listens: deferred, with nobody as the peer, and the reply says who refused."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        delivery = self.make(("*", f"smtp://127.0.0.1:{port}"))
        [disposition] = await self.send(delivery, request(f"smtp://127.0.0.1:{port}"))
        assert said([disposition]) == [(*LATER, "connection_refused")]
        assert (disposition.peer, f"127.0.0.1[127.0.0.1]:{port} refuses" in disposition.reply.text) == ("", True)

    async def test_greets_554(self) -> None:
        """A greeting that refuses is the peer's verdict."""
        assert await self.found(lambda line: line.send("554 5.3.2 no mail here\r\n")) == [("bob@b.example", 554, "peer_refused")]
        assert self.texts == ["554 5.3.2 no mail here"]

    async def test_3xx_before_the_session_stands(self) -> None:
        """354 or 334 to the greeting, EHLO or HELO takes nothing: the message is deferred, never taken for delivered."""

        def greets(line: Line) -> None:
            line.send("354 go ahead\r\n")
            line.gone()

        def ehlo(line: Line) -> None:
            line.send("220 x\r\n")
            line.command("EHLO")
            line.send("334 \r\n")
            line.gone()

        def helo(line: Line) -> None:
            line.send("220 x\r\n")
            line.command("EHLO")
            line.send("500 what\r\n")
            line.command("HELO")
            line.send("354 go\r\n")
            line.gone()

        for script in (greets, ehlo, helo):
            assert await self.found(script) == [(*LATER, "peer_broke_protocol")]

    async def test_drops_after_ehlo(self) -> None:
        """A peer that closes before the session is open defers the message."""

        def script(line: Line) -> None:
            line.send("220 x\r\n")
            line.command("EHLO")

        assert await self.found(script) == [(*LATER, "connection_lost")]

    async def test_drops_in_data(self) -> None:
        """A connection that is lost within the data defers who was accepted, and leaves who was refused refused."""

        def script(line: Line) -> None:
            line.greet()
            line.envelope("250 ok", "550 5.1.1 no")
            line.until(b"Subject")

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            wanted = request(peer.via, "a@x", "b@x", content=Pieces(cut(b"Subject: x\r\n\r\n" + b"y" * 3_000_000)))
            verdicts = said(await self.send(delivery, wanted))
            await delivery.stop()
        assert verdicts == [("a@x", 451, "connection_lost"), ("b@x", 550, "peer_refused")]

    async def test_drops_after_the_final_dot(self) -> None:
        """Without an answer to the final dot the message is tried again, and the reply says that it may arrive twice."""

        def script(line: Line) -> None:
            line.greet()
            line.envelope()
            line.until(b"\r\n.\r\n")

        assert await self.found(script) == [(*LATER, "connection_lost")]
        assert "may arrive twice" in self.texts[0]

    async def test_no_clear_verdict_behind_the_final_dot(self) -> None:
        """What is no verdict, and what is none in time, leaves the same doubt as a lost connection."""

        def says(text: str) -> object:
            def script(line: Line) -> None:
                line.greet()
                line.envelope()
                line.until(b"\r\n.\r\n")
                line.send(text)
                line.gone()

            return script

        for text in ("354 go\r\n", "25O taken\r\n", "250-taken\r\n550 or not\r\n", "x" * 100_000):
            assert await self.found(says(text)) == [(*LATER, "peer_broke_protocol")]
            assert self.texts[0].endswith(", after the final dot; the message may arrive twice")
        self.patch(Awaited.FINAL, "patience", 0.1)
        self.patch(dial, "SWEEP", 0.1)
        assert await self.found(says("250-")) == [(*LATER, "connection_timed_out")]
        assert self.texts[0].endswith("does not answer, after the final dot; the message may arrive twice")

    async def test_a_long_verdict_is_one(self) -> None:
        """A 250 with more text than a line should have is the message's delivery: it is not sent again."""

        def script(line: Line) -> None:
            line.greet()
            line.message("250 2.0.0 " + "taken " * 1_000)
            line.gone()

        assert await self.found(script) == [("bob@b.example", 250, "delivered")]

    async def test_endless_line_and_endless_reply(self) -> None:
        """A reply without end is cut off, not collected."""

        def line_without_end(line: Line) -> None:
            while True:
                line.send("2" * 65_536)

        def reply_without_end(line: Line) -> None:
            while True:
                line.send("220-welcome\r\n" * 1000)

        for script in (line_without_end, reply_without_end):
            assert await self.found(script) == [(*LATER, "peer_broke_protocol")]

    async def test_answers_before_it_is_asked(self) -> None:
        """Replies to commands that were not sent yet are a breach, not verdicts: the message is not taken for delivered."""
        chatter = "220 x\r\n" + EHLO + "250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"
        assert await self.found(lambda line: line.send(chatter)) == [(*LATER, "peer_broke_protocol")]

    async def test_closes_while_idle(self) -> None:
        """A connection that the peer closed while it was idle does not cost the next message anything: another one is opened."""

        def closes(line: Line) -> None:
            line.greet()
            line.message()

        def stays(line: Line) -> None:
            line.greet()
            line.message()
            line.gone()

        assert await self.found(closes, stays, times=2) == [("bob@b.example", 250, "delivered")] * 2

    async def test_talks_on_behind_its_goodbye(self) -> None:
        """Octets behind 221, however many, change no verdict, and neither keep the connection nor fail aloud."""

        def script(line: Line) -> None:
            line.greet()
            line.message()
            line.until(b"QUIT\r\n")
            line.send("221 2.0.0 bye\r\n250 one more\r\n421 and more\r\n" + "no reply at all\r\n" * 100_000)

        assert await self.found(script) == [("bob@b.example", 250, "delivered")]
        assert self.peer.lines[0].received.endswith(b"QUIT\r\n")

    async def test_421_while_idle_or_at_mail(self) -> None:
        """A used session that answers nothing but 421 is replaced by a fresh one, for the same attempt."""

        def says_421_at_mail(line: Line) -> None:
            line.greet()
            line.message()
            line.until(b"DATA\r\n")
            line.send("421 4.3.2 enough\r\n")

        def drops_at_mail(line: Line) -> None:
            line.greet()
            line.message()
            line.until(b"DATA\r\n")

        def stays(line: Line) -> None:
            line.greet()
            line.message()
            line.gone()

        for script in (says_421_at_mail, drops_at_mail):
            assert await self.found(script, stays, times=2) == [("bob@b.example", 250, "delivered")] * 2
            assert len(self.peer.lines) == 2

    async def test_421_at_mail_on_a_fresh_connection(self) -> None:
        """On a fresh connection 421 is the verdict: nobody hammers a peer that wants to be left alone."""

        def script(line: Line) -> None:
            line.greet()
            line.until(b"DATA\r\n")
            line.send("421 4.7.0 too much\r\n")

        assert await self.found(script) == [("bob@b.example", 421, "peer_deferred")]
        assert len(self.peer.lines) == 1

    async def test_refuses_in_the_middle_of_the_data(self) -> None:
        """A 552 while the data flows is the verdict, the connection is reset, and the rest of the message is never read as commands."""

        def script(line: Line) -> None:
            line.greet()
            line.envelope()
            line.until(b"Subject")
            line.send("552 5.3.4 enough\r\n")
            line.socket.settimeout(20)
            while line.read():
                line.buffer.clear()

        content = Pieces(cut(b"Subject: x\r\n\r\n" + b"QUIT\r\n" * 2_000_000))
        assert await self.found(script, content=content) == [("bob@b.example", 552, "peer_refused")]
        assert len(self.peer.lines[0].received) < content.size

    async def test_content_that_cannot_be_read(self) -> None:
        """A piece that is lost in the middle cuts the connection: the peer never sees a final dot."""

        def script(line: Line) -> None:
            line.greet()
            line.envelope()
            line.gone()

        content = Pieces(cut(SMALL * 10_000), slow=True, lost=2)
        assert await self.found(script, content=content) == [(*LATER, "content_lost")]
        assert b"\r\n.\r\n" not in self.peer.lines[0].received

    async def test_content_that_is_lost_from_its_start(self) -> None:
        """A message whose first piece cannot be read is not proposed, and the session is there for the next, as if nothing had been."""
        for slow in (False, True):
            with Peer(plain) as peer:
                delivery = self.make(("*", peer.via))
                lost = request(peer.via, content=Pieces(cut(SMALL * 10_000), slow=slow, lost=0))
                assert said(await self.send(delivery, lost)) == [(*LATER, "content_lost")]
                assert said(await self.send(delivery, request(peer.via))) == [("bob@b.example", 250, "delivered")]
                await delivery.stop()
            assert len(peer.lines) == 1 and peer.lines[0].received.count(b"MAIL FROM") == 1

    async def test_abandon(self) -> None:
        """An abandoned transfer is deferred at once, wherever it is; after its final dot it waits for the verdict."""

        def before_greeting(line: Line) -> None:
            line.gone()

        def in_data(line: Line) -> None:
            line.greet()
            line.envelope()
            line.gone()

        for script in (before_greeting, in_data):
            with Peer(script) as peer:
                delivery = self.make(("*", peer.via))
                underway = Underway(delivery, request(peer.via, content=Pieces(cut(b"x" * 30_000_000))))
                await self.until(lambda peer=peer, script=script: peer.lines and (script is before_greeting or peer.lines[0].received))
                underway.transfer.abandon()
                assert said(await underway.ended) == [(*LATER, "abandoned")]
                underway.transfer.abandon()
                assert not underway.transfer.stop()
                await delivery.stop()
                assert underway.calls == 1
