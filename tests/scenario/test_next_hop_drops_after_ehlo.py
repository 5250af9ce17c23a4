"""The next hop closes after EHLO: the message waits and is tried again."""

from __future__ import annotations

from tests.delivery.peer import Line
from tests.scenario.hop import HELLO, WHOLE, HopCase, deferred, delivered, takes


class DropsAfterEhlo(HopCase):
    async def test_it(self) -> None:
        """C4: a session that breaks before it is ready defers."""

        def drops(line: Line) -> None:
            line.send("220 x\r\n")
            line.command("EHLO")

        lost = "451 4.4.2 The connection to HOP was lost: the peer closed it, waiting for the answer to EHLO"
        assert await self.relay(drops, takes) == [*deferred(1, lost, "connection_lost"), *delivered(2)]
        assert [line.received for line in self.peer.lines] == [HELLO, WHOLE]
