"""The next hop has a certificate for another name: where it must be verified, nothing is sent."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.ssl import Certificate

from tests.delivery.peer import EHLO, Line, Script
from tests.delivery.test_dial import TLS_EHLO, certificate
from tests.scenario.hop import BOB, HELLO, WHOLE, HopCase, delivered


class HasABadCertificate(HopCase):
    async def test_it(self) -> None:
        """tls = "verify": a certificate for another name defers, and no octet of the message is said; a right one delivers."""
        folder = self.folder()
        folder.mkdir()
        wrong, right = (certificate(folder / f"{name}.pem", name) for name in ("elsewhere.example", "127.0.0.1"))
        trust = Certificate.loadPEM(right.read_bytes())

        def with_certificate(path: Path) -> Script:
            def script(line: Line) -> None:
                line.greet(TLS_EHLO)
                line.command("STARTTLS")
                line.send("220 go\r\n")
                line.start_tls(path)
                line.command("EHLO")
                line.send(EHLO)
                line.message()
                line.gone()

            return script

        stated = await self.relay(with_certificate(wrong), with_certificate(right), tls="verify", trust=trust)
        assert [stated[0], *stated[2:]] == [f"started 1 {BOB}", *delivered(2)]
        assert stated[1].startswith(f"deferred {BOB} by HOP: 454 4.7.5 Encryption with HOP failed")
        assert [line.received for line in self.peer.lines] == [HELLO + b"STARTTLS\r\n", HELLO + b"STARTTLS\r\n" + WHOLE]
