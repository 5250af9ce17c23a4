"""Clients that take a place and do nothing with it."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import inlineCallbacks

from smtpplus.config import Limits
from smtpplus.submission import admission
from tests.submission.rig import MESSAGE, Client, SessionCase, status


def drip(client: Client, octets: bytes, pause: float) -> str:
    """Send `octets` again and again, with pauses, until the server says something; that."""
    client.socket.settimeout(pause)
    for _ in range(200):
        client.send(octets)
        try:
            return client.reply()
        except TimeoutError:
            continue
    return "the server never said anything"


class ProgressTests(SessionCase):
    """Each refusal names its limit."""

    @inlineCallbacks
    def test_a_client_must_log_in(self) -> Any:
        """`login`: commands alone keep no connection open; after it 421 4.4.2 with the limit. Who is logged in may stay."""
        self.serve(limits=Limits(login=2.0, grace=0.2))

        def dialog() -> tuple[str, list[str]]:
            client, user = Client(self.port), self.logged_in()
            replies = []
            for _ in range(200):
                replies.append(client.say("NOOP")[0])
                if replies[-1].startswith("421"):
                    break
                time.sleep(0.05)
            assert client.ended()
            codes = user.codes("NOOP")
            client.close()
            user.close()
            return replies[-1], codes

        reply, codes = yield self.during(dialog)
        self.assertEqual(status(reply), "421 4.4.2")
        self.assertIn("within 2 seconds", reply)
        self.assertEqual(codes, ["250 2.0.0"])

    @inlineCallbacks
    def test_a_message_must_not_drip(self) -> Any:
        """`minimum_rate`: data that comes more slowly on the average of the window ends in 421 4.4.2, and nothing is kept."""
        self.patch(admission, "RATE_WINDOW", 0.5)
        self.serve(limits=Limits(minimum_rate=1000, grace=0.2))

        def dialog() -> str:
            client = self.logged_in()
            client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            reply = drip(client, b"x", 0.1)
            client.close()
            return reply

        reply = yield self.during(dialog)
        self.assertEqual(status(reply), "421 4.4.2")
        self.assertIn("1000 octets a second", reply)
        self.assertEqual(self.spool.kept, [])

    @inlineCallbacks
    def test_our_own_slowness_is_not_the_clients(self) -> Any:
        """A client that waits for our commit is not slow, however long that takes."""
        self.patch(admission, "RATE_WINDOW", 0.5)
        service = self.serve(limits=Limits(minimum_rate=1_000_000, grace=0.2))
        self.spool.hold = True

        def begin() -> Client:
            client = self.logged_in()
            client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            return client

        client = yield self.during(begin)
        for _ in range(3):
            service.sessions._look()
            yield self.during(time.sleep, 0.4)
        self.spool.release()
        self.assertEqual(status((yield self.during(client.reply))), "250 2.0.0")
        client.close()
