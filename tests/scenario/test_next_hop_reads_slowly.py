"""The next hop reads slowly: the message arrives whole, at its pace."""

from __future__ import annotations

import socket
import time

from tests.delivery.peer import Line
from tests.delivery.rig import SMALL
from tests.scenario.hop import WHOLE, HopCase, delivered

LARGE = b"Subject: large\r\n\r\n" + (b"x" * 78 + b"\r\n") * 12_000


class ReadsSlowly(HopCase):
    async def test_it(self) -> None:
        """A peer with a small window that pauses between its reads gets every octet of the message, once."""

        def script(line: Line) -> None:
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            line.greet()
            line.envelope()
            for _ in range(10):
                line.read()  # at most 64 KiB
                time.sleep(0.03)
            line.until(b"\r\n.\r\n")
            line.send("250 2.0.0 taken\r\n")
            line.gone()

        assert await self.relay(script, content=LARGE) == delivered(1)
        whole = WHOLE.replace(b"SIZE=%d" % len(SMALL), b"SIZE=%d" % len(LARGE)).replace(SMALL, LARGE)
        assert [bytes(line.received) == whole for line in self.peer.lines] == [True]
