"""The next hop knows nothing but RFC 821: the message goes command by command."""

from __future__ import annotations

from tests.delivery.peer import Line
from tests.delivery.rig import SMALL
from tests.scenario.hop import HELLO, WHOLE, HopCase, delivered


class OffersNothing(HopCase):
    async def test_it(self) -> None:
        """RFC 5321 §3.2: HELO, no parameter, one command at a time."""

        def script(line: Line) -> None:
            line.send("220 old\r\n")
            line.command("EHLO")
            line.send("502 what?\r\n")
            line.command("HELO")
            line.send("250 old\r\n")
            for verb in ("MAIL", "RCPT", "DATA"):
                line.command(verb)
                assert not line.buffer, "a command came before the last one was answered"
                line.send("354 go\r\n" if verb == "DATA" else "250 ok\r\n")
            line.until(b"\r\n.\r\n")
            line.send("250 2.0.0 taken\r\n")
            line.gone()

        assert await self.relay(script, tls="opportunistic") == delivered(1)
        plain = WHOLE.replace(b" SIZE=%d" % len(SMALL), b"").replace(HELLO, HELLO + HELLO.replace(b"EHLO", b"HELO"))
        assert [line.received for line in self.peer.lines] == [plain]
