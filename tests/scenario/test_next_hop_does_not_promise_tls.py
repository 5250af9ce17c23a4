"""The next hop has a valid certificate and does not offer REQUIRETLS: a message that needs it goes back, and says so without its body."""

from __future__ import annotations

from twisted.internet.ssl import Certificate

from tests.delivery.peer import Line, offering
from tests.delivery.pem import certificate
from tests.delivery.rig import SMALL
from tests.scenario.hop import BOB, HELLO, HopCase

BACK = "dsn started 1 ann@a.example"


class DoesNotPromiseTLS(HopCase):
    async def test_it(self) -> None:
        """RFC 8689 §4.2.1, §5: no word of the message is said; the report has its header only, and goes without TLS if it must."""
        folder = self.folder()
        folder.mkdir()
        path = certificate(folder / "peer.pem", "127.0.0.1")

        def script(line: Line) -> None:
            if len(self.peer.lines) == 1:
                line.greet_encrypted(path)
                line.gone()
            else:
                offering(line)

        trust = Certificate.loadPEM(path.read_bytes())
        stated = await self.relay(script, trust=trust, home="", require_tls=True, ret="FULL")
        words = "554 5.7.30 HOP gets no message that requires TLS: it does not offer REQUIRETLS"
        remedy = "send it without REQUIRETLS, or give the domain a [[route]] to a host that offers it"
        assert stated == [
            f"started 1 {BOB}",
            f"failed {BOB} by HOP: {words}; {remedy} (peer_lacks_requiretls)",
            "bounced failed to ann@a.example",
            BACK,
            "dsn delivered ann@a.example by HOP: 250 2.0.0 taken",
        ]
        first, second = (bytes(line.received) for line in self.peer.lines)
        assert first == HELLO + b"STARTTLS\r\n" + HELLO + b"QUIT\r\n"
        assert b"MAIL FROM:<> SIZE=" in second and b"REQUIRETLS\r\n" not in second
        assert b"Subject: hello" in second
        assert SMALL.partition(b"\r\n\r\n")[2] not in second
