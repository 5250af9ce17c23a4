"""The session over real sockets: dialogs fed whole, by line and octet by octet, and what is left behind them."""

from __future__ import annotations

import smtplib
from typing import Any

import msgspec
from twisted.internet.defer import inlineCallbacks

from smtpplus.config import Limits
from smtpplus.events import Accepted, Authenticated, Connected, Disconnected, Refused
from smtpplus.mail.envelope import Recipient
from tests.submission.dialog import hold
from tests.submission.rig import LOGIN, MESSAGE, Client, SessionCase, status

PLAIN_SUBMISSION = f"""
S: 220 mail.example.com ESMTP *
C: EHLO client.example
S: 250-mail.example.com
S: 250-PIPELINING
S: 250-SIZE 52428800
S: 250-8BITMIME
S: 250-SMTPUTF8
S: 250-CHUNKING
S: 250-ENHANCEDSTATUSCODES
S: 250-DSN
S: 250-MT-PRIORITY
S: 250-FUTURERELEASE 2592000 20[2-9][0-9]-*T*Z
S: 250-DELIVERBY 60
S: 250-LIMITS RCPTMAX=1000
S: 250-STARTTLS
S: 250-AUTH PLAIN LOGIN SCRAM-SHA-256
S: 250 HELP
C: {LOGIN}
S: 235 2.7.0 *
C: MAIL FROM:<app@a.com> SIZE=100 BODY=8BITMIME
S: 250 2.1.0 *
C: RCPT TO:<x@example.net>
S: 250 2.1.5 *
C: RCPT TO:<y@example.net>
S: 250 2.1.5 *
C: DATA
S: 354 *
C: From: app@a.com
C: Subject: dots
C:
C: ..one dot
C: ...two dots
C: MAIL FROM:<evil@example.org>
C: .
S: 250 2.0.0 queued as *
C: NOOP
S: 250 2.0.0 *
C: QUIT
S: 221 2.0.0 *
"""

EVERY_COMMAND = """
S: 220 *
C: NOOP
S: 250 2.0.0 *
C: noop with words
S: 250 2.0.0 *
C: MAIL FROM:<app@a.com>
S: 503 5.5.1 MAIL is out of order: say EHLO first
C: HELO client.example
S: 250 mail.example.com
C: MAIL FROM:<app@a.com>
S: 530 5.7.0 *
C: RCPT TO:<x@example.net>
S: 503 5.5.1 *
C: DATA
S: 503 5.5.1 *
C: VRFY app
S: 252 2.0.0 *
C: VRFY
S: 501 5.5.4 *
C: HELP
S: 214 2.0.0 *
C: RSET
S: 250 2.0.0 *
C: RSET now
S: 501 5.5.4 *
C: EXPN list
S: 502 5.5.1 *
C: WHAT
S: 500 5.5.1 *
C:
S: 500 5.5.2 *
C: EHLO
S: 501 5.5.4 *
C: AUTH
S: 501 5.5.4 *
C: AUTH MAGIC
S: 504 5.5.4 *
C: AUTH PLAIN !!!
S: 501 5.5.2 *
C: AUTH LOGIN
S: 334 VXNlcm5hbWU6
C: *
S: 501 5.7.0 *
C: QUIT
S: 221 2.0.0 *
"""

PARAMETERS = f"""
S: 220 *
C: EHLO client.example
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250-*
S: 250 *
C: {LOGIN}
S: 235 *
C: MAIL FROM:<app@a.com> SIZE=52428801
S: 552 5.3.4 *52428800*
C: MAIL FROM:<app@a.com> SIZE=many
S: 501 5.5.4 *
C: MAIL FROM:<app@a.com> SIZE=1 SIZE=2
S: 501 5.5.4 *
C: MAIL FROM:<app@a.com> BODY=BINARYMIME
S: 501 5.5.4 *
C: MAIL FROM:<app@a.com> COLOUR=red
S: 555 5.5.4 *COLOUR*
C: MAIL FROM:app@a.com
S: 501 5.1.7 *
C: MAIL TO:<app@a.com>
S: 501 5.5.4 *
C: MAIL FROM:<äpp@a.com>
S: 553 5.6.7 *
C: MAIL FROM:<äpp@a.com> SMTPUTF8 AUTH=<>
S: 250 2.1.0 *
C: MAIL FROM:<app@a.com>
S: 503 5.5.1 *
C: AUTH PLAIN AAA=
S: 503 5.5.1 *
C: RCPT TO:<>
S: 501 5.1.3 *
C: RCPT TO:<x@example.net> NOTIFY=NEVER COLOUR=red
S: 555 5.5.4 *
C: DATA
S: 503 5.5.1 *
C: RCPT TO:<postmaster>
S: 250 2.1.5 *
C: DATA now
S: 501 5.5.4 *
C: RSET
S: 250 2.0.0 *
C: MAIL FROM:<>
S: 250 2.1.0 *
C: QUIT
S: 221 2.0.0 *
"""


class DialogTests(SessionCase):
    """The same dialogs, however they are cut."""

    @inlineCallbacks
    def test_dialogs_do_not_depend_on_how_they_are_cut(self) -> Any:
        """RFC 5321 §4.1.4, RFC 2920: each command has its one answer, in order, fed whole, by line and octet by octet."""
        self.serve(limits=Limits(bad_commands=100))
        for dialog in (PLAIN_SUBMISSION, EVERY_COMMAND, PARAMETERS):
            for by in ("line", "octet", "whole"):
                wrong = yield self.during(hold, self.port, dialog, by)
                self.assertEqual(wrong, [], by)
        self.assertEqual(len(self.spool.kept), 3)
        for kept in self.spool.kept:
            envelope = kept.envelope
            self.assertEqual((envelope.sender, envelope.user, envelope.body), ("app@a.com", "app", "8BITMIME"))
            self.assertEqual(envelope.recipients, (Recipient("x@example.net"), Recipient("y@example.net")))
            self.assertTrue(kept.content.endswith(b"\r\n\r\n.one dot\r\n..two dots\r\nMAIL FROM:<evil@example.org>\r\n"))
            self.assertEqual(envelope.size, len(kept.content))

    @inlineCallbacks
    def test_smtplib_sends(self) -> Any:
        """A1: Python's own client logs in behind STARTTLS and sends, with host, port, user and password only."""
        self.serve()

        def send() -> dict[str, Any]:
            with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as client:
                client.starttls()
                client.login("app", "correct-horse")
                return client.sendmail("app@a.com", ["x@example.net"], MESSAGE)

        refused = yield self.during(send)
        self.assertEqual(refused, {})
        (kept,) = self.spool.kept
        self.assertIn(b"with ESMTPSA id " + self.stated(Accepted)[0].id.encode(), kept.content)

    @inlineCallbacks
    def test_a_response_that_is_no_line_ends_its_exchange(self) -> Any:
        """RFC 4954 §4: a response that is refused, as too long or for a bare line end, ends AUTH; what follows it is a command."""
        self.serve()

        def dialog() -> list[str]:
            client = Client(self.port)
            codes = client.codes("EHLO client.example")
            for response in ("A" * 13_000, "QXBw\nQXBw"):
                codes += client.codes("AUTH LOGIN", response, "EHLO client.example", "AUTH LOGIN", "YXBw", response, "NOOP")
            codes += client.codes(LOGIN)
            client.close()
            return codes

        codes = yield self.during(dialog)
        for first, refused in ((1, "500 5.5.6"), (8, "500 5.5.2")):
            self.assertEqual(codes[first : first + 7], ["334", refused, "250", "334", "334", refused, "250 2.0.0"])
        self.assertEqual(codes[-1], "235 2.7.0")

    @inlineCallbacks
    def test_every_step_is_an_event(self) -> Any:
        """A session leaves: connected, authenticated, refused, accepted, disconnected, with who, what and why."""
        self.serve()

        def dialog() -> str:
            client = self.logged_in()
            client.say("MAIL FROM:<stranger@b.com>", "MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            reply = client.reply()
            client.say("QUIT")
            client.close()
            return reply

        reply = yield self.during(dialog)
        yield self.during(lambda: None)
        (connected,), (authenticated,) = self.stated(Connected), self.stated(Authenticated)
        (refused,), (accepted,), (disconnected,) = self.stated(Refused), self.stated(Accepted), self.stated(Disconnected)
        self.assertEqual({event.session for event in (authenticated, refused, accepted, disconnected)}, {connected.session})
        self.assertEqual((connected.port, connected.client.startswith("127.0.0.1:")), (self.port, True))
        self.assertEqual((authenticated.user, authenticated.mechanism, authenticated.tls), ("app", "PLAIN", ""))
        self.assertEqual((refused.user, refused.sender, refused.reason), ("app", "stranger@b.com", "domain_not_authorized"))
        self.assertEqual(reply, f"250 2.0.0 queued as {accepted.id}")
        self.assertEqual((accepted.recipients, accepted.level, accepted.subject), (("x@example.net",), 3, "hello"))
        self.assertEqual(disconnected.messages, 1)

    @inlineCallbacks
    def test_events_are_text_whatever_the_client_sends(self) -> Any:
        """Octets that are no text, in names, subjects and addresses: every event can be written as JSON."""
        self.serve()

        def dialog() -> list[str]:
            client = self.logged_in()
            codes = client.codes("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net> COLOUR=red", "RCPT TO:<x@example.net>", "DATA")
            client.send(b"From: <\xff@a.com>\r\nSubject: \xfe\r\nMessage-ID: <\xfd@a.com>\r\n\r\n.\r\n")
            codes.append(status(client.reply()))
            client.codes("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(b"From: app@a.com\r\nSubject: \xfe\r\nMessage-ID: <\xfd@a.com>\r\n\r\n.\r\n")
            codes.append(status(client.reply()))
            client.send(b"AUTH PLAIN \xff\r\n\xff\xfe\r\n")
            codes += [status(client.reply()), status(client.reply())]
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes[1:], ["555 5.5.4", "250 2.1.5", "354", "550 5.6.0", "250 2.0.0", "503 5.5.1", "500 5.5.1"])
        self.assertGreater(len(msgspec.json.encode(self.events)), 0)
