"""The next hop takes two recipients at a time: five have the message after one attempt, by three transactions on one connection."""

from __future__ import annotations

from tests.delivery.peer import Line
from tests.delivery.rig import SMALL
from tests.scenario.hop import HELLO, HopCase

MAIL = b"MAIL FROM:<ann@a.example> SIZE=%d\r\n" % len(SMALL)


class TakesTwoAtATime(HopCase):
    async def test_it(self) -> None:
        """C3, RFC 5321 §4.5.3.1.10: the rest follows each 452 at once, nobody waits for the next attempt, and nobody has it twice."""

        def script(line: Line) -> None:
            line.greet()
            for more in (3, 1, 0):
                replies = ["250 ok"] * (2 if more else 1) + ["452 4.5.3 two at a time"] * more
                line.message("250 2.0.0 taken", *replies)
            line.gone()

        to = [f"{name}@b.example" for name in "abcde"]
        assert await self.relay(script, to=tuple(to)) == [
            f"started 1 {' '.join(to)}",
            *(f"delivered {each} by HOP: 250 2.0.0 taken" for each in to),
        ]
        rcpt = [b"RCPT TO:<%b>\r\n" % each.encode() for each in to]
        parts = [MAIL + b"".join(each) + b"DATA\r\n" + SMALL + b".\r\n" for each in (rcpt, rcpt[2:], rcpt[4:])]
        assert [bytes(line.received) for line in self.peer.lines] == [HELLO + b"".join(parts) + b"QUIT\r\n"]
