"""A client that goes while a step of its session waits: nothing is made of what it left, and whom the portal let in is logged out."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import deferLater

from smtpplus.config import Configuration, Limits, Listen
from smtpplus.events import Accepted, Authenticated, Disconnected, Events, RefusedMore
from smtpplus.mail.transparency import Literal
from smtpplus.submission.acceptance import Acceptance
from smtpplus.submission.checker import DirectoryChecker, SubmissionDelivery, SubmissionRealm
from smtpplus.submission.parameters import NONE
from smtpplus.submission.transaction import SPILL, Transaction
from tests.submission.rig import LOGIN, MESSAGE, Client, MemoryIntake, SessionCase, reactor, status
from tests.submission.test_acceptance import Anybody

HEADER = (b"From: app@a.com\r\n" + b"X-Pad: %b\r\n" % (b"x" * 900) * 400)[: SPILL - 10] + b"\r\n"  # with ours it is more than SPILL
TRUSTED = Listen(trusted_networks=(ipaddress.ip_network("127.0.0.0/8"),), trusted_as="app")


class Gate:
    """What is waited for: `asked` are those who wait, until `open`."""

    def __init__(self) -> None:
        self.closed = False
        self.asked: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """Fires at once, or when the gate opens."""
        if not self.closed:
            return succeed(None)
        self.asked.append(Deferred())
        return self.asked[-1]

    def open(self) -> None:
        """Let all go on."""
        self.closed = False
        asked, self.asked = self.asked, []
        for each in asked:
            each.callback(None)


class Behind(MemoryIntake):
    """An intake whose disk is behind the gate."""

    gate: Gate

    def write(self, octets: bytes) -> Deferred[None]:
        self.pieces.append(octets)
        return self.gate.wait()


class GatedDelivery:
    """The real delivery, whose checks are behind the gate."""

    def __init__(self, delivery: SubmissionDelivery, gate: Gate) -> None:
        self.delivery = delivery
        self.gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self.delivery, name)

    def validateFrom(self, helo: Any, origin: Any) -> Deferred[Any]:
        return self.gate.wait().addCallback(lambda _: self.delivery.validateFrom(helo, origin))

    def validateTo(self, user: Any) -> Deferred[Any]:
        return self.gate.wait().addCallback(lambda _: self.delivery.validateTo(user))


class GatedRealm(SubmissionRealm):
    """Logins are behind one gate, the checks of a session behind another; it counts who is in."""

    inside = 0
    logins: Gate
    checks: Gate

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        found = super().requestAvatar(avatarId, mind, *interfaces)
        return self.logins.wait().addCallback(lambda _: found).addCallback(self._enter)

    def _enter(self, avatar: Any) -> Any:
        interface, delivery, _ = avatar
        self.inside += 1
        return interface, GatedDelivery(delivery, self.checks), self._leave

    def _leave(self) -> None:
        self.inside -= 1


class PartingTests(SessionCase):
    """One user, who may send as a.com."""

    def setUp(self) -> None:
        super().setUp()
        self.logins, self.checks, self.disk = Gate(), Gate(), Gate()

    def portal(self, bus: Events) -> Portal:
        """The portal of the accounts with a GatedRealm."""
        directory = self.directory()
        self.realm = GatedRealm(directory, Configuration(hostname="mail.example.com"), bus, time.time)
        self.realm.logins, self.realm.checks = self.logins, self.checks
        return Portal(self.realm, [DirectoryChecker(directory, b"key")])

    @inlineCallbacks
    def parted(self, gate: Gate, say: bytes, *, login: bool = True) -> Any:
        """A client says this, and goes while it waits at the gate, which then opens."""

        def go() -> Client:
            client = self.logged_in() if login else Client(self.port)
            if not login:
                client.codes("EHLO client.example")
            gate.closed = True
            client.send(say)
            return client

        gone = len(self.stated(Disconnected))
        client = yield self.during(go)
        yield self.until(lambda: gate.asked)
        client.close()
        yield self.until(lambda: len(self.stated(Disconnected)) > gone)
        gate.open()
        yield deferLater(reactor, 0.02, lambda: None)

    @inlineCallbacks
    def until(self, condition: Callable[[], object]) -> Any:
        while not condition():
            yield deferLater(reactor, 0.005, lambda: None)

    @inlineCallbacks
    def test_a_last_chunk_that_waits_for_the_disk(self) -> Any:
        """RFC 3030 §2, RFC 5321 §4.2.5: who goes behind BDAT LAST, before 250, while its octets are written, leaves no message."""
        self.serve()
        intakes: list[Behind] = []

        def begin(number: int) -> Behind:
            intakes.append(Behind(self.spool))
            intakes[-1].gate = self.disk
            return intakes[-1]

        self.spool.begin = begin  # type: ignore[method-assign, assignment]  # the disk that answers when the test says so
        start = b"MAIL FROM:<app@a.com>\r\nRCPT TO:<x@example.net>\r\n"
        for data in (b"BDAT %d LAST\r\n" % len(HEADER) + HEADER, b"BDAT %d\r\n" % len(HEADER) + HEADER + b"BDAT 0 LAST\r\n"):
            yield self.parted(self.disk, start + data)
        yield self.parted(self.disk, start + b"DATA\r\n" + HEADER + b".\r\n")
        self.assertEqual((self.spool.kept, self.stated(Accepted)), ([], []))
        self.assertEqual([(each.aborted, each.committed) for each in intakes], [(True, False)] * 3)

    @inlineCallbacks
    def test_a_login_that_takes_its_time(self) -> Any:
        """RFC 4954 §4: who goes before the answer to AUTH, or to a trusted network's first MAIL, is not logged in for ever."""
        self.serve(portal=self.portal)
        yield self.parted(self.logins, LOGIN.encode() + b"\r\n", login=False)
        self.assertEqual((self.realm.inside, self.stated(Authenticated)), (0, []))
        yield self.tearDown()
        self.setUp()
        self.serve(TRUSTED, portal=self.portal)
        yield self.parted(self.logins, b"MAIL FROM:<app@a.com>\r\n", login=False)
        self.assertEqual(self.realm.inside, 0)

    @inlineCallbacks
    def test_checks_that_take_their_time(self) -> Any:
        """Bad input: who goes before MAIL or RCPT is answered begins no transaction, and is no fault of ours."""
        self.serve(portal=self.portal)
        yield self.parted(self.checks, b"MAIL FROM:<app@a.com> MT-PRIORITY=3\r\n")
        yield self.parted(self.checks, b"MAIL FROM:<app@a.com>\r\nRCPT TO:<x@example.net>\r\n")
        self.assertEqual(self.realm.inside, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    @inlineCallbacks
    def test_a_commit_that_takes_its_time(self) -> Any:
        """RFC 5321 §6.1: who goes while the message is committed has sent it; what the session stated at its end is not stated again."""
        self.serve(limits=Limits(bad_commands=1000, grace=0.2))
        self.spool.hold = True

        def go() -> None:
            client = self.logged_in()
            client.send(b"MAIL FROM:<stranger@b.com>\r\n" * 103)
            assert {status(client.reply()) for _ in range(103)} == {"550 5.7.1"}
            client.codes("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            client.close()

        yield self.during(go)
        yield self.until(lambda: self.stated(Disconnected) and self.spool.waiting)
        self.spool.release()
        self.assertEqual((len(self.spool.kept), len(self.stated(Accepted))), (1, 1))
        self.assertEqual([each.count for each in self.stated(RefusedMore)], [3])

    def test_what_was_aborted_or_is_not_whole_is_not_handed_in(self) -> None:
        """C2, RFC 5321 §4.2.5: a transaction that was aborted, or lacks octets by a fault of ours, is never handed in, and not twice."""
        self.spool.hold = True
        acceptance = Acceptance(
            configuration=Configuration(hostname="mail.example.com"), events=Events(), spool=self.spool, new_id=lambda: 1, now=time.time
        )

        def ended(spoil: Callable[[Transaction], object]) -> None:
            transaction = Transaction(
                acceptance, Anybody(), sender="app@a.com", parameters=NONE, limit=10**6, session="s", client="192.0.2.1:1"
            )
            transaction.begin_data(Literal(), bytes)
            transaction.feed(MESSAGE)
            transaction.finish()
            spoil(transaction)
            transaction.end()

        for spoil in (Transaction.abort, lambda each: setattr(each, "_held", each._held - 1)):
            self.assertRaises(RuntimeError, ended, spoil)
        self.assertEqual(self.spool.waiting, [])
        self.assertRaises(RuntimeError, ended, Transaction.end)
        self.assertEqual([len(kept.content) == kept.envelope.size for _, kept in self.spool.waiting], [True])
        self.assertEqual(acceptance.held, 0)
