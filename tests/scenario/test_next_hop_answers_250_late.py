"""The next hop thinks long after the final dot: it is waited for, and the message is sent once."""

from __future__ import annotations

import time

from tests.delivery.peer import Line
from tests.scenario.hop import WHOLE, HopCase, delivered


class Answers250Late(HopCase):
    async def test_it(self) -> None:
        """RFC 5321 §4.5.3.2.6: nobody gives up early after the final dot, or the message would arrive twice."""

        def script(line: Line) -> None:
            line.greet()
            line.envelope()
            line.until(b"\r\n.\r\n")
            time.sleep(0.6)
            line.send("250 2.0.0 at last\r\n")
            line.gone()

        assert await self.relay(script) == delivered(1, "250 2.0.0 at last")
        assert [line.received for line in self.peer.lines] == [WHOLE]
