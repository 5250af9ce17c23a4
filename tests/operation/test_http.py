"""The HTTP server and its pages over real sockets: what strangers send ends in an answer and never in a traceback."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from smtpplus.accounts import store, verification
from smtpplus.accounts.user import Sender
from smtpplus.config import Configuration
from smtpplus.config.settings import HTTP
from smtpplus.events import Event, Events, Verified
from smtpplus.operation import http as server
from smtpplus.operation import measures
from smtpplus.operation.confirmation import confirmation
from smtpplus.operation.http import Answer, Asked, HTTPListenError, HTTPServer, Page, plain
from smtpplus.operation.measures import Readiness, health
from smtpplus.operation.proof import page
from smtpplus.storage.database import Database
from smtpplus.storage.engine import create_engine, migrate
from tests.rig.daemon import HOST, free_ports
from tests.turns import no_connection, until

reactor: Any = _reactor
PATIENCE = 20.0  # seconds
NOW = 1_000_000_000.0


def talk(port: int, octets: bytes, leave: bool = False, source: str = "") -> bytes:
    """Send `octets` on a connection of its own; what comes back until the server closes it. `leave`: say at once that no more comes."""
    with socket.create_connection((HOST, port), PATIENCE, (source, 0) if source else None) as connection:
        try:
            connection.sendall(octets)
            if leave:
                with contextlib.suppress(OSError):  # the server may have closed it already; what it said is still there to be read
                    connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65_536):
                answer += piece
        except ConnectionError:
            return b""
        return answer


def request(method: str, path: str, *fields: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(found[1]) if found else 0


class HTTPTests(TestCase):
    """A server with the daemon's pages and two more: one that fails, one that never answers."""

    def setUp(self) -> None:
        self.url = f"sqlite:///{Path(self.mktemp())}/smtpplus.sqlite"
        migrate(self.url)
        self.engine = create_engine(self.url)
        self.database = Database(self.url, reactor)
        self.database.start()
        self.events: list[Event] = []
        events = Events()
        events.subscribe(self.events.append)
        self.now = NOW
        self.waiting: list[Deferred[Answer]] = []
        self.in_the_way = ""
        self.readiness = Readiness(self.database, reactor, now=lambda: self.now, looks=(lambda: "", lambda: self.in_the_way))
        pages = {
            "healthz": health(),
            "readyz": self.readiness.page(),
            "confirm": confirmation(self.database, "relay.example.com", events, lambda: self.now),
            "broken": Page(self.broken),
            "slow": Page(self.slow),
            "plain": Page(lambda _: plain(200, "ok")),
        }
        (self.port,) = free_ports(1)
        self.server = HTTPServer((HOST, self.port), pages, reactor)
        self.server.bind()

    def tearDown(self) -> Any:
        self.engine.dispose()
        return self.stop()

    @inlineCallbacks
    def stop(self) -> Any:
        for each in self.waiting:
            each.callback(plain(200, "late"))
        yield self.server.stop()
        yield self.database.stop()
        yield until(no_connection)

    def broken(self, _: Asked) -> Answer:
        raise RuntimeError("a secret cause")

    def slow(self, _: Asked) -> Deferred[Answer]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def ask(self, method: str, path: str, *fields: str, body: bytes = b"") -> Deferred[bytes]:
        return self.send(request(method, path, *fields, body=body))

    def send(self, octets: bytes, *, leave: bool = False) -> Deferred[bytes]:
        return deferToThread(talk, self.port, octets, leave)

    def token(self, address: str = "ann@a.com", user: str = "app") -> str:
        with self.engine.begin() as connection:
            made = store.add_user(connection, user, "hash", now=NOW, addresses=[Sender("address", address)])
            return verification.issue(connection, made, made.senders[0], now=NOW, lifetime=60.0, by="x")

    def verified(self, user: str = "app") -> bool:
        with self.engine.connect() as connection:
            return store.get_user(connection, user).senders[0].verified

    @inlineCallbacks
    def test_looking_changes_nothing_and_a_click_confirms_once(self) -> Any:
        """A9: GET and HEAD show and change nothing, however often; POST confirms, is stated, and a second one is told so."""
        path = f"/confirm/{self.token()}"
        for method in ("GET", "HEAD", "GET"):
            answer = yield self.ask(method, path)
            self.assertEqual((status(answer), self.verified()), (200, False))
        self.assertIn(b"ann@a.com", answer)
        done = yield self.ask("POST", path, "Content-Type: application/x-www-form-urlencoded")
        self.assertEqual((status(done), self.verified()), (200, True))
        (event,) = self.events
        assert isinstance(event, Verified)
        self.assertEqual((event.user, event.sender, event.provenance, event.by), ("app", "ann@a.com", "token", f"web {HOST}"))
        for method in ("GET", "POST"):
            again = yield self.ask(method, path)
            self.assertEqual(status(again), 410)
            self.assertIn(b"was used on", again)

    @inlineCallbacks
    def test_tokens_that_do_not_count(self) -> Any:
        """A9: unknown is 404, expired 410, each with its sentence and no command line; nothing changes."""
        token = self.token()
        self.now = NOW + 61
        for method in ("GET", "POST"):
            for path, code, said in ((f"/confirm/{token}", 410, b"expired on"), ("/confirm/" + "0" * 26, 404, b"not known here")):
                answer = yield self.ask(method, path)
                self.assertEqual(status(answer), code)
                self.assertIn(said, answer)
                self.assertNotIn(b"smtpplus sender", answer)
        self.assertFalse(self.verified())

    @inlineCallbacks
    def test_pages_are_closed_to_everything_from_elsewhere(self) -> Any:
        """Every answer forbids caching, framing, referrers and foreign content; the only style is the one whose hash is allowed."""
        answers = yield gatherResults(
            [self.ask("GET", path) for path in (f"/confirm/{self.token()}", "/confirm/x", "/healthz", "/nothing", "/broken")]
        )
        for answer in answers:
            head, _, body = answer.decode().partition("\r\n\r\n")
            policy = re.findall(r"(?im)^content-security-policy: (.*?)\r?$", head)
            self.assertEqual(len(policy), 1)
            self.assertTrue(policy[0].startswith("default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"))
            for field in ("cache-control: no-store", "referrer-policy: no-referrer", "x-content-type-options: nosniff"):
                self.assertIn(field, head.lower())
            self.assertNotRegex(body, r"(?i)<script|<img|<link|src=|href=|https?://| on[a-z]+=")
            for style in re.findall(r"<style>(.*?)</style>", body):
                self.assertIn(b64encode(hashlib.sha256(style.encode()).digest()).decode(), policy[0])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    @inlineCallbacks
    def test_what_is_shown_is_escaped(self) -> Any:
        """An address that looks like markup is text on the page."""
        answer = yield self.ask("GET", f"/confirm/{self.token('a&b@a.com')}")
        self.assertIn(b"<strong>a&amp;b@a.com</strong>", answer)
        token = self.token('"<script>x"@a.com', "other")
        answer = yield self.ask("GET", f"/confirm/{token}")
        self.assertIn(b"&lt;script&gt;", answer)
        self.assertNotIn(b"<script>", answer)

    @inlineCallbacks
    def test_unknown_paths_and_methods(self) -> Any:
        """Unknown paths are 404, methods a page does not have 405 with those it has, and the cause of a fault stays here."""
        for method, path, code in (
            ("GET", "/", 404),
            ("GET", "/confirm", 404),
            ("GET", "/confirm/", 404),
            ("GET", "/healthz/", 404),
            ("GET", "/healthz/x", 404),
            ("GET", "/../etc/passwd", 404),
            ("GET", "/%68ealthz", 404),
            ("GET", "healthz", 404),
            ("GET", "/" + "x" * 600, 414),
            ("GET", "/healthz?x=%ff&y", 200),
            ("POST", "/healthz", 405),
            ("DELETE", "/confirm/x", 405),
            ("BREW", "/confirm/x", 405),
            ("GET", "/broken", 500),
        ):
            answer = yield self.ask(method, path)
            self.assertEqual(status(answer), code, (method, path[:20]))
        refused = yield self.ask("PUT", "/confirm/x")
        self.assertIn(b"Allow: GET, HEAD, POST\r\n", refused)
        self.assertNotIn(b"secret cause", answer)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    @inlineCallbacks
    def test_bodies_are_bounded(self) -> Any:
        """A body over the limit is read to its end and refused with 413, whatever its framing; one without end is cut off."""
        limit = server.BODY
        chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
        head = b"POST /confirm/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        for octets, code in (
            (request("POST", "/confirm/x", body=b"x" * limit), 404),
            (request("POST", "/confirm/x", body=b"x" * (limit + 1)), 413),
            (head + chunk * 4 + b"0\r\n\r\n", 404),
            (head + chunk * 5 + b"0\r\n\r\n", 413),
            (head + chunk * 2000 + b"0\r\n\r\n", 0),
        ):
            answer = yield self.send(octets)
            self.assertEqual(status(answer), code)
        alive = yield self.ask("GET", "/healthz")
        self.assertEqual(status(alive), 200)

    @inlineCallbacks
    def test_malformed_requests_end_in_an_answer_or_a_closed_connection(self) -> Any:
        """Whatever is sent, nothing is raised, and the server serves the next."""
        for octets in (
            b"\r\n\r\n",
            b"\0\xff\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /healthz\r\n\r\n",
            b"GET /confirm/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"GET /healthz HTTP/9.9\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
            b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"POST /confirm/x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /confirm/x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            b"POST /confirm/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST /confirm/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            b"POST /confirm/x HTTP/1.1\r\nContent-Type: multipart/form-data\r\nContent-Length: 3\r\nConnection: close\r\n\r\nxxx",
            b"POST /confirm/x HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf",
            b"GET /healthz HTTP/1.1\r\nCookie: \xff=;;\r\nConnection: close\r\n\r\n",
        ):
            answer = yield self.send(octets, leave=True)
            self.assertIn(status(answer), (0, 200, 400, 404, 413, 431, 501), octets[:60])
        alive = yield self.ask("GET", "/healthz")
        self.assertEqual(status(alive), 200)
        self.assertEqual(self.flushLoggedErrors(), [])

    @inlineCallbacks
    def test_clients_that_leave_do_no_harm(self) -> Any:
        """A client that goes away before its answer is there leaves nothing behind; the answer is dropped."""
        left = self.send(request("GET", "/slow"), leave=True)
        yield until(lambda: self.waiting)
        yield left  # it closed its side, and the server the connection
        self.waiting.pop().callback(plain(200, "too late"))
        alive = yield self.ask("GET", "/healthz")
        self.assertEqual(status(alive), 200)
        self.assertEqual(self.flushLoggedErrors(), [])

    @inlineCallbacks
    def test_more_than_is_bearable_is_turned_away(self) -> Any:
        """Beyond the burst, requests are answered 503 with Retry-After, but for /healthz; beyond PER_CLIENT, connections are closed."""
        octets = request("GET", "/plain").replace(b"close", b"keep-alive") * int(server.BURST + server.RATE * 20)
        answers = yield self.send(octets + request("GET", "/healthz"))
        self.assertTrue(answers.endswith(b"\r\n\r\nok\n"))
        codes = re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)
        self.assertIn(b"503", codes)
        self.assertGreaterEqual(codes.count(b"200"), int(server.BURST))
        self.assertIn(b"Retry-After: 1", answers)
        held = yield deferToThread(lambda: [socket.create_connection((HOST, self.port), PATIENCE) for _ in range(server.PER_CLIENT)])
        try:
            yield deferLater(reactor, 0.2, lambda: None)
            turned_away = yield self.ask("GET", "/healthz")
            self.assertEqual(turned_away, b"")
        finally:
            for each in held:
                each.close()
        for _ in range(200):
            if (yield self.ask("GET", "/nothing")):
                return
        self.fail("freed connections are not used again")

    @inlineCallbacks
    def test_who_keeps_a_connection_and_asks_nothing_is_cut_off(self) -> Any:
        """However busy a connection looks, it ends unless a request is complete within DEADLINE; other addresses are served meanwhile."""
        self.patch(server, "DEADLINE", 0.5)

        def trickle() -> bool:
            with socket.create_connection((HOST, self.port), PATIENCE) as connection:
                try:
                    for octet in b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 400:
                        connection.sendall(bytes([octet]))
                        time.sleep(0.02)
                except ConnectionError:
                    return True
            return False

        cut = deferToThread(trickle)
        held = yield deferToThread(lambda: [socket.create_connection((HOST, self.port), PATIENCE) for _ in range(server.PER_CLIENT - 1)])
        other = yield deferToThread(talk, self.port, request("GET", "/healthz"), False, "127.0.0.2")
        self.assertEqual(status(other), 200)
        self.assertTrue((yield cut))
        for each in held:
            each.close()

    @inlineCallbacks
    def ready(self) -> Any:
        answer = yield self.ask("GET", "/readyz")
        return status(answer), answer.rpartition(b"\r\n")[2].decode().strip()

    @inlineCallbacks
    def test_readiness_has_a_reason(self) -> Any:
        """C9: /readyz is 503 with the reason while the daemon starts, while something is in the way, and while the writer cannot commit."""
        self.patch(measures, "GOOD", 0.0)
        self.assertEqual((yield self.ready()), (503, "not ready: it is starting"))
        self.readiness.why_not = ""
        self.assertEqual((yield self.ready()), (200, "ready"))
        self.in_the_way = "not all ports are open"
        self.assertEqual((yield self.ready()), (503, "not ready: not all ports are open"))
        self.in_the_way = ""
        with self.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE status RENAME TO elsewhere")
        self.assertEqual((yield self.ready()), (503, "not ready: the database does not commit: no such table: status"))
        with self.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO status")
        self.assertEqual((yield self.ready()), (200, "ready"))
        self.patch(measures, "PATIENCE", 0.1)
        with self.engine.begin():  # somebody else holds the lock
            self.assertEqual((yield self.ready()), (503, "not ready: the database does not commit within 0 s"))
            self.assertEqual(status((yield self.ask("GET", "/healthz"))), 200)

    @inlineCallbacks
    def test_readiness_costs_little(self) -> Any:
        """However many ask, a commit is tried once in a while, and all hear the same."""
        self.readiness.why_not = ""
        before = self.database.writer.commits
        answers = yield gatherResults([self.ready() for _ in range(5)])
        self.assertEqual(set(answers), {(200, "ready")})
        yield self.ready()
        self.assertEqual(self.database.writer.commits - before, 1)

    def test_a_port_that_is_held_is_a_sentence(self) -> None:
        """A port that another program holds: the sentence names it and the option."""
        with self.assertRaises(HTTPListenError) as refused:
            HTTPServer((HOST, self.port), {}, reactor).bind()
        self.assertIn(f"{HOST}:{self.port}", str(refused.exception))
        self.assertIn("[http] listen", str(refused.exception))


@pytest.mark.parametrize(
    ("http", "address"),
    [
        (HTTP(), "http://127.0.0.1:8025/confirm/TOKEN"),
        (HTTP(listen=("::1", 80)), "http://[::1]:80/confirm/TOKEN"),
        (HTTP(listen=("0.0.0.0", 80)), "http://relay.example.com:80/confirm/TOKEN"),
        (HTTP(public_url="https://m.example.com/x"), "https://m.example.com/x/confirm/TOKEN"),
        (HTTP(listen=None, public_url="https://m.example.com"), "https://m.example.com/confirm/TOKEN"),
        (HTTP(listen=None), ""),
    ],
)
def test_address_of_the_page(http: HTTP, address: str) -> None:
    """A9: the link is that of public_url, else of listen, else there is none."""
    assert page(Configuration(hostname="relay.example.com", http=http), "TOKEN") == address
