"""Who may log in and send as whom, through the portal; and that checker and delivery can be swapped."""

from __future__ import annotations

import base64
import ipaddress
import time
from typing import Any, Callable

from sqlalchemy import Connection
from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import Anonymous
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.mail import smtp
from twisted.mail.interfaces import IMessageDelivery
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpplus.accounts import fields, passwords, store
from smtpplus.config import Configuration, Listen, Senders
from smtpplus.events import Accepted, AuthenticationFailed, Events, Refused, WouldRefuse
from smtpplus.storage.engine import create_engine
from smtpplus.submission.checker import ISubmissionDelivery, SubmissionRealm
from tests.submission.rig import LOGIN, PATIENCE, Client, SessionCase, reactor, status


def message(sender: str, more: bytes = b"") -> bytes:
    """A message from `sender`, with `more` header fields."""
    return b"From: %s\r\n%s\r\nbody\r\n" % (sender.encode(), more)


def submit(client: Client, sender: str, data: bytes) -> str:
    """The reply to MAIL if it is refused, else to the end of data."""
    (reply,) = client.say(f"MAIL FROM:<{sender}>")
    if not reply.startswith("250"):
        return reply
    client.say("RCPT TO:<x@example.net>", "DATA")
    client.send(data + b".\r\n")
    return client.reply()


class SenderTests(SessionCase):
    """`app` may send as a.com."""

    def submitted(self, *messages: tuple[str, bytes]) -> Any:
        """The replies to messages given as envelope sender and data."""

        def dialog() -> list[str]:
            client = self.logged_in()
            replies = [submit(client, sender, data) for sender, data in messages]
            client.close()
            return replies

        return self.during(dialog)

    @inlineCallbacks
    def test_envelope_and_header_are_both_checked(self) -> Any:
        """A13, A17, A20: a stranger in MAIL, From, among several From, or Sender: 550 5.7.1 that names address and remedy; not queued."""
        self.serve()
        replies = yield self.submitted(
            ("app@a.com", message("App <other@a.com>")),
            ("visitor@b.com", message("app@a.com")),
            ("app@a.com", message("Visitor <visitor@b.com>")),
            ("app@a.com", message("app@a.com, visitor@b.com")),
            ("app@a.com", message("app@a.com", b"Sender: visitor@b.com\r\n")),
            ("", message("app@a.com")),
            ("", message("visitor@b.com")),
            ("app@a.com", message("app@a.com", b"Reply-To: visitor@b.com\r\n")),
        )
        self.assertEqual([status(reply) for reply in replies], ["250 2.0.0"] + ["550 5.7.1"] * 4 + ["250 2.0.0", "550 5.7.1", "250 2.0.0"])
        self.assertTrue(all("visitor@b.com" in reply and "Reply-To" in reply for reply in replies if reply.startswith("550")))
        self.assertEqual(len(self.spool.kept), 3)
        self.assertEqual([event.reason for event in self.stated(Refused)], ["domain_not_authorized"] * 5)

    @inlineCallbacks
    def test_who_resends_is_checked(self) -> Any:
        """A13, RFC 5322 §3.6.6: Resent-From and Resent-Sender must be authorized, for each time; a Sender must name somebody."""
        self.serve()
        own = b"Resent-From: other@a.com\r\nResent-Sender: app@a.com\r\n"
        replies = yield self.submitted(
            ("app@a.com", message("app@a.com", own)),
            ("app@a.com", message("app@a.com", own + b"Resent-From: visitor@b.com\r\n")),
            ("app@a.com", message("app@a.com", b"Resent-Sender: visitor@b.com\r\n" + own)),
            ("app@a.com", message("app@a.com", b"Sender:\r\n")),
        )
        self.assertEqual([status(reply) for reply in replies], ["250 2.0.0", "550 5.7.1", "550 5.7.1", "550 5.6.0"])
        self.assertEqual([event.reason for event in self.stated(Refused)], ["domain_not_authorized"] * 2 + ["bad_from"])

    @inlineCallbacks
    def test_two_from_fields_are_refused(self) -> Any:
        """RFC 5322 §3.6: of two From fields nobody knows which one a mail client shows."""
        self.serve()
        (reply,) = yield self.submitted(("app@a.com", message("app@a.com", b"From: visitor@b.com\r\n")))
        self.assertEqual(status(reply), "550 5.6.0")

    @inlineCallbacks
    def test_alert_mode_sends_and_says_so_once(self) -> Any:
        """A19, D5: with unauthorized = "alert" the message is sent, and one event says what block mode would have answered."""
        self.serve(senders=Senders(unauthorized="alert"))
        replies = yield self.submitted(
            ("visitor@b.com", message("visitor@b.com")), ("app@a.com", message("visitor@b.com")), ("app@a.com", message("app@a.com"))
        )
        self.assertEqual({status(reply) for reply in replies}, {"250 2.0.0"})
        told = self.stated(WouldRefuse)
        self.assertEqual(
            [(event.sender, event.reason) for event in told],
            [("visitor@b.com", "domain_not_authorized"), ("visitor@b.com", "domain_not_authorized")],
        )
        self.assertTrue(all(event.reply.startswith("550 5.7.1") and event.user == "app" for event in told))
        self.assertEqual([kept.envelope.unauthorized for kept in self.spool.kept], [True, True, False])

    @inlineCallbacks
    def test_a_user_switched_off_is_noticed_by_a_session_under_way(self) -> Any:
        """A7: after the directory's next look, MAIL in a session that is logged in is refused, and so is a new login."""
        self.serve()

        def dialog() -> list[str]:
            client = self.logged_in()
            self.change(lambda connection: store.set_active(connection, "app", False, now=2.0))
            codes = client.codes("MAIL FROM:<app@a.com>")
            other = Client(self.port)
            codes += other.codes("EHLO client.example", LOGIN)
            client.close()
            other.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["530 5.7.0", "250", "535 5.7.8"])
        self.assertEqual(self.stated(Refused)[-1].reason, "inactive_user")
        self.assertEqual(self.stated(AuthenticationFailed)[-1].reason, "inactive_user")

    def change(self, work: Callable[[Connection], Any]) -> None:
        """Change accounts as the command line does, and wait until the directory has noticed. In a thread."""
        engine = create_engine(self.url)
        with engine.begin() as connection:
            work(connection)
            number = store.read_generation(connection)
        engine.dispose()
        deadline = time.monotonic() + PATIENCE
        while self.accounts is None or self.accounts._generation != number:
            assert time.monotonic() < deadline, "the directory does not notice"
            time.sleep(0.01)

    def reset_password(self, password: str) -> None:
        self.change(lambda connection: store.set_password(connection, "app", passwords.hash_password(password), now=2.0))

    def finished(self, change: Callable[[Connection], Any], sender: str) -> Any:
        """The reply to a message of app whose MAIL came before `change`, and whose header came after it was noticed."""

        def dialog() -> str:
            client = self.logged_in()
            assert client.codes(f"MAIL FROM:<{sender}>", "RCPT TO:<x@example.net>", "DATA")[-1] == "354"
            self.change(change)
            client.send(message(sender) + b".\r\n")
            reply = client.reply()
            client.close()
            return status(reply)

        return self.during(dialog)

    @inlineCallbacks
    def test_who_is_switched_off_finishes_no_message(self) -> Any:
        """A7: who is deactivated between MAIL and the end of the header is refused, and nothing is queued."""
        self.serve()
        code = yield self.finished(lambda connection: store.set_active(connection, "app", False, now=2.0), "app@a.com")
        self.assertEqual((code, self.spool.kept), ("530 5.7.0", []))
        self.assertEqual(self.stated(Refused)[-1].reason, "inactive_user")

    @inlineCallbacks
    def test_who_is_deleted_finishes_no_message(self) -> Any:
        """A7: who is deleted between MAIL and the end of the header is refused, and nothing is queued."""
        self.serve()
        code = yield self.finished(lambda connection: store.delete_user(connection, "app"), "app@a.com")
        self.assertEqual((code, self.spool.kept), ("530 5.7.0", []))

    @inlineCallbacks
    def test_block_mode_holds_for_a_message_under_way(self) -> Any:
        """A19: a message begun in alert mode is refused if block mode came before its header ended; so is a sender that was taken away."""
        self.serve(senders=Senders(unauthorized="alert"))
        changes = store.Changes(settings={"unauthorized": "block"}, domains=fields.domains("c.com"), vouch=True)
        code = yield self.finished(lambda connection: store.edit_user(connection, "app", changes, now=2.0), "app@a.com")
        self.assertEqual((code, self.spool.kept), ("550 5.7.1", []))

    @inlineCallbacks
    def test_a_password_that_was_reset_is_good_for_no_more_mail(self) -> Any:
        """A7: after the directory's next look, MAIL in a session that logged in with the old password is refused; the new one lets in, and
        keeps what it let in."""
        self.serve()

        def dialog() -> list[str]:
            client = self.logged_in()
            self.reset_password("another")
            codes = client.codes("MAIL FROM:<app@a.com>", "MAIL FROM:<app@a.com>")
            other = Client(self.port)
            login = base64.b64encode(b"\0app\0another").decode()
            codes += other.codes("EHLO client.example", f"AUTH PLAIN {login}", "MAIL FROM:<app@a.com>")
            client.close()
            other.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["530 5.7.0", "530 5.7.0", "250", "235 2.7.0", "250 2.1.0"])
        self.assertEqual({event.reason for event in self.stated(Refused)}, {"password_changed"})

    @inlineCallbacks
    def test_a_trusted_network_needs_no_password_and_loses_none(self) -> Any:
        """`trusted_networks`: whoever gave no password is not concerned by a new one."""
        self.serve(Listen(trusted_networks=(ipaddress.ip_network("127.0.0.0/8"),), trusted_as="app"))

        def dialog() -> list[str]:
            client = Client(self.port)
            codes = client.codes("EHLO client.example", "MAIL FROM:<app@a.com>", "RSET")
            self.reset_password("another")
            codes += client.codes("MAIL FROM:<app@a.com>")
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["250", "250 2.1.0", "250 2.0.0", "250 2.1.0"])

    @inlineCallbacks
    def test_the_users_priority_is_the_default(self) -> Any:
        """A23, A24: the user's level where the message says nothing, the smaller number where it does."""
        self.serve()
        self.add_user("bulk", priority=5)

        def dialog() -> None:
            client = Client(self.port)
            client.codes("EHLO client.example", "AUTH PLAIN AGJ1bGsAY29ycmVjdC1ob3JzZQ==")
            for data in (message("b@a.com"), message("b@a.com", b"Importance: high\r\n")):
                assert status(submit(client, "b@a.com", data)) == "250 2.0.0"
            client.close()

        yield self.during(dialog)
        self.assertEqual([kept.envelope.level for kept in self.spool.kept], [5, 2])
        self.assertEqual({kept.envelope.user for kept in self.spool.kept}, {"bulk"})


class TrustedNetworkTests(SessionCase):
    """[[listen]] trusted_networks and trusted_as."""

    def tried(self) -> Any:
        """MAIL without AUTH, then a message."""

        def dialog() -> list[str]:
            client = Client(self.port)
            client.codes("EHLO client.example")
            codes = [status(submit(client, sender, message(sender))) for sender in ("app@a.com", "visitor@b.com")]
            client.close()
            return codes

        return self.during(dialog)

    @inlineCallbacks
    def test_a_trusted_client_needs_no_login(self) -> Any:
        """A client from a trusted network submits as `trusted_as`, whose senders are checked all the same."""
        self.serve(Listen(trusted_networks=(ipaddress.ip_network("127.0.0.0/8"),), trusted_as="app"))
        self.assertEqual((yield self.tried()), ["250 2.0.0", "550 5.7.1"])
        self.assertEqual(self.spool.kept[0].envelope.user, "app")
        self.assertIn(b"with ESMTP id", self.spool.kept[0].content)

    @inlineCallbacks
    def test_others_do(self) -> Any:
        """A client from elsewhere, or one for a user that does not exist, is asked to log in."""
        self.serve(Listen(trusted_networks=(ipaddress.ip_network("192.0.2.0/24"),), trusted_as="app"))
        self.assertEqual((yield self.tried()), ["530 5.7.0"] * 2)

    @inlineCallbacks
    def test_an_unknown_user_is_trusted_with_nothing(self) -> Any:
        """`trusted_as` that names nobody opens nothing, and the refusal says that the relay's setting is wrong and not the client."""
        self.serve(Listen(trusted_networks=(ipaddress.ip_network("127.0.0.1/32"),), trusted_as="nobody"))
        self.assertEqual((yield self.tried()), ["530 5.7.0"] * 2)
        refused = self.stated(Refused)
        self.assertEqual({event.reason for event in refused}, {"trusted_user"})
        self.assertIn("trusted to submit as user nobody, but there is no such user; the operator", refused[0].reply)


@implementer(IMessageDelivery)
class OnlyTuesdays:
    """A delivery as somebody who knows Twisted writes one: no more than IMessageDelivery."""

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        if origin.local == b"refused":
            raise smtp.SMTPBadSender(origin, 550, "not on a Tuesday")
        return origin

    def validateTo(self, user: Any) -> Any:
        if str(user.dest) == "nobody@example.net":
            raise smtp.SMTPBadRcpt(user)
        return lambda: None

    def receivedHeader(self, helo: tuple[bytes, bytes], origin: Any, recipients: Any) -> bytes:
        return b"Received: from " + helo[0] + b"\n\tby a swapped delivery"


@implementer(IRealm)
class TuesdayRealm:
    """Gives everybody the same delivery."""

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return IMessageDelivery, OnlyTuesdays(), lambda: None


class SwapTests(SessionCase):
    """The card: login by twisted.cred, the avatar an IMessageDelivery."""

    def swapped(self, bus: Events) -> Portal:
        """Twisted's own checker, and a delivery of somebody else's."""
        return Portal(TuesdayRealm(), [InMemoryUsernamePasswordDatabaseDontUse(app=b"correct-horse")])

    @inlineCallbacks
    def test_checker_and_delivery_can_be_swapped(self) -> Any:
        """Twisted's own checker logs a user in, and a plain IMessageDelivery says who may send, to whom, and what Received reads."""
        self.serve(portal=self.swapped)

        def dialog() -> list[str]:
            client = Client(self.port)
            replies = client.say(
                "EHLO client.example", "AUTH PLAIN AGFwcAB3cm9uZw==", LOGIN, "MAIL FROM:<refused@a.com>", "MAIL FROM:<any@b.com>"
            )
            replies += client.say("RCPT TO:<nobody@example.net>", "RCPT TO:<x@example.net>", "DATA")
            client.send(message("any@b.com") + b".\r\n")
            replies.append(client.reply())
            client.close()
            return replies

        replies = yield self.during(dialog)
        self.assertEqual(
            [status(reply) for reply in replies[1:]],
            ["535 5.7.8", "235 2.7.0", "550 5.0.0", "250 2.1.0", "550 5.0.0", "250 2.1.5", "354", "250 2.0.0"],
        )
        self.assertRegex(replies[3], r"^550 5\.0\.0 not on a Tuesday \(ref [0-9A-Z]{13}\)$")
        (kept,) = self.spool.kept
        self.assertTrue(kept.content.startswith(b"Received: from client.example\r\n\tby a swapped delivery\r\nFrom: any@b.com\r\n"))
        self.assertEqual((kept.envelope.level, self.stated(Accepted)[0].user), (3, ""))

    @inlineCallbacks
    def test_our_avatar_is_what_it_says(self) -> Any:
        """The realm gives users, by name, an ISubmissionDelivery, which is an IMessageDelivery; anonymous ones get nothing."""
        directory = self.directory()
        realm = SubmissionRealm(directory, Configuration(hostname="mail.example.com"), Events(), time.time)
        _, avatar, _ = yield realm.requestAvatar(b"app", None, IMessageDelivery)
        self.assertTrue(verifyObject(ISubmissionDelivery, avatar))
        portal = Portal(realm, [AllowAnonymousAccess()])
        refused: Deferred[Any] = portal.login(Anonymous(), None, IMessageDelivery)
        yield self.assertFailure(refused, NotImplementedError)
        yield deferLater(reactor, 0, lambda: None)
