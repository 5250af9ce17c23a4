"""The next hop takes its time to greet: nothing is said before, and the message is delivered."""

from __future__ import annotations

import time

from tests.delivery.peer import Line
from tests.scenario.hop import WHOLE, HopCase, delivered, takes


class GreetsSlowly(HopCase):
    async def test_it(self) -> None:
        """RFC 5321 §4.3.1: the client waits for the greeting."""
        early: list[bytes] = []

        def script(line: Line) -> None:
            time.sleep(0.4)
            line.socket.setblocking(False)
            try:
                early.append(line.socket.recv(100))
            except BlockingIOError:
                early.append(b"")
            line.socket.settimeout(20)
            takes(line)

        assert await self.relay(script) == delivered(1)
        assert early == [b""]
        assert [line.received for line in self.peer.lines] == [WHOLE]
