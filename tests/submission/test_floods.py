"""Clients that send nonsense as fast as they can: they are parted from, and the log does not grow at their pace."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from smtpplus.config import Limits, Listen
from smtpplus.events import AuthenticationFailed, Refused, RefusedMore
from smtpplus.submission.conduct import FORBEARANCE, TOLD, TOLD_OF_STRANGERS
from tests.submission.rig import MESSAGE, PASSWORD, USER, Client, SessionCase, reactor, status

MANY = 3_000  # commands at once


def plain(identity: bytes, password: bytes) -> str:
    """AUTH PLAIN of the user, who wants to be `identity`."""
    return "AUTH PLAIN " + base64.b64encode(b"\0".join((identity, USER.encode(), password))).decode()


def flood(client: Client, octets: bytes) -> list[str]:
    """Send, and read until the server closes."""
    codes = []
    try:
        client.send(octets)
        while reply := client.reply():
            codes.append(status(reply))
    except (ConnectionResetError, BrokenPipeError):
        pass  # it closed before it had read everything
    client.close()
    return codes


class FloodTests(SessionCase):
    """One user, who may send as a.com."""

    def gone(self) -> Any:
        """Fires when every session is over."""
        assert self.service is not None
        return None if not len(self.service.sessions) else deferLater(reactor, 0.01, self.gone)

    @inlineCallbacks
    def check_stranger(self, octets: bytes, listen: Listen | None = None) -> Any:
        """A client that does not log in sends `octets` MANY times."""
        self.serve(listen)

        def dialog() -> int:
            client = Client(self.port)
            client.say("EHLO client.example")
            return len(flood(client, octets * MANY))

        answered = yield self.during(dialog)
        yield self.gone()
        limit = Limits().bad_commands
        self.assertLessEqual(answered, limit + 1)
        refused = self.stated(Refused)
        self.assertEqual(len(refused), TOLD_OF_STRANGERS + 1)
        self.assertEqual(refused[-1].reason, "too_many_errors")
        self.assertEqual([event.count for event in self.stated(RefusedMore)], [limit - TOLD_OF_STRANGERS])

    def test_mail_without_login(self) -> Any:
        """530 for a command that needs a login counts as a mistake."""
        return self.check_stranger(b"MAIL\r\n")

    def test_chunks_without_login(self) -> Any:
        """So does a chunk that nobody may send."""
        return self.check_stranger(b"BDAT 0\r\n")

    def test_login_without_encryption(self) -> Any:
        """538 too."""
        return self.check_stranger(b"AUTH PLAIN\r\n", Listen(auth_without_tls="never"))

    def test_commands_before_required_encryption(self) -> Any:
        """And 530 where TLS must come first."""
        return self.check_stranger(b"RSET\r\n", Listen(tls="starttls-required"))

    @inlineCallbacks
    def test_connections_too_many_do_not_stay_for_a_handshake(self) -> Any:
        """`connections_per_client` on a port with implicit TLS: whoever is one too many is gone at once, and takes no place of others."""
        service = self.serve(Listen(tls="implicit"), limits=Limits(connections_per_client=1, connections=3, grace=0.2))

        def dialog() -> list[bytes]:
            first = Client(self.port, greeting=False)
            heard = []
            for _ in range(5):
                try:  # it may be gone before connect() has returned
                    other = Client(self.port, greeting=False)
                    heard.append(other.socket.recv(100))
                    other.close()
                except ConnectionResetError:
                    heard.append(b"")
            first.start_tls()
            heard.append(first.reply()[:4].encode())
            first.close()
            return heard

        self.assertEqual((yield self.during(dialog)), [b""] * 5 + [b"220 "])
        self.assertEqual([event.reason for event in self.stated(Refused)], ["too_many_connections"] * 5)
        yield self.gone()
        self.assertEqual(len(service.sessions), 0)

    @inlineCallbacks
    def test_logins_for_another(self) -> Any:
        """RFC 4616 §2: who wants to be another than they log in as fails as all do: the password is looked at, it is stated and counted,
        and the session ends. The user themselves may be named."""
        self.serve()

        def dialog() -> list[str]:
            client, other = Client(self.port), Client(self.port)
            codes = other.codes("EHLO c", plain(b"app", PASSWORD.encode()))
            client.say("EHLO client.example")
            codes += client.codes(plain(b"r", b"wrong"))
            codes += flood(client, plain(b"r", PASSWORD.encode()).encode() + b"\r\nQUIT\r\n")
            client = Client(self.port)
            client.say("EHLO client.example")
            codes += flood(client, (plain(b"r", PASSWORD.encode()).encode() + b"\r\n") * MANY)
            other.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes[:2], ["250", "235 2.7.0"])
        self.assertEqual(codes[2:5], ["535 5.7.8", "535 5.7.8", "221 2.0.0"])
        self.assertEqual(codes[5:], ["535 5.7.8"] * 3 + ["421 4.7.0"])
        failed = self.stated(AuthenticationFailed)
        self.assertEqual([event.reason for event in failed], ["wrong_password"] + ["other_identity"] * 4)
        self.assertEqual({event.user for event in failed}, {"app"})
        assert self.service is not None
        self.assertEqual(len(self.service.sessions.attempts), 1)

    @inlineCallbacks
    def test_commands_that_bring_nothing_forward(self) -> Any:
        """`junk_commands` may come between two messages; the next ends the session, whichever they are."""
        self.serve(limits=Limits(junk_commands=6, grace=0.2))

        def dialog() -> list[str]:
            client = self.logged_in()
            codes = client.codes("NOOP", "RSET", "VRFY x", "HELP", "HELO c", "MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            codes.append(status(client.reply()))
            return codes + flood(client, b"NOOP\r\n" * 10)

        codes = yield self.during(dialog)
        self.assertEqual(
            codes[:9], ["250 2.0.0", "250 2.0.0", "252 2.0.0", "214 2.0.0", "250", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0"]
        )
        self.assertEqual(codes[9:], ["250 2.0.0"] * 6 + ["421 4.7.0"])

    @inlineCallbacks
    def test_refused_mail_of_a_user_is_borne_longer(self) -> Any:
        """A13: a user whose mail is refused keeps the session for FORBEARANCE times as many; a message that is accepted starts the count
        anew. Each refusal is told."""
        self.serve(limits=Limits(bad_commands=2, grace=0.2))
        borne = 2 * FORBEARANCE

        def dialog() -> list[str]:
            client = self.logged_in()
            wrong = ["MAIL FROM:<x@b.com>"] * (borne - 1)
            codes = client.codes(*wrong, "MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            codes.append(status(client.reply()))
            return codes + flood(client, b"MAIL FROM:<x@b.com>\r\n" * (borne + 5))

        codes = yield self.during(dialog)
        self.assertEqual(codes[: borne + 3], ["550 5.7.1"] * (borne - 1) + ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"])
        self.assertEqual(codes[borne + 3 :], ["550 5.7.1"] * borne + ["421 4.7.0"])
        yield self.gone()
        self.assertEqual(len(self.stated(Refused)), 2 * borne)
        self.assertEqual(self.stated(RefusedMore), [])

    @inlineCallbacks
    def test_refusals_beyond_the_first_are_told_as_a_number(self) -> Any:
        """One session does not fill the log: TOLD refusals are stated, the others are counted; the count is stated when mail goes on."""
        self.serve(limits=Limits(recipients=1, grace=0.2))
        more = 50

        def dialog() -> str:
            client = self.logged_in()
            client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>")
            client.send(b"RCPT TO:<y@example.net>\r\n" * (TOLD + more))
            assert {status(client.reply()) for _ in range(TOLD + more)} == {"452 4.5.3"}
            client.say("DATA")
            client.send(MESSAGE + b".\r\n")
            reply = client.reply()
            client.close()
            return reply

        self.assertEqual(status((yield self.during(dialog))), "250 2.0.0")
        self.assertEqual(len(self.stated(Refused)), TOLD)
        self.assertEqual([(event.user, event.count) for event in self.stated(RefusedMore)], [("app", more)])
