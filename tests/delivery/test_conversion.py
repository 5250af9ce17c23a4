"""8-bit mail to next hops that take 7 bits."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from smtpplus.delivery.conversion import converted
from smtpplus.mail.envelope import CHUNK, Content, WholeContent
from tests.delivery.peer import EHLO, Line, Peer
from tests.delivery.rig import DeliveryCase, Held, Pieces, Underway, cut, request, said

HEADER = b"From: ann@a.example\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
EIGHT = HEADER + b"Content-Transfer-Encoding: 8bit\r\n\r\n"
SEVEN = HEADER + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
OLD = EHLO.replace("250-8BITMIME\r\n", "").replace("250 SMTPUTF8", "250 ENHANCEDSTATUSCODES")


class ConversionTests(DeliveryCase):
    async def arrived(self, content: Content, *replies: tuple[int, str], ehlo: str = OLD) -> bytes:
        """What came to a peer that says `ehlo`, with the MAIL command; of a message that ended in these codes and reasons."""

        def script(line: Line) -> None:
            line.greet(ehlo)
            if not replies:
                line.message()
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            found = await self.send(delivery, request(peer.via, content=content, body="8BITMIME"))
            await delivery.stop()
            assert [each[1:] for each in said(found)] == list(replies or [(250, "delivered")])
        return bytes(peer.lines[0].received).partition(b"MAIL FROM:<ann@a.example>")[2]

    async def test_a_peer_without_8bitmime_gets_seven_bits(self) -> None:
        """C1, RFC 6152 §3: the message is converted, its size is that of the result, and BODY is not said; to who takes 8 bits it goes as
        it is."""
        content = WholeContent(EIGHT + "Grüße\r\n.\r\n".encode())
        made = SEVEN + b"Gr=C3=BC=C3=9Fe\r\n=2E\r\n"
        got = await self.arrived(content)
        assert got.startswith(b" SIZE=%d\r\nRCPT" % len(made))
        assert b"DATA\r\n" + made + b".\r\n" in got
        assert b"BODY=8BITMIME" in await self.arrived(content, ehlo=EHLO)

    async def test_a_long_message_is_converted_piece_by_piece(self) -> None:
        """A message of many pieces, read one at a time, whatever lies at their ends, is converted as in one piece, and twice the same."""
        lines = "".join(f"Zeile {number}: äöü €\r\n" for number in range(20_000)).encode()
        whole = await converted(WholeContent(EIGHT + lines))
        for size in (CHUNK, 999):
            content = Pieces(cut(EIGHT + lines, size), slow=size == CHUNK)
            made = await converted(content)
            expected = await _octets(whole)
            assert (await _octets(made), await _octets(made), made.size) == (expected, expected, len(expected))
        got = await self.arrived(Pieces(cut(EIGHT + lines), slow=True))
        assert expected in got

    async def test_what_cannot_be_converted_comes_back(self) -> None:
        """C1: a signed message fails for good with the cause, one that becomes too large for the peer by that, one that cannot be read is
        tried again."""
        signed = b"DKIM-Signature: v=1\r\n" + EIGHT + b"\xe9\r\n"
        large = EIGHT + b"\xe9" * 400 + b"\r\n"
        lost = Pieces([EIGHT, b"\xe9", b"\r\n"], lost=2)
        small = OLD.replace("100000000", "1000")
        for content, ehlo, code, reason in (
            (WholeContent(signed), OLD, 554, "peer_lacks_8bitmime"),
            (WholeContent(large), small, 552, "peer_size_limit"),
            (lost, OLD, 451, "content_lost"),
        ):
            assert await self.arrived(content, (code, reason), ehlo=ehlo) == b""

    async def test_it_may_be_given_up_meanwhile(self) -> None:
        """A31: a message that is abandoned while it is converted is deferred, and nothing is proposed."""

        def script(line: Line) -> None:
            line.greet(OLD)
            while line.read():
                pass

        content = Held([EIGHT, b"\xe9\r\n", b"x\r\n"])
        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            underway = Underway(delivery, request(peer.via, content=content, body="8BITMIME"))
            await self.until(lambda: content._last)
            underway.transfer.abandon()
            assert said(await underway.ended)[0][2] == "abandoned"
            content.release()
            await delivery.stop()
        assert b"MAIL" not in peer.lines[0].received
        assert underway.calls == 1


async def _octets(content: Content) -> bytes:
    found = []
    for index in range(content.chunks):
        arrived: Deferred[bytes | None] = Deferred()
        content.read(index, arrived.callback)
        found.append(await arrived or b"")
    return b"".join(found)
