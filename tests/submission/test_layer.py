"""TLS under a session: what OpenSSL has to send goes out at once, in order, and nothing is lost at the end."""

from __future__ import annotations

import gc
import os
import ssl
import weakref
from collections import Counter
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from smtpplus.config import Limits
from smtpplus.events import Connected, Disconnected
from smtpplus.submission.session import Session
from tests.submission.rig import LOGIN, MESSAGE, Client, SessionCase, reactor, status
from tests.turns import until


def secured(port: int) -> Client:
    """A client behind STARTTLS."""
    client = Client(port)
    client.say("EHLO client.example", "STARTTLS")
    client.start_tls()
    return client


def records() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A client's TLS without a socket, so that a test decides how records are cut."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return context.wrap_bio(incoming, outgoing), incoming, outgoing


class LayerTests(SessionCase):
    """Over real sockets."""

    @inlineCallbacks
    def test_records_can_be_cut_anywhere(self) -> Any:
        """RFC 8446 §5.1: several records in a segment, a record in many segments, several commands in one: the replies are the same."""
        self.serve()

        def dialog(cut: int) -> bytes:
            client = Client(self.port)
            client.say("EHLO client.example", "STARTTLS")
            tls, incoming, outgoing = records()
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    client.send(outgoing.read())
                    incoming.write(client.socket.recv(65_536))
            for line in (b"EHLO client.example\r\nNOOP\r\n", b"NO", b"OP\r\nVRFY x\r\n", b"QUIT\r\n"):
                tls.write(line)
            octets = outgoing.read()
            for start in range(0, len(octets), cut):
                client.send(octets[start : start + cut])
            clear, over = b"", False
            while not over:
                incoming.write(client.socket.recv(65_536))
                try:
                    while piece := tls.read(65_536):
                        clear += piece
                    over = True
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLZeroReturnError:  # the server says that this is the end, RFC 8446 §6.1
                    over = True
            client.close()
            return clear[clear.index(b"250 HELP") :]

        found = set()
        for cut in (1, 7, 100_000):
            found.add((yield self.during(dialog, cut)))
        expected = b"250 HELP\r\n250 2.0.0 Done\r\n250 2.0.0 Done\r\n252 2.0.0 Addresses are not verified, but mail for them is taken\r\n"
        self.assertEqual(found, {expected + b"221 2.0.0 Goodbye\r\n"})

    @inlineCallbacks
    def test_a_client_that_does_not_read_is_waited_for(self) -> Any:
        """Replies that do not fit into the socket wait in order, and none is lost; the end of TLS is announced (RFC 8446 §6.1)."""
        self.serve(limits=Limits(junk_commands=1_000_000, grace=0.2))
        many = 20_000  # replies of 90 octets: more than the sockets hold

        def dialog() -> list[str]:
            client = secured(self.port)
            for _ in range(many // 1000):  # commands are small, and fit where their replies do not
                client.send(b"HELP\r\n" * 1000)
            client.send(b"QUIT\r\n")
            replies = [client.reply() for _ in range(many + 1)]
            assert client.ended()
            client.close()
            return [reply[:4] for reply in replies]

        replies = yield self.during(dialog)
        self.assertEqual((Counter(replies), replies[-1]), (Counter({"214 ": many, "221 ": 1}), "221 "))

    @inlineCallbacks
    def test_what_is_no_tls_ends_the_connection(self) -> Any:
        """Octets that are no record, in the handshake or later, end the session; the server goes on."""
        self.serve()

        def dialog(later: bool) -> None:
            client = Client(self.port)
            client.say("EHLO client.example", "STARTTLS")
            if later:
                client.start_tls()
                os.write(client.socket.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)  # a record that was not encrypted by us
            else:
                client.send(b"EHLO client.example\r\n" * 20)
            self.addCleanup(client.close)

        for later in (False, True):
            yield self.during(dialog, later)
            yield self.eventually_parted()
        self.assertEqual((yield self.during(lambda: secured(self.port).codes("EHLO x", "NOOP"))), ["250", "250 2.0.0"])

    @inlineCallbacks
    def eventually_parted(self) -> Any:
        """Wait until every session is over."""
        for _ in range(400):
            if len(self.stated(Connected)) == len(self.stated(Disconnected)):
                return
            yield deferLater(reactor, 0.05, lambda: None)
        self.fail("a session never ended")

    @inlineCallbacks
    def test_a_session_leaves_nothing_behind(self) -> Any:
        """When a TLS connection is over its session is freed at once, without the garbage collector."""
        service = self.serve(limits=Limits(grace=0.2))

        def dialog() -> str:
            client = secured(self.port)
            client.say("EHLO client.example", LOGIN, "MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            reply = client.reply()
            self.session = weakref.ref(next(iter(service.sessions._all)))
            client.say("QUIT")
            client.close()
            return reply

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.assertEqual(status((yield self.during(dialog))), "250 2.0.0")
        yield self.eventually_parted()
        yield until(lambda: not isinstance(self.session(), Session))
