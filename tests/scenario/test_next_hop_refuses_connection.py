"""Nobody listens at the next hop: the message waits, and arrives when somebody does."""

from __future__ import annotations

from tests.scenario.hop import WHOLE, HopCase, deferred, delivered, takes


class RefusesConnection(HopCase):
    async def test_it(self) -> None:
        """C3: a refused connection defers, with nobody as the peer; the next attempt delivers."""
        refused = deferred(1, "451 4.4.1 HOP refuses connections", "connection_refused", by="")
        assert await self.relay(takes, away=True) == [*refused, *delivered(2)]
        assert [line.received for line in self.peer.lines] == [WHOLE]
