"""The next hop greets 554: it does not want mail of ours, now or later."""

from __future__ import annotations

from tests.scenario.hop import BOB, DSN, HopCase


class Greets554(HopCase):
    async def test_it(self) -> None:
        """C4: the greeting is the verdict, at the first attempt; the sender is told; nothing was said to the peer."""
        assert await self.relay(lambda line: line.send("554 5.3.2 no mail here\r\n")) == [
            f"started 1 {BOB}",
            f"failed {BOB} by HOP: 554 5.3.2 no mail here (peer_refused)",
            *DSN,
        ]
        assert [line.received for line in self.peer.lines] == [b""]
