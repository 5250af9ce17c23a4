"""The next hop answers the TLS handshake with rubbish: opportunistic encryption is given up, the message is not."""

from __future__ import annotations

from tests.delivery.peer import offering, rubbish
from tests.scenario.hop import HELLO, WHOLE, HopCase, delivered


class AnswersStarttlsWithRubbish(HopCase):
    async def test_it(self) -> None:
        """RFC 7435: a handshake that fails is followed by plaintext on a fresh connection, within the same attempt."""
        assert await self.relay(rubbish, offering, tls="opportunistic") == delivered(1)
        assert self.peer.lines[0].received.startswith(HELLO + b"STARTTLS\r\n\x16\x03")
        assert b"Subject" not in self.peer.lines[0].received
        assert [line.received for line in self.peer.lines[1:]] == [WHOLE]
