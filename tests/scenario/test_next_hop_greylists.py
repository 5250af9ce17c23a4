"""The next hop greylists: the message waits and is taken at the second attempt."""

from __future__ import annotations

from tests.delivery.peer import Line
from tests.scenario.hop import ENVELOPE, HELLO, MESSAGE, HopCase, deferred, delivered


class Greylists(HopCase):
    async def test_it(self) -> None:
        """C4: a 450 to RCPT defers; no data is sent before a recipient is taken; the session is used again for the next attempt."""

        def script(line: Line) -> None:
            line.greet()
            line.command("MAIL")
            line.command("RCPT")
            line.command("DATA")
            line.send("250 ok\r\n450 4.7.1 greylisted, come again\r\n503 no recipients\r\n")
            line.command("RSET")
            line.send("250 ok\r\n")
            line.message()
            line.gone()

        greylisted = deferred(1, "450 4.7.1 greylisted, come again", "peer_deferred")
        assert await self.relay(script) == [*greylisted, *delivered(2)]
        assert [line.received for line in self.peer.lines] == [HELLO + ENVELOPE + b"RSET\r\n" + MESSAGE + b"QUIT\r\n"]
