"""Waiting and back-pressure over real sockets: a session that waits works on nothing, and memory does not grow with a client's haste."""

from __future__ import annotations

import itertools
import socket
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from smtpplus.config import Limits, Listen
from smtpplus.submission.channel import STEPS
from smtpplus.submission.session import Session
from tests.submission.rig import MESSAGE, PATIENCE, Client, SessionCase, reactor, status

READ = 65_536  # octets Twisted reads at once
COMMAND = b"HELP with words that make it as long as its answer, about\r\n"
ROUND = 2_000  # commands sent at once
PATIENT = Limits(junk_commands=1_000_000_000, grace=0.2)


class BackPressureTests(SessionCase):
    """A client that pipelines more than it reads."""

    def session(self) -> Session:
        """The one session under way."""
        assert self.service is not None
        (session,) = self.service.sessions._all
        assert isinstance(session, Session)
        return session

    def flood(self, client: Client) -> int:
        """Send commands until the server takes no more; how many octets it took."""
        client.socket.settimeout(0.5)
        sent, octets = 0, COMMAND * ROUND
        try:
            while True:
                sent += client.socket.send(octets[sent % len(COMMAND) :])
        except TimeoutError:
            client.socket.settimeout(PATIENCE)
            return sent

    @inlineCallbacks
    def check_unread_replies(self, tls: bool) -> Any:
        """Flood, look at what the server holds, then read everything."""
        self.serve(Listen(tls="implicit") if tls else None, limits=PATIENT)

        def connect() -> Client:
            client = Client(self.port, greeting=False)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            if tls:
                client.start_tls()
            client.reply()
            return client

        client = yield self.during(connect)
        sent = yield self.during(self.flood, client)
        session = self.session()
        transport = session.transport
        held = len(transport.dataBuffer) + transport._tempDataLen + len(session._framer)
        self.assertGreater(sent, 2 * READ)
        self.assertTrue(session._full and session._paused)
        self.assertLess(held, 5 * READ)  # one read, the answers to the one before, and what the transport calls full

        whole = sent // len(COMMAND)

        def read() -> set[str]:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_048_576)
            replies = {client.reply() for _ in range(whole)}
            client.close()
            return replies

        replies = yield self.during(read)
        self.assertEqual({status(reply) for reply in replies}, {"214 2.0.0"})

    def test_replies_that_nobody_reads_stop_the_reading(self) -> Any:
        """A client that floods without reading is not read from any more; when it reads, every command has its answer."""
        return self.check_unread_replies(tls=False)

    def test_the_same_under_tls(self) -> Any:
        """The direct way to the socket is not taken under TLS, and back-pressure holds there too."""
        return self.check_unread_replies(tls=True)

    @inlineCallbacks
    def test_a_session_that_waits_reads_nothing(self) -> Any:
        """While a commit is under way at most one read is kept; then everything is answered, in order."""
        self.serve(limits=PATIENT)
        self.spool.hold = True
        more = 200_000

        def dialog() -> Client:
            client = self.logged_in()
            client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            return client

        def send(client: Client) -> None:
            client.send(b"NOOP\r\n" * more + b"QUIT\r\n")

        client = yield self.during(dialog)
        while not self.spool.waiting:
            yield deferLater(reactor, 0.01, lambda: None)
        sending = deferToThread(send, client)
        while not self.session()._paused:
            yield deferLater(reactor, 0.01, lambda: None)
        yield deferLater(reactor, 0.2, lambda: None)
        self.assertLessEqual(len(self.session()._framer), READ)
        self.spool.release()

        def read() -> list[str]:
            replies = [status(client.reply()) for _ in range(more + 2)]
            client.close()
            return replies

        replies = yield self.during(read)
        yield sending
        self.assertEqual((replies[0], replies[-1], set(replies[1:-1])), ("250 2.0.0", "221 2.0.0", {"250 2.0.0"}))

    @inlineCallbacks
    def test_one_client_does_not_keep_the_others_waiting(self) -> Any:
        """However many commands one read holds, no more than STEPS run before the others have their turn, and none is lost."""
        self.serve(limits=PATIENT)
        many = 5_000
        waiting: list[int] = []  # commands of the client that wait, in each turn of the reactor

        def look() -> None:
            waiting.append(len(session._framer) // len(b"NOOP\r\n"))
            if client is not None:
                reactor.callLater(0, look)

        def flood(client: Client) -> list[str]:
            client.send(b"NOOP\r\n" * many)
            return [status(client.reply()) for _ in range(many)]

        client: Client | None = yield self.during(Client, self.port)
        session = self.session()
        look()
        replies = yield self.during(flood, client)
        assert client is not None
        client.close()
        client = None
        self.assertEqual(replies, ["250 2.0.0"] * many)
        self.assertGreater(len(set(waiting)), many // (4 * STEPS))
        done = [before - after for before, after in itertools.pairwise(waiting)]
        self.assertLessEqual(max(done), 2 * STEPS)  # one turn that a read gave, and one that was due

    @inlineCallbacks
    def test_commands_behind_a_login_wait_for_it(self) -> Any:
        """RFC 4954 §4: what is sent behind AUTH runs when the login is decided, and is answered behind it."""
        self.serve()

        def dialog() -> list[str]:
            client = Client(self.port)
            client.send(b"EHLO c\r\nAUTH PLAIN AGFwcABjb3JyZWN0LWhvcnNl\r\nMAIL FROM:<app@a.com>\r\nRSET\r\nQUIT\r\n")
            codes = [status(client.reply()) for _ in range(5)]
            assert client.ended()
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["250", "235 2.7.0", "250 2.1.0", "250 2.0.0", "221 2.0.0"])

    @inlineCallbacks
    def test_a_client_that_goes_while_its_message_is_committed(self) -> Any:
        """The message is accepted once; the session ends without a fault."""
        self.serve()
        self.spool.hold = True

        def dialog() -> None:
            client = self.logged_in()
            client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            client.close()

        yield self.during(dialog)
        assert self.service is not None
        while len(self.service.sessions) or not self.spool.waiting:
            yield deferLater(reactor, 0.01, lambda: None)
        self.spool.release()
        self.assertEqual(len(self.spool.kept), 1)
