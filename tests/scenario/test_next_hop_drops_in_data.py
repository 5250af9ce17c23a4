"""The next hop closes in the middle of the data: nothing counts as delivered, and the message is tried again."""

from __future__ import annotations

import re

from tests.delivery.peer import Line
from tests.delivery.rig import SMALL
from tests.scenario.hop import BOB, WHOLE, HopCase, delivered, takes

LARGE = b"Subject: large\r\n\r\n" + (b"x" * 78 + b"\r\n") * 20_000


class DropsInData(HopCase):
    async def test_it(self) -> None:
        """C4: what the peer has of it is a beginning of the message without a final dot; the second attempt brings all of it."""

        def drops(line: Line) -> None:
            line.greet()
            line.envelope()
            line.until(b"Subject: large")

        stated = await self.relay(drops, takes, content=LARGE)
        assert [stated[0], *stated[2:]] == [f"started 1 {BOB}", *delivered(2)]
        assert re.fullmatch(rf"deferred {BOB} by HOP: 451 4\.4\.2 The connection to HOP was lost: .*\(connection_lost\)", stated[1])
        whole = WHOLE.replace(b"SIZE=%d" % len(SMALL), b"SIZE=%d" % len(LARGE)).replace(SMALL, LARGE)
        first, second = (bytes(line.received) for line in self.peer.lines)
        assert second == whole
        assert whole.startswith(first)
        assert not first.endswith(b"\r\n.\r\n")
