"""Many large messages at once: what they hold in memory together has a limit."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from smtpplus.config import Limits
from smtpplus.mail.envelope import CHUNK
from smtpplus.submission import transaction
from tests.submission.rig import MESSAGE, Client, SessionCase, status


class PressureTests(SessionCase):
    """The budget that all messages share."""

    @inlineCallbacks
    def test_under_pressure_content_goes_to_the_spool_sooner(self) -> Any:
        """Beyond BUDGET a message of more than a chunk is not collected any more; what ends, or is dropped, makes room again."""
        self.patch(transaction, "BUDGET", 2 * CHUNK)
        service = self.serve(limits=Limits(grace=0.2))
        acceptance = service.factories[0].acceptance
        body = MESSAGE + (b"x" * 70 + b"\r\n") * (CHUNK * 3 // 2 // 72)

        def begin() -> list[Client]:
            clients = [self.logged_in() for _ in range(3)]
            for client in clients:
                client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
                client.send(body)
            return clients

        clients = yield self.during(begin)

        def end() -> list[str]:
            replies = []
            for client in clients[:2]:
                client.send(b".\r\n")
                replies.append(status(client.reply()))
            for client in clients:
                client.close()
            return replies

        replies = yield self.during(end)
        self.assertEqual(replies, ["250 2.0.0"] * 2)
        self.assertTrue(self.spool.intakes, "nobody made room")
        yield service.sessions.drain(0.2)
        self.assertEqual(acceptance.held, 0)
        self.assertEqual(sorted(len(kept.content) for kept in self.spool.kept), [max(len(kept.content) for kept in self.spool.kept)] * 2)
