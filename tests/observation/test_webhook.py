"""The webhook on a real database and a real HTTP server: signed, tried again, and owed until it is taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.x509 import DNSName
from sqlalchemy import delete, insert, select
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase
from twisted.web import resource, server

from smtpplus.client_tls import Contexts
from smtpplus.observation import owed
from smtpplus.observation.letters import Told
from smtpplus.observation.owed import KEPT, LONGEST, WAITING
from smtpplus.observation.problems import Facts
from smtpplus.observation.webhook import AT_ONCE, RETRY, Webhook, signature
from smtpplus.operation.channels import failing
from smtpplus.storage.database import Database
from smtpplus.storage.engine import migrate
from smtpplus.storage.schema import history, recipients, webhook_posts
from tests.delivery.test_identity import trusted
from tests.turns import PATIENCE, no_connection, until

NOW = 1_800_000_000.0
HOST = "127.0.0.1"
TOLD = Told("bounce", "news", "x", 3, 4, 1.0, 2.0, Facts("w", "x", "y", "r"))


class Hook(resource.Resource):
    """A receiver that gives `answers` one after the other, then 204; what it got is in `got`."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[int] = []
        self.got: list[tuple[str, bytes]] = []

    def render_POST(self, request: Any) -> bytes:
        self.got.append((request.getHeader("x-smtpplus-signature"), request.content.read()))
        request.setResponseCode(self.answers.pop(0) if self.answers else 204)
        return b""


class WebhookTests(TestCase):
    """A database that owes, and a receiver."""

    def setUp(self) -> None:
        loop: Any = reactor
        url = f"sqlite:///{Path(self.mktemp())}/smtpplus.sqlite"
        migrate(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.hook = Hook()
        self.port = loop.listenTCP(0, server.Site(self.hook), interface=HOST)
        self.now = NOW

    @inlineCallbacks
    def tearDown(self) -> Any:  # type: ignore[override]  # trial waits for a Deferred
        yield until(no_connection)
        yield self.port.stopListening()
        yield self.database.stop()

    def webhook(self) -> Webhook:
        address = f"http://{HOST}:{self.port.getHost().port}/hook"
        return Webhook(address, b"secret", reactor, database=self.database, now=lambda: self.now)

    def owe(self, *names: str) -> Any:
        def work(connection: Any) -> None:
            for name in names:
                owed.owe(connection, [TOLD], digest=True, name=name, now=NOW)

        return self.database.write(work)

    def rows(self) -> Any:
        c = webhook_posts.c
        return self.database.read(lambda connection: [tuple(row) for row in connection.execute(select(c.tried, c.due).order_by(c.id))])

    @inlineCallbacks
    def until(self, *expected: tuple[int, float]) -> Any:
        """Return when these rows are owed; fail after a while."""
        deadline = time.monotonic() + PATIENCE
        while (found := (yield self.rows())) != list(expected):
            self.assertLess(time.monotonic(), deadline, f"{found} are owed, not {expected}")
            yield deferLater(reactor, 0.01, lambda: None)

    @inlineCallbacks
    def test_signed_and_tried_again(self) -> Any:
        """B6, C8: an alert is posted as JSON with an HMAC over time and body; a receiver that fails gets the same body again, later."""
        self.hook.answers = [500, 302]
        yield self.owe("1")
        webhook = self.webhook()
        webhook.look()
        yield self.until((1, NOW + RETRY[0]))
        stands = yield self.database.read(owed.state)
        self.assertEqual((stands.waiting, stands.tried, stands.why, stands.at), (1, 1, "the webhook answered 500", NOW))
        (said,) = yield self.database.read(lambda connection: list(failing(connection, NOW)))
        self.assertIn("did not take an alert", said)
        webhook.look()  # too early
        self.now += RETRY[0]
        webhook.look()
        yield self.until((2, self.now + RETRY[1]))
        self.now += RETRY[1]
        webhook.look()
        yield self.until()
        self.assertEqual((yield self.database.read(owed.state)), owed.Owing(0, 0, 0.0))
        webhook.close()
        bodies = [body for _, body in self.hook.got]
        self.assertEqual((len(bodies), set(bodies)), (3, {bodies[0]}))
        header = self.hook.got[2][0]
        at = int(self.now)
        self.assertEqual(header, signature(b"secret", bodies[0], at))
        self.assertEqual(header, f"t={at}, v1={hmac.new(b'secret', b'%d.' % at + bodies[0], hashlib.sha256).hexdigest()}")
        content = json.loads(bodies[0])
        self.assertEqual((content["type"], content["id"], content["problems"][0]["count"]), ("digest", "1", 3))

    @inlineCallbacks
    def test_a_restart_loses_nothing(self) -> Any:
        """C8: what was not taken when the daemon ends, or was under way, goes out after the next start."""
        self.hook.answers = [503]
        yield self.owe("1")
        before = self.webhook()
        before.start()
        yield self.until((1, NOW + RETRY[0]))
        yield self.owe("2")
        before.look()
        before.close()
        yield until(no_connection)
        self.now += RETRY[0]
        after = self.webhook()
        after.start()
        yield self.until()
        after.close()
        self.assertEqual({json.loads(body)["id"] for _, body in self.hook.got}, {"1", "2"})

    @inlineCallbacks
    def test_many_are_posted_a_few_at_a_time(self) -> Any:
        """However many are due, each is posted once, and no more than AT_ONCE are under way."""
        names = [str(number) for number in range(3 * AT_ONCE)]
        yield self.owe(*names)
        webhook = self.webhook()
        webhook.look()
        webhook.look()
        yield self.until()
        webhook.close()
        self.assertEqual(sorted(json.loads(body)["id"] for _, body in self.hook.got), sorted(names))

    @inlineCallbacks
    def test_an_answer_that_comes_late_posts_nothing_again(self) -> Any:
        """However often it is told to look, it asks the database once at a time: what another answer held may be taken when it comes."""
        asked: list[tuple[Any, Any]] = []
        read = self.database.read

        def slow(query: Any) -> Any:
            asked.append((Deferred(), read(query)))
            return asked[-1][0]

        yield self.owe("1", "2")
        self.patch(self.database, "read", slow)
        webhook = self.webhook()
        for _ in range(3):
            webhook.look()
        self.assertEqual(len(asked), 1)
        answer, found = asked.pop()
        answer.callback((yield found))
        self.assertEqual(len(asked), 1)  # for those who told it meanwhile
        answer, found = asked.pop()
        self.patch(self.database, "read", read)
        answer.callback((yield found))
        yield self.until()
        webhook.close()
        self.assertEqual(sorted(json.loads(body)["id"] for _, body in self.hook.got), ["1", "2"])

    @inlineCallbacks
    def test_what_nobody_takes_is_given_up(self) -> Any:
        """What waited for KEPT is given up, and the log says so."""
        self.hook.answers = [500]
        yield self.owe("1")
        self.now += KEPT
        webhook = self.webhook()
        webhook.look()
        yield self.until()
        webhook.close()
        self.assertEqual(len(self.hook.got), 1)
        self.assertEqual((yield self.database.read(owed.state)).why, "the webhook answered 500")  # told still

    @inlineCallbacks
    def test_alert_mail_that_does_not_arrive_is_told(self) -> Any:
        """B6: alert mail that waits, and such that failed, is told where the operator looks; other mail is not."""
        at = NOW - 600
        told = [("<alert.1@a>", ""), ("<alert.2@a>", '[["Failed",1]]'), ("<x@a>", '[["Failed",1]]')]
        empty = dict.fromkeys(("user", "list", "sender", "session", "client", "subject", "campaign"), "")
        rows = [
            {
                **empty,
                "id": (int(at * 1000) << 20) + number,
                "at": at,
                "recipients": "[]",
                "level": 2,
                "size": 1,
                "message_id": name,
                "story": story,
            }
            for number, (name, story) in enumerate(told)
        ]
        waits = {"message_id": rows[0]["id"], "number": 0, "address": "o@a", "level": 2, "user": "", "attempts": 1, "due": NOW}

        def write(connection: Any) -> None:
            connection.execute(insert(history), rows)
            connection.execute(insert(recipients).values(**waits, reply="451 no"))

        yield self.database.write(write)
        said = yield self.database.read(lambda connection: list(failing(connection, NOW)))
        self.assertEqual(said[0], "1 alert by mail waits, lately after: 451 no")
        self.assertEqual(said[1], "1 alert by mail failed within a day; smtpplus explain '<alert.2@a>' says why")

    @inlineCallbacks
    def test_https_is_verified(self) -> Any:
        """A10, B6: over https nothing is told to a trusted certificate that has no usable name, or another's; to the right one it is."""
        loop: Any = reactor
        folder = Path(self.mktemp())
        folder.mkdir()
        for number, names in enumerate(([], [DNSName("elsewhere.example")], [DNSName("localhost")])):
            pem, root = trusted(folder, "localhost", *names)
            port = loop.listenSSL(0, server.Site(self.hook), PrivateCertificate.loadPEM(pem.read_bytes()).options(), interface=HOST)
            yield self.owe("1")
            address = f"https://localhost:{port.getHost().port}/hook"
            webhook = Webhook(address, b"s", reactor, database=self.database, now=lambda: self.now, contexts=Contexts(root))
            webhook.look()
            yield self.until(*([] if names == [DNSName("localhost")] else [(1, self.now + RETRY[0])]))
            webhook.close()
            self.assertEqual(len(self.hook.got), number // 2)
            yield self.database.write(lambda connection: connection.execute(delete(webhook_posts)) and None)
            yield port.stopListening()

    @inlineCallbacks
    def test_it_says_nothing_of_its_connections(self) -> Any:
        """A post leaves no line in the daemon's log."""
        yield self.owe("1")
        webhook = self.webhook()
        with capturedLogs() as said:
            webhook.look()
            yield self.until()
        webhook.close()
        self.assertEqual([each for each in said if "_Quiet" in repr(each) or "HTTP11Client" in repr(each)], [])

    @inlineCallbacks
    def test_no_more_than_some_wait(self) -> Any:
        """Beyond WAITING the oldest give way; what is too old goes with or without a webhook."""
        yield self.owe(*map(str, range(WAITING + 5)))
        self.assertEqual((yield self.database.write(partial(owed.forget, now=NOW))), 5)
        self.assertEqual(len((yield self.rows())), WAITING)
        yield self.database.write(partial(owed.forget, now=NOW + KEPT + 1))
        self.assertEqual((yield self.rows()), [])

    @inlineCallbacks
    def test_a_clock_that_was_set_back_stops_nothing(self) -> Any:
        """What is due later than any retry was written before the clock was set back, and is due now."""
        yield self.owe("1")
        self.now -= LONGEST + 1
        webhook = self.webhook()
        webhook.look()
        yield self.until()
        webhook.close()
        self.assertEqual(len(self.hook.got), 1)
