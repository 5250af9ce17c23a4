"""The faults of Twisted's mail code that were reproduced, one by one, over real sockets: none of them is left in our sessions."""

from __future__ import annotations

import time
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.mail import smtp

from smtpplus.accounts.directory import Directory
from smtpplus.config import Configuration, Limits, Listen
from smtpplus.events import AuthenticationFailed, Events
from smtpplus.submission.checker import DirectoryChecker, SubmissionDelivery, SubmissionRealm
from tests.submission.rig import LOGIN, MESSAGE, Client, SessionCase, reactor, status


class SlowDelivery:
    """A delivery that takes a turn of the reactor, and refuses one recipient; everything else is the real one's."""

    def __init__(self, delivery: SubmissionDelivery) -> None:
        self.delivery = delivery
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.delivery, name)

    def validateFrom(self, helo: Any, origin: Any) -> Deferred[Any]:
        return self.later("MAIL", lambda: self.delivery.validateFrom(helo, origin))

    def validateTo(self, user: Any) -> Deferred[Any]:
        def check() -> Any:
            if user.dest.local == b"nobody":
                raise smtp.SMTPBadRcpt(user)
            return self.delivery.validateTo(user)

        return self.later(str(user.dest), check)

    def later(self, what: str, check: Any) -> Deferred[Any]:
        self.asked.append(what)
        done: Deferred[Any] = Deferred()
        reactor.callLater(0.01, done.callback, None)
        return done.addCallback(lambda _: check())


class SlowRealm(SubmissionRealm):
    """Gives slow deliveries."""

    def _avatar(self, user: Any, mind: Any) -> Any:
        interface, avatar, logout = super()._avatar(user, mind)
        return interface, SlowDelivery(avatar), logout


def slow_portal(directory: Directory, bus: Events) -> Portal:
    """The portal of the accounts with SlowDelivery as avatar."""
    return Portal(SlowRealm(directory, Configuration(hostname="mail.example.com"), bus, time.time), [DirectoryChecker(directory, b"key")])


class ReplacedFaultTests(SessionCase):
    """Numbered as in architecture.md, "The card"."""

    @inlineCallbacks
    def test_1_plaintext_behind_starttls_is_thrown_away(self) -> Any:
        """A3, RFC 3207 §4.2: what is sent in clear in the segment of STARTTLS never runs, and what was known before is forgotten."""
        self.serve()

        def dialog() -> tuple[list[str], list[str], list[str]]:
            client = self.logged_in()
            before = client.codes("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>")
            client.send(b"STARTTLS\r\nRSET\r\nEHLO injected.example\r\nQUIT\r\n")
            answer = status(client.reply())
            client.start_tls()
            after = client.codes(
                "NOOP", "MAIL FROM:<app@a.com>", "EHLO client.example", "MAIL FROM:<app@a.com>", "DATA", LOGIN, "DATA", "QUIT"
            )
            client.close()
            return before, [answer], after

        before, answer, after = yield self.during(dialog)
        self.assertEqual((before, answer), (["250 2.1.0", "250 2.1.5"], ["220 2.0.0"]))
        self.assertEqual(after[:4], ["250 2.0.0", "503 5.5.1", "250", "530 5.7.0"])
        self.assertEqual(after[4:], ["503 5.5.1", "235 2.7.0", "503 5.5.1", "221 2.0.0"])

    @inlineCallbacks
    def test_1_starttls_is_offered_before_tls_and_not_after(self) -> Any:
        """A3: EHLO has STARTTLS before the handshake; behind it, it is neither advertised nor accepted."""
        self.serve()

        def dialog() -> list[str]:
            client = Client(self.port)
            clear, _ = client.say("EHLO client.example", "STARTTLS")
            client.start_tls()
            secure, again, _ = client.say("EHLO client.example", "STARTTLS", "QUIT")
            client.close()
            return [clear, secure, status(again)]

        clear, secure, again = yield self.during(dialog)
        self.assertIn("\n250-STARTTLS\n", clear)
        self.assertNotIn("STARTTLS", secure)
        self.assertEqual(again, "503 5.5.1")

    @inlineCallbacks
    def test_2_a_long_line_of_data_stays_data(self) -> Any:
        """RFC 5321 §4.5.3.1.6: a line of data over 16,384 octets, and what follows it, never runs as commands."""
        self.serve()
        body = MESSAGE + b"x" * 20_000 + b"\r\nRSET\r\nMAIL FROM:<app@a.com>\r\nQUIT\r\n" + b"y" * 300_000 + b"\r\n"

        def dialog() -> list[str]:
            client = self.logged_in()
            client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(body + b".\r\n")
            replies = [client.reply(), *client.say("NOOP", "QUIT")]
            assert client.ended()
            client.close()
            return replies

        replies = yield self.during(dialog)
        self.assertEqual([status(reply) for reply in replies], ["250 2.0.0"] * 2 + ["221 2.0.0"])
        (kept,) = self.spool.kept
        self.assertTrue(kept.content.endswith(body[len(MESSAGE) :]))

    @inlineCallbacks
    def test_3_pipelined_commands_are_answered_in_order_when_checks_are_slow(self) -> Any:
        """RFC 2920 §3.2: with checks that take time, MAIL RCPT RCPT DATA in one segment are each answered for themselves, in order."""
        self.serve(portal=lambda bus: slow_portal(self.directory(), bus))

        def dialog() -> list[str]:
            client = self.logged_in()
            client.send(
                b"MAIL FROM:<app@a.com>\r\nRCPT TO:<x@example.net>\r\nRCPT TO:<nobody@example.net>\r\nRCPT TO:<y@example.net>\r\nDATA\r\n"
            )
            first = [client.reply() for _ in range(5)]
            client.send(MESSAGE + b".\r\nMAIL FROM:<stranger@b.com>\r\nNOOP\r\nQUIT\r\n")
            rest = [client.reply() for _ in range(4)]
            client.close()
            return [status(reply) for reply in first + rest]

        codes = yield self.during(dialog)
        self.assertEqual(codes[:5], ["250 2.1.0", "250 2.1.5", "550 5.0.0", "250 2.1.5", "354"])
        self.assertEqual(codes[5:], ["250 2.0.0", "550 5.7.1", "250 2.0.0", "221 2.0.0"])
        self.assertEqual([each.address for each in self.spool.kept[0].envelope.recipients], ["x@example.net", "y@example.net"])

    @inlineCallbacks
    def test_4_bare_auth_is_a_syntax_error(self) -> Any:
        """RFC 4954 §4: AUTH without a mechanism is 501, and the session goes on."""
        self.serve()

        def dialog() -> list[str]:
            client = Client(self.port)
            codes = client.codes("EHLO client.example", "AUTH", "AUTH ", LOGIN, "QUIT")
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["250", "501 5.5.4", "501 5.5.4", "235 2.7.0", "221 2.0.0"])

    @inlineCallbacks
    def test_4_auth_without_tls_is_hidden_where_it_is_not_allowed(self) -> Any:
        """A4, RFC 4954 §4: with auth_without_tls = "never", AUTH is neither advertised nor accepted before TLS, and is behind it."""
        self.serve(Listen(auth_without_tls="never"))

        def dialog() -> list[str]:
            client = Client(self.port)
            clear, refused, _ = client.say("EHLO client.example", LOGIN, "STARTTLS")
            client.start_tls()
            secure, accepted, _ = client.say("EHLO client.example", LOGIN, "QUIT")
            client.close()
            return [clear, status(refused), secure, status(accepted)]

        clear, refused, secure, accepted = yield self.during(dialog)
        self.assertNotIn("AUTH", clear)
        self.assertIn("\n250-AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS\n", secure)
        self.assertEqual((refused, accepted), ("538 5.7.11", "235 2.7.0"))

    @inlineCallbacks
    def test_4_failed_logins_are_counted(self) -> Any:
        """B1: 535 5.7.8 in the same words for an unknown user and a wrong password; at the limit the connection ends with 421."""
        self.serve(limits=Limits(auth_failures_per_connection=3, grace=0.2))

        def dialog() -> list[str]:
            client = Client(self.port)
            client.say("EHLO client.example")
            replies = client.say("AUTH PLAIN AGFwcAB3cm9uZw==", "AUTH PLAIN AG5vYm9keQB3cm9uZw==", "AUTH PLAIN AGFwcAB3cm9uZw==")
            replies.append(client.reply())
            assert client.ended()
            client.close()
            return replies

        replies = yield self.during(dialog)
        words, references = zip(*(reply.rstrip(")").split(" (ref ") for reply in replies[:3]), strict=True)
        self.assertEqual((len(set(words)), len(set(references))), (1, 3))
        self.assertEqual([status(reply) for reply in replies], ["535 5.7.8"] * 3 + ["421 4.7.0"])
        failed = self.stated(AuthenticationFailed)
        self.assertEqual([event.reason for event in failed], ["wrong_password", "unknown_user", "wrong_password"])
        self.assertEqual([event.user.partition(":")[0] for event in failed], ["app", "unknown", "app"])
        self.assertEqual(tuple(event.reference for event in failed), references)
        self.assertEqual({(event.port, event.mechanism) for event in failed}, {(self.port, "PLAIN")})

    @inlineCallbacks
    def test_5_temporary_failures_stay_temporary(self) -> Any:
        """C2: when the spool cannot take a message the answer is 452, not 550; nothing is kept, and the next message may be."""
        self.serve()
        self.spool.broken = True

        def dialog() -> list[str]:
            client = self.logged_in()
            codes = []
            for _ in range(2):
                client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
                client.send(MESSAGE + b".\r\n")
                codes.append(status(client.reply()))
                self.spool.broken = False
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["452 4.3.1", "250 2.0.0"])
        self.assertEqual(len(self.spool.kept), 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    @inlineCallbacks
    def test_6_one_message_however_many_recipients(self) -> Any:
        """A thousand recipients cost one message: one content, one commit, every address once."""
        self.serve()
        addresses = [f"r{number}@example.net" for number in range(1000)]

        def dialog() -> list[str]:
            client = self.logged_in()
            client.send(b"MAIL FROM:<app@a.com>\r\n" + b"".join(b"RCPT TO:<%s>\r\n" % each.encode() for each in [*addresses, addresses[0]]))
            codes = [status(client.reply()) for _ in range(1002)]
            client.say("DATA")
            client.send(MESSAGE + b".\r\n")
            codes.append(status(client.reply()))
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes[-2:], ["452 4.5.3", "250 2.0.0"])
        self.assertEqual(set(codes[1:-2]), {"250 2.1.5"})
        (kept,) = self.spool.kept
        self.assertEqual([each.address for each in kept.envelope.recipients], addresses)

    @inlineCallbacks
    def test_7_data_costs_the_same_however_it_is_cut(self) -> Any:
        """No work per line: a message of a hundred thousand lines, and one line of the same size, arrive unchanged in as many chunks."""
        self.serve()
        bodies = [b"\r\n" * 100_000, b"x" * 199_998 + b"\r\n"]

        def dialog() -> None:
            client = self.logged_in()
            for body in bodies:
                client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
                client.send(MESSAGE + body + b".\r\n")
                assert status(client.reply()) == "250 2.0.0"
            client.close()

        yield self.during(dialog)
        self.assertEqual([kept.content.partition(b"body\r\n")[2] for kept in self.spool.kept], bodies)
