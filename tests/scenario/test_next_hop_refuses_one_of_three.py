"""The next hop refuses one of three recipients: the others have the message, and the sender hears of that one."""

from __future__ import annotations

from tests.delivery.peer import Line
from tests.scenario.hop import DSN, WHOLE, HopCase


class RefusesOneOfThree(HopCase):
    async def test_it(self) -> None:
        """C3: one transaction for three recipients, a disposition for each; one notification, for the one that failed."""

        def script(line: Line) -> None:
            line.greet()
            line.message("250 2.0.0 taken", "250 ok", "550 5.1.1 no such user", "250 ok")
            line.gone()

        to = ("a@b.example", "b@b.example", "c@b.example")
        assert await self.relay(script, to=to) == [
            "started 1 a@b.example b@b.example c@b.example",
            "delivered a@b.example by HOP: 250 2.0.0 taken",
            "delivered c@b.example by HOP: 250 2.0.0 taken",
            "failed b@b.example by HOP: 550 5.1.1 no such user (peer_refused)",
            *DSN,
        ]
        rcpt = b"".join(b"RCPT TO:<%s>\r\n" % each.encode() for each in to)
        mail, _, data = WHOLE.partition(b"RCPT TO:<bob@b.example>\r\n")
        assert [line.received for line in self.peer.lines] == [mail + rcpt + data]
