"""The next hop offers everything there is: what the message needs is used, in one session under TLS."""

from __future__ import annotations

from typing import Any

from smtpplus.mail.envelope import Recipient
from tests.delivery.peer import Line
from tests.delivery.pem import certificate
from tests.scenario.hop import BOB, HopCase, delivered

OFFERS = "PIPELINING", "SIZE 100000000", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME", "DSN", "MT-PRIORITY MIXER", "DELIVERBY 1"
MORE = "REQUIRETLS", "FUTURERELEASE 1 2030-01-01T00:00:00Z", "LIMITS MAILMAX=5", "ENHANCEDSTATUSCODES", "AUTH PLAIN", "VRFY", "X-NEW a=b"


class OffersEverything(HopCase):
    async def test_it(self) -> None:
        """STARTTLS first, then SIZE, BODY, MT-PRIORITY, DSN parameters and BDAT; no login without credentials. Success is the peer's to
        tell, as it takes NOTIFY."""
        folder = self.folder()
        folder.mkdir()
        path = certificate(folder / "peer.pem", "elsewhere.example")
        content = "Subject: é\r\n\r\n.é\r\n".encode()

        def script(line: Line) -> None:
            answer = "".join(f"250-{each}\r\n" for each in ("next.example", *OFFERS, *MORE))
            line.greet_encrypted(path, f"{answer}250 HELP\r\n", f"{answer}250 STARTTLS\r\n")
            line.command("MAIL")
            line.command("RCPT")
            line.send("250 ok\r\n250 ok\r\n")
            line.until(content)
            line.send("250 2.0.0 taken\r\n")
            line.gone()

        fields: dict[str, Any] = {
            "body": "8BITMIME",
            "level": 2,
            "ret": "HDRS",
            "envid": "e+1",
            "recipients": (Recipient(BOB, "SUCCESS", "rfc822;bob@old.example"),),
        }
        assert await self.relay(script, tls="opportunistic", content=content, **fields) == delivered(1)
        commands = (
            b"EHLO relay.example\r\nSTARTTLS\r\nEHLO relay.example\r\n"
            b"MAIL FROM:<ann@a.example> SIZE=%d BODY=8BITMIME MT-PRIORITY=4 RET=HDRS ENVID=e+2B1\r\n"
            b"RCPT TO:<bob@b.example> NOTIFY=SUCCESS ORCPT=rfc822;bob@old.example\r\n"
            b"BDAT %d LAST\r\n%bQUIT\r\n"
        )
        assert [line.received for line in self.peer.lines] == [commands % (len(content), len(content), content)]
