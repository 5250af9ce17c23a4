"""The next hop has a certificate for another name: where it must be verified, nothing is sent."""

from __future__ import annotations

from twisted.internet.ssl import Certificate

from tests.delivery.peer import encrypted
from tests.delivery.pem import certificate
from tests.scenario.hop import BOB, HELLO, WHOLE, HopCase, delivered


class HasABadCertificate(HopCase):
    async def test_it(self) -> None:
        """tls = "verify": a certificate for another name defers, and no octet of the message is said; a right one delivers."""
        folder = self.folder()
        folder.mkdir()
        wrong, right = (certificate(folder / f"{name}.pem", name) for name in ("elsewhere.example", "127.0.0.1"))
        trust = Certificate.loadPEM(right.read_bytes())
        stated = await self.relay(encrypted(wrong), encrypted(right), tls="verify", trust=trust)
        assert [stated[0], *stated[2:]] == [f"started 1 {BOB}", *delivered(2)]
        assert stated[1].startswith(f"deferred {BOB} by HOP: 454 4.7.5 Encryption with HOP failed")
        assert [line.received for line in self.peer.lines] == [HELLO + b"STARTTLS\r\n", HELLO + b"STARTTLS\r\n" + WHOLE]
