"""The next hop is this server: the message fails as a loop, and nobody is connected to."""

from __future__ import annotations

from tests.scenario.hop import BOB, DSN, HopCase, takes


class IsOurselves(HopCase):
    async def test_it(self) -> None:
        """RFC 5321 §5.1: a route that leads to a port of ours is refused before the first connection."""
        stated = await self.relay(takes, own=True)
        assert stated == [
            f"started 1 {BOB}",
            f"failed {BOB} by : 554 5.4.6 Mail for smtp://127.0.0.1:PORT comes back to this server; give the domain a [[route]], "
            "or correct its MX records (self_loop)",
            *DSN,
        ]
        assert self.peer.lines == []
