"""What a peer offers and the message needs: parameters of MAIL and RCPT, and BDAT, over real sockets."""

from __future__ import annotations

import threading
import time
from typing import Any

from smtpplus.delivery.dialogue import Dialogue
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.fit import PLAIN, fit
from smtpplus.delivery.proposal import propose
from smtpplus.delivery.terms import Terms
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import Recipient, WholeContent
from tests.delivery.peer import Line, Peer
from tests.delivery.rig import SMALL, DeliveryCase, Pieces, Underway, cut, request, said

CHUNKS = "250-next.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 DSN\r\n"


def chunks(line: Line, *replies: str) -> list[tuple[bytes, bytes]]:
    """MAIL, RCPT and all chunks: the command and the octets of each. `replies` are to the chunks, the last one repeated."""
    line.command("MAIL")
    line.command("RCPT")
    line.send("250 ok\r\n250 ok\r\n")
    found: list[tuple[bytes, bytes]] = []
    while not found or not found[-1][0].endswith(b"LAST\r\n"):
        command = line.until(b"\r\n")
        assert command.startswith(b"BDAT "), command
        size = int(command.split()[1])
        while len(line.buffer) < size:
            assert line.read()
        found.append((command, bytes(line.buffer[:size])))
        del line.buffer[:size]
        line.send(replies[min(len(found), len(replies)) - 1] + "\r\n")
    return found


class ChunkingTests(DeliveryCase):
    async def taken(self, *contents: Any) -> list[list[tuple[bytes, bytes]]]:
        """What a peer with CHUNKING gets of messages one after another on one connection."""
        found: list[list[tuple[bytes, bytes]]] = []

        def script(line: Line) -> None:
            line.greet(CHUNKS)
            found.extend(chunks(line, "250 2.0.0 taken") for _ in contents)
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            for content in contents:
                assert said(await self.send(delivery, request(peer.via, content=content))) == [("bob@b.example", 250, "delivered")]
            await delivery.stop()
        assert len(peer.lines) == 1
        return found

    async def test_chunks_carry_the_content_as_it_is(self) -> None:
        """RFC 3030: one chunk for each piece, the last one LAST, no dot stuffed, nothing added but the end of a last line."""
        dots = b"Subject: x\r\n\r\n.\r\n..\r\n"
        one, several, open_end, empty = await self.taken(
            WholeContent(dots), Pieces(cut(dots, 7), slow=True), Pieces([b"a\r", b"\nb"]), WholeContent(b"")
        )
        assert one == [(b"BDAT %d LAST\r\n" % len(dots), dots)]
        assert b"".join(octets for _, octets in several) == dots
        assert [command for command, _ in several] == [b"BDAT 7\r\n", b"BDAT 7\r\n", b"BDAT 7 LAST\r\n"]
        assert open_end == [(b"BDAT 2\r\n", b"a\r"), (b"BDAT 4 LAST\r\n", b"\nb\r\n")]
        assert empty == [(b"BDAT 0 LAST\r\n", b"")]

    async def test_a_large_message_in_chunks_can_be_stopped(self) -> None:
        """A27: between two chunks a transfer stops writing, the session stays open, and it goes on to the same end."""
        large = b"Subject: bulk\r\n\r\n" + (b"z" * 62 + b"\r\n") * 300_000
        found: list[tuple[bytes, bytes]] = []

        def script(line: Line) -> None:
            line.greet(CHUNKS)
            found.extend(chunks(line, "250 ok"))
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            underway = Underway(delivery, request(peer.via, content=Pieces(cut(large), slow=True)))
            await self.until(lambda: peer.lines and len(peer.lines[0].received) > 1_000_000)
            assert underway.transfer.stop()
            held = -1
            while held != len(peer.lines[0].received):
                held = len(peer.lines[0].received)
                await self.turn(0.2)
            assert held < len(large)
            underway.transfer.go()
            assert said(await underway.ended)[0][1] == 250
            await delivery.stop()
        assert b"".join(octets for _, octets in found) == large

    async def test_a_chunk_that_is_refused_is_the_verdict(self) -> None:
        """A 552 to a chunk decides, the connection is given up, and the next message gets another one."""

        def refuses(line: Line) -> None:
            line.greet(CHUNKS)
            chunks(line, "250 ok", "552 5.3.4 enough", "503 no")

        def takes(line: Line) -> None:
            line.greet(CHUNKS)
            chunks(line, "250 ok")
            line.gone()

        with Peer(refuses, takes) as peer:
            delivery = self.make(("*", peer.via))
            content = Pieces(cut(SMALL * 100_000), slow=True)
            assert said(await self.send(delivery, request(peer.via, content=content)))[0][1:] == (552, "peer_refused")
            assert said(await self.send(delivery, request(peer.via)))[0][1:] == (250, "delivered")
            await delivery.stop()
        assert len(peer.lines) == 2

    async def test_nobody_to_send_to_means_no_chunk(self) -> None:
        """When every recipient is refused no BDAT is sent, and the session goes on; a 354 to BDAT is a breach."""

        def script(line: Line) -> None:
            line.greet(CHUNKS)
            line.command("MAIL")
            line.command("RCPT")
            line.send("250 ok\r\n550 5.1.1 no\r\n")
            line.command("RSET")
            line.send("250 ok\r\n")
            chunks(line, "354 what?")

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            assert said(await self.send(delivery, request(peer.via)))[0][1:] == (550, "peer_refused")
            assert said(await self.send(delivery, request(peer.via)))[0][1:] == (451, "peer_broke_protocol")
            await delivery.stop()

    async def test_a_connection_lost_behind_the_last_chunk_is_a_doubt(self) -> None:
        """Without an answer to the last chunk the reply says that the message may arrive twice."""
        read = threading.Event()

        def script(line: Line) -> None:
            line.greet(CHUNKS)
            line.until(b"RCPT")
            line.send("250 ok\r\n250 ok\r\n")
            line.until(b"A line.\r\n")
            read.set()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            [disposition] = await self.send(delivery, request(peer.via))
            await delivery.stop()
        assert "may arrive twice" in str(disposition.reply)


class ReportTests(DeliveryCase):
    async def found(self, ehlo: str) -> tuple[list[str], list[Disposition]]:
        """MAIL and RCPT of a message with DSN parameters for two recipients, and the dispositions."""

        def script(line: Line) -> None:
            line.greet(ehlo)
            line.message("250 ok", "250 ok", "250 ok")
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            wanted = request(peer.via, content=None, ret="HDRS", envid="a b+c=1")
            recipients = (Recipient("b@x", "SUCCESS,FAILURE", "rfc822;b+o@x"), Recipient("c@x"))
            wanted = type(wanted)(wanted.envelope, recipients, peer.via, wanted.content, 1)
            dispositions = await self.send(delivery, wanted)
            await delivery.stop()
        return peer.lines[0].received.decode().split("\r\n")[1:4], dispositions

    async def test_reports_are_the_peers_business_where_it_offers_dsn(self) -> None:
        """RFC 3461 §5.2.1: RET, ENVID, NOTIFY and ORCPT travel on as xtext, and the disposition says who tells of success."""
        commands, dispositions = await self.found("250-x\r\n250 DSN\r\n")
        assert commands == [
            "MAIL FROM:<ann@a.example> RET=HDRS ENVID=a+20b+2Bc+3D1",
            "RCPT TO:<b@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bo@x",
            "RCPT TO:<c@x>",
        ]
        assert [(each.passed_on, each.time_passed_on) for each in dispositions] == [(True, False)] * 2

    async def test_reports_are_ours_where_it_does_not(self) -> None:
        """A peer without DSN gets none of it."""
        commands, dispositions = await self.found("250 x\r\n")
        assert commands == ["MAIL FROM:<ann@a.example>", "RCPT TO:<b@x>", "RCPT TO:<c@x>"]
        assert [each.passed_on for each in dispositions] == [False, False]


def offering(*lines: str, secure: bool = True) -> Dialogue:
    """A session that is open, with a peer that offers this."""
    dialogue = Dialogue(Terms("us.example", secure=secure))
    dialogue.receive(b"220 x\r\n")
    dialogue.take()
    dialogue.receive("".join(f"250{mark}{line}\r\n" for mark, line in zip("-" * len(lines) + " ", ("x", *lines), strict=True)).encode())
    return dialogue


def mail(dialogue: Dialogue, now: float = 0.0, **fields: Any) -> str:
    """The parameters of MAIL, or the reason why there is no transaction."""
    wanted = request("x", **fields)
    verdict = fit(wanted, dialogue, now)
    return verdict.reason.code if isinstance(verdict, Fault) else propose(wanted, dialogue.extensions, verdict, now).mail


def test_priority_travels_by_the_table() -> None:
    """Requirements, Priority mapping: levels 1, 2, 4, 5 are 6, 4, -4, -6, and 3 is what a message has that says nothing."""
    dialogue = offering("MT-PRIORITY MIXER")
    found = [mail(dialogue, level=level) for level in range(1, 6)]
    assert found == [" MT-PRIORITY=6", " MT-PRIORITY=4", "", " MT-PRIORITY=-4", " MT-PRIORITY=-6"]
    assert mail(offering(), level=1) == ""


def test_deliver_by_counts_down() -> None:
    """RFC 2852 §4: what is left is told, below zero too; R goes only where it is promised in the time that is left."""
    dialogue = offering("DELIVERBY 60")
    assert mail(dialogue, now=1000.0, deliver_by=1100.5, by_mode="R") == " BY=100;R"
    assert mail(dialogue, now=1000.0, deliver_by=990.0, by_mode="NT") == " BY=-10;NT"
    assert mail(dialogue, now=1000.0, deliver_by=1059.0, by_mode="RT") == "peer_lacks_deliverby"
    assert mail(offering("DELIVERBY"), now=1000.0, deliver_by=1001.0, by_mode="R") == " BY=1;R"
    assert mail(offering(), now=1000.0, deliver_by=1100.0, by_mode="R") == "peer_lacks_deliverby"
    assert mail(offering(), now=1000.0, deliver_by=1100.0, by_mode="N") == ""


def test_who_takes_over_what_is_known() -> None:
    """The peer has the time of a message if it got BY, and reports if it offers DSN; a message without BY gives it none."""
    timed = request("x", deliver_by=1100.0, by_mode="N")
    found = [propose(timed, offers, PLAIN, 1000.0) for offers in ({}, {"DSN": ""}, {"DELIVERBY": ""})]
    assert [(each.passed_on, each.time_passed_on) for each in found] == [(False, False), (True, False), (False, True)]
    assert not propose(request("x"), {"DELIVERBY": ""}, PLAIN, 1000.0).time_passed_on


def test_required_tls_must_be_promised() -> None:
    """RFC 8689 §4.2.1: REQUIRETLS goes on where it is offered under TLS, and the message goes nowhere else."""
    assert mail(offering("REQUIRETLS"), require_tls=True) == " REQUIRETLS"
    assert mail(offering(), require_tls=True) == "peer_lacks_requiretls"
    assert mail(offering("REQUIRETLS", secure=False), require_tls=True) == "peer_lacks_requiretls"
    assert [mail(offering(*offers), require_tls=True, sender="") for offers in (("REQUIRETLS",), ())] == [" REQUIRETLS", ""]


def test_plain_messages_cost_nothing() -> None:
    """Without anything said, MAIL has its SIZE and RCPT nothing."""
    proposal = propose(request("x"), {"SIZE": "", "DSN": "", "MT-PRIORITY": "", "DELIVERBY": ""}, PLAIN, time.time())
    assert (proposal.mail, proposal.rcpt) == (f" SIZE={len(SMALL)}", ())
