"""The next hop takes the connection and never reads the data: it is cut off in time, and the message is tried again."""

from __future__ import annotations

import socket
import threading

from smtpplus.delivery import dial, transaction
from tests.delivery.peer import Line
from tests.delivery.rig import SMALL
from tests.scenario.hop import WHOLE, HopCase, deferred, delivered, takes

LARGE = b"Subject: large\r\n\r\n" + (b"x" * 78 + b"\r\n") * 100_000


class NeverReads(HopCase):
    async def test_it(self) -> None:
        """RFC 5321 §4.5.3.2.5: a block of data that does not leave ends the session; the limit is made short here."""
        self.patch(transaction, "BLOCK_PATIENCE", 0.3)
        self.patch(dial, "SWEEP", 0.1)
        over = threading.Event()

        def stares(line: Line) -> None:
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
            line.greet()
            line.envelope()
            over.wait(20)

        def takes_at_last(line: Line) -> None:
            over.set()
            takes(line)

        late = deferred(1, "451 4.4.1 HOP does not answer", "connection_timed_out")
        assert await self.relay(stares, takes_at_last, content=LARGE) == [*late, *delivered(2)]
        whole = WHOLE.replace(b"SIZE=%d" % len(SMALL), b"SIZE=%d" % len(LARGE)).replace(SMALL, LARGE)
        first, second = (bytes(line.received) for line in self.peer.lines)
        assert second == whole
        assert whole.startswith(first) and len(first) < len(whole)
