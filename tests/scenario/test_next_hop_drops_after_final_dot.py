"""The next hop closes after the final dot: whether it has the message is unknown, so it is sent again, and the reply says so."""

from __future__ import annotations

from tests.delivery.peer import Line
from tests.scenario.hop import WHOLE, HopCase, deferred, delivered, takes


class DropsAfterFinalDot(HopCase):
    async def test_it(self) -> None:
        """A lost reply is retried, and the risk of a duplicate is recorded (RFC 1047)."""

        def drops(line: Line) -> None:
            line.greet()
            line.envelope()
            line.until(b"\r\n.\r\n")

        lost = "451 4.4.2 The connection to HOP was lost: the peer closed it, after the final dot; the message may arrive twice"
        assert await self.relay(drops, takes) == [*deferred(1, lost, "connection_lost"), *delivered(2)]
        assert [line.received for line in self.peer.lines] == [WHOLE.removesuffix(b"QUIT\r\n"), WHOLE]
