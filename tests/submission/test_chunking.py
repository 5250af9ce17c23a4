"""CHUNKING (RFC 3030) over real sockets: whatever becomes of a chunk, its octets are read and nothing of them runs as a command."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread

from smtpplus.config import Limits, Listen
from smtpplus.events import Accepted, Disconnected, Refused
from tests.submission.dialog import WAYS, hold
from tests.submission.rig import LOGIN, MESSAGE, Client, SessionCase, reactor, status
from tests.submission.test_replaced_faults import slow_portal

CHUNKS = f"""
S: 220 *
C: HELO client.example
S: 250 *
C: {LOGIN}
S: 235 *
C: MAIL FROM:<app@a.com>
S: 250 2.1.0 *
C: RCPT TO:<x@example.net>
S: 250 2.1.5 *
C: BDAT 17
C: From: app@a.com
S: 250 2.0.0 17 octets taken
C: DATA
S: 503 5.5.1 *chunks*
C: RCPT TO:<y@example.net>
S: 503 5.5.1 *chunks*
C: MAIL FROM:<app@a.com>
S: 503 5.5.1 *
C: NOOP
S: 250 2.0.0 *
C: BDAT 0
S: 250 2.0.0 0 octets taken
C: bdat 26
C: Subject: dots
C:
C: .
C: QUIT
S: 250 2.0.0 26 octets taken
C: BDAT 12 last
C: ..two dots
S: 250 2.0.0 queued as *
C: BDAT 0 LAST
S: 503 5.5.1 *MAIL first
C: MAIL FROM:<app@a.com>
S: 250 2.1.0 *
C: BDAT 6 LAST
C: DATA
S: 503 5.5.1 *no recipient*
C: RCPT TO:<x@example.net>
S: 250 2.1.5 *
C: BDAT 39 LAST
C: From: app@a.com
C:
C: one chunk
C: RSET
C: .
S: 250 2.0.0 queued as *
C: BDAT 4 LAST
C: QU
S: 503 5.5.1 *
C: QUIT
S: 221 *
"""

FAILURES = f"""
S: 220 *
C: EHLO client.example
S: 250-mail.example.com
S: 250-PIPELINING
S: 250-SIZE 100
S: 250-8BITMIME
S: 250-SMTPUTF8
S: 250-CHUNKING
S: 250-ENHANCEDSTATUSCODES
S: 250-DSN
S: 250-MT-PRIORITY
S: 250-FUTURERELEASE *
S: 250-DELIVERBY *
S: 250-LIMITS *
S: 250-AUTH *
S: 250 HELP
C: BDAT 6
C: QUIT
S: 503 5.5.1 *
C: {LOGIN}
S: 235 *
C: MAIL FROM:<app@a.com>
S: 250 2.1.0 *
C: RCPT TO:<x@example.net>
S: 250 2.1.5 *
C: BDAT 22
C: From: app@a.com
C:
C: a
S: 250 2.0.0 22 octets taken
C: BDAT 101
C: {"x" * 99}
S: 552 5.3.4 *100 octets*
C: BDAT 6
C: QUIT
S: 552 5.3.4 *
C: BDAT 0 LAST
S: 552 5.3.4 *
C: BDAT 6 LAST
C: RSET
S: 503 5.5.1 *MAIL first
C: DATA
S: 503 5.5.1 *
C: MAIL FROM:<app@a.com>
S: 250 2.1.0 *
C: RCPT TO:<x@example.net>
S: 250 2.1.5 *
C: BDAT 21 LAST
C: From: x@b.com
C:
C: ab
S: 550 5.7.1 *
C: MAIL FROM:<app@a.com>
S: 250 2.1.0 *
C: RCPT TO:<x@example.net>
S: 250 2.1.5 *
C: BDAT 19
C: From: x@b.com
C:
C:
S: 550 5.7.1 *
C: RSET
S: 250 2.0.0 *
C: BDAT 6
C: QUIT
S: 503 5.5.1 *
C: MAIL FROM:<app@a.com>
S: 250 2.1.0 *
C: RCPT TO:<x@example.net>
S: 250 2.1.5 *
C: BDAT 19 LAST
C: From: app@a.com
C:
S: 250 2.0.0 queued as *
C: BDAT many
S: 501 5.5.4 *
S: 421 4.5.0 *
"""


def chunked(client: Client, *chunks: bytes, last: bool = True) -> list[str]:
    """One transaction, pipelined whole; the statuses of its chunks."""
    marks = [b""] * (len(chunks) - 1) + [b" LAST" if last else b""]
    commands = [b"BDAT %d%s\r\n" % (len(chunk), mark) + chunk for chunk, mark in zip(chunks, marks, strict=True)]
    client.send(b"MAIL FROM:<app@a.com>\r\nRCPT TO:<x@example.net>\r\n" + b"".join(commands))
    assert [status(client.reply()) for _ in range(2)] == ["250 2.1.0", "250 2.1.5"]
    return [status(client.reply()) for _ in chunks]


class ChunkingTests(SessionCase):
    """One user, who may send as a.com."""

    @inlineCallbacks
    def test_chunks_become_a_message(self) -> Any:
        """RFC 3030 §2: sizes, LAST in any case, a chunk of nothing, what may stand between chunks, and what is refused there with 503."""
        self.serve(limits=Limits(bad_commands=100))
        for by in WAYS:
            wrong = yield self.during(hold, self.port, CHUNKS, by)
            self.assertEqual(wrong, [], by)
        bodies = [kept.content.partition(b"\r\n\r\n")[2] for kept in self.spool.kept]
        self.assertEqual(bodies, [b".\r\nQUIT\r\n..two dots\r\n", b"one chunk\r\nRSET\r\n.\r\n"] * 3)
        self.assertEqual({kept.envelope.size - len(kept.content) for kept in self.spool.kept}, {0})

    @inlineCallbacks
    def test_a_failed_chunk_fails_those_behind_it(self) -> Any:
        """RFC 3030 §2: every chunk is read to its end before it is refused; what follows a failed one fails with it until LAST, RSET or
        EHLO; the connection survives; only a size that nobody can read ends it, for what follows could be taken for commands."""
        self.serve(Listen(auth_without_tls="always", tls="none"), limits=Limits(bad_commands=100, message_size=100))
        for by in WAYS:
            self.spool.kept.clear()
            wrong = yield self.during(hold, self.port, FAILURES, by)
            self.assertEqual(wrong, [], by)
            self.assertEqual(len(self.spool.kept), 1)

    @inlineCallbacks
    def test_many_chunks_behind_a_failed_one_are_no_mistakes(self) -> Any:
        """RFC 3030 §4.2: a client that pipelines a message in many chunks is not cut off, and the message is refused once in the log."""
        self.serve(limits=Limits(bad_commands=3, message_size=2_000))

        def dialog() -> list[str]:
            client = self.logged_in()
            answers = chunked(client, MESSAGE, *[b"x" * 1_000] * 30)
            answers += chunked(client, MESSAGE)
            client.close()
            return answers

        answers = yield self.during(dialog)
        self.assertEqual(answers, ["250 2.0.0", "250 2.0.0"] + ["552 5.3.4"] * 29 + ["250 2.0.0"])
        self.assertEqual([event.reason for event in self.stated(Refused)], ["too_large"])

    @inlineCallbacks
    def test_a_bare_line_end_in_a_chunk_refuses_the_message(self) -> Any:
        """RFC 5321 §2.3.8: content goes on by DATA, so a bare CR or LF is no more allowed here than there, wherever chunks are cut."""
        self.serve()
        bodies = [b"a\nb\r\n", b"a\rb\r\n", b"\n.\n", b"\r\n.\r\n\n", b"a\r\r\n", b"a\r"]

        def dialog() -> list[list[str]]:
            client = self.logged_in()
            answers = []
            for body in bodies:
                answers.append(chunked(client, MESSAGE + body))
                answers.append(chunked(client, MESSAGE, *(bytes((octet,)) for octet in body), b""))
            answers.append(chunked(client, MESSAGE + b"\r", b"\n"))
            client.close()
            return answers

        answers = yield self.during(dialog)
        self.assertEqual({each[-1] for each in answers[:-1]}, {"550 5.6.0"})
        self.assertEqual(answers[-1], ["250 2.0.0"] * 2)
        self.assertEqual([kept.content.endswith(MESSAGE.partition(b"\r\n\r\n")[2] + b"\r\n") for kept in self.spool.kept], [True])
        self.assertEqual({event.reason for event in self.stated(Refused)}, {"bare_line_end"})

    @inlineCallbacks
    def test_a_chunk_before_tls_is_read_and_refused(self) -> Any:
        """A4, RFC 3030 §2: where TLS is required first, a chunk is 530 and its octets are no commands."""
        self.serve(Listen(tls="starttls-required"))

        def dialog() -> list[str]:
            client = Client(self.port)
            client.send(b"EHLO client.example\r\nBDAT 6\r\nQUIT\r\nBDAT 0 LAST\r\nNOOP\r\n")
            codes = [status(client.reply()) for _ in range(4)]
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["250", "530 5.7.0", "530 5.7.0", "250 2.0.0"])

    @inlineCallbacks
    def test_a_large_message_may_come_in_any_chunks(self) -> Any:
        """What goes in comes out, for chunks of any size, also past what is held in memory, and with replies in order."""
        self.serve()
        chance = random.Random(3030)
        body = b"".join(b"%d line\r\n" % number for number in range(60_000))
        cuts = sorted(chance.randrange(len(body)) for _ in range(40))
        pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]

        def dialog() -> list[list[str]]:
            client = self.logged_in()
            answers = [chunked(client, MESSAGE, *pieces), chunked(client, MESSAGE + body), chunked(client, MESSAGE, body, b"")]
            client.close()
            return answers

        answers = yield self.during(dialog)
        self.assertEqual({answer for each in answers for answer in each}, {"250 2.0.0"})
        self.assertEqual([len(each) for each in answers], [42, 1, 3])
        for kept in self.spool.kept:
            self.assertEqual(kept.content.partition(b"\r\n\r\n")[2], MESSAGE.partition(b"\r\n\r\n")[2] + body)

    @inlineCallbacks
    def test_replies_keep_their_order_while_the_spool_waits(self) -> Any:
        """RFC 2920 §3.2: chunks, a commit that takes its time, and the next transaction behind it: one answer each, in order."""
        self.serve()
        self.spool.hold = True

        def dialog() -> list[str]:
            client = self.logged_in()
            pair = b"MAIL FROM:<app@a.com>\r\nRCPT TO:<x@example.net>\r\nBDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE
            client.send(pair + pair + b"NOOP\r\nWHAT\r\nQUIT\r\n")
            answers = [status(client.reply()) for _ in range(2)]
            blockingCallFromThread(reactor, self.spool.release)
            answers += [status(client.reply()) for _ in range(7)]
            client.close()
            return answers

        answers = yield self.during(dialog)
        one = ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
        self.assertEqual(answers, one + one + ["250 2.0.0", "500 5.5.1", "221 2.0.0"])
        self.assertEqual(len(self.stated(Accepted)), 2)

    @inlineCallbacks
    def test_replies_keep_their_order_while_checks_are_slow(self) -> Any:
        """RFC 2920 §3.2: with checks that take time, MAIL, RCPT and chunks in one segment are each answered for themselves, in order."""
        self.serve(portal=lambda bus: slow_portal(self.directory(), bus))

        def dialog() -> list[str]:
            client = self.logged_in()
            refused = b"MAIL FROM:<app@a.com>\r\nRCPT TO:<nobody@example.net>\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nRSET\r\n"
            client.send(refused + b"MAIL FROM:<stranger@b.com>\r\nBDAT 6 LAST\r\nQUIT\r\n")
            answers = [status(client.reply()) for _ in range(7)]
            client.send(b"MAIL FROM:<app@a.com>\r\nRCPT TO:<x@example.net>\r\nRCPT TO:<nobody@example.net>\r\nBDAT 1\r\nF")
            client.send(b"BDAT %d LAST\r\n" % (len(MESSAGE) - 1) + MESSAGE[1:] + b"QUIT\r\n")
            answers += [status(client.reply()) for _ in range(6)]
            client.close()
            return answers

        answers = yield self.during(dialog)
        self.assertEqual(answers[:7], ["250 2.1.0", "550 5.0.0", "503 5.5.1", "503 5.5.1", "250 2.0.0", "550 5.7.1", "503 5.5.1"])
        self.assertEqual(answers[7:], ["250 2.1.0", "250 2.1.5", "550 5.0.0", "250 2.0.0", "250 2.0.0", "221 2.0.0"])
        self.assertIn(b"\r\n" + MESSAGE.partition(b"\r\n\r\n")[0], self.spool.kept[0].content)

    @inlineCallbacks
    def test_a_client_that_goes_in_a_chunk_leaves_nothing(self) -> Any:
        """Bad input: a connection that breaks between chunks or in one leaves no message and no intake."""
        self.serve()

        def go() -> None:
            client = self.logged_in()
            chunked(client, MESSAGE, b"x" * 500_000 + b"\r\n", last=False)
            client.send(b"BDAT 100000 LAST\r\nhalf")
            client.close()

        yield self.during(go)
        while not self.stated(Disconnected):
            yield deferLater(reactor, 0.01, lambda: None)
        self.assertEqual(self.spool.kept, [])
        self.assertEqual([intake.aborted for intake in self.spool.intakes], [True])
