"""The next hop says 421 in the middle of a transaction: it is left, and tried again later."""

from __future__ import annotations

from tests.delivery.peer import Line
from tests.scenario.hop import ENVELOPE, HELLO, WHOLE, HopCase, deferred, delivered, takes


class Says421InTheMiddle(HopCase):
    async def test_it(self) -> None:
        """RFC 5321 §3.8: 421 may answer anything and ends the session; the message is deferred with the peer's words."""

        def says_421(line: Line) -> None:
            line.greet()
            line.until(b"DATA\r\n")
            line.send("250 ok\r\n421 4.3.2 closing\r\n")

        assert await self.relay(says_421, takes) == [*deferred(1, "421 4.3.2 closing", "peer_deferred"), *delivered(2)]
        assert [line.received for line in self.peer.lines] == [HELLO + ENVELOPE, WHOLE]
