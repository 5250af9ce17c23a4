"""Ports, limits, TLS modes and the graceful stop, over real sockets."""

from __future__ import annotations

import itertools
import socket
import ssl
from pathlib import Path
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from smtpplus.config import TLS, Configuration, Limits, Listen, PortRange
from smtpplus.events import Events, Refused
from smtpplus.submission.listener import Dependencies, ListenError, SubmissionService
from smtpplus.submission.ports import sentence
from tests.submission.rig import HOST, LOGIN, MESSAGE, Client, MemorySpool, SessionCase, reactor, status


def held(*interfaces: str) -> tuple[int, list[socket.socket]]:
    """A port with two free ones behind it, and sockets that hold it on each interface."""
    for _ in range(100):
        holders = [socket.create_server((HOST, 0))]
        port = holders[0].getsockname()[1]
        try:
            for number in (port + 1, port + 2):
                holders.append(socket.create_server((HOST, number)))
            for free in holders[1:]:
                free.close()
        except OSError:
            for holder in holders:
                holder.close()
        else:
            return port, holders[:1]
    raise AssertionError("no three ports in a row are free")


class PortTests(TestCase):
    """What is bound, and what happens when it cannot be."""

    def service(self, *blocks: Listen) -> SubmissionService:
        configuration = Configuration(hostname="mail.example.com", state_directory=Path(self.mktemp()), listen=blocks)
        events = Events()
        return SubmissionService(
            Dependencies(
                configuration=configuration,
                events=events,
                portal=Portal(object(), []),  # type: ignore[arg-type]  # nobody logs in
                spool=MemorySpool(),
                new_id=itertools.count(1).__next__,
                tls=None,
                reactor=reactor,
            )
        )

    @inlineCallbacks
    def test_a_held_port_of_a_range_is_skipped(self) -> Any:
        """A2: the others of the range listen, and status can say which one does not, and why."""
        port, holders = held()
        service = self.service(Listen(ports=(PortRange(port, port + 2, False),), interfaces=(HOST,)))
        service.privilegedStartService()
        service.startService()
        self.assertEqual([each.getHost().port for each in service.ports], [port + 1, port + 2])
        self.assertEqual(service.skipped, [f"port {port} on {HOST} is held by another program"])
        yield service.stopService()
        holders[0].close()

    @inlineCallbacks
    def test_a_held_port_named_alone_stops_the_start(self) -> Any:
        """A2: one sentence that names the port, and nothing is left listening."""
        port, holders = held()
        service = self.service(Listen(ports=(PortRange(port + 1, port + 2, False), PortRange(port, port, True)), interfaces=(HOST,)))
        fault = self.assertRaises(ListenError, service.privilegedStartService)
        self.assertEqual(str(fault), f"port {port} on {HOST} is held by another program")
        yield deferLater(reactor, 0.05, lambda: None)
        for number in (port + 1, port + 2):
            socket.create_server((HOST, number)).close()
        holders[0].close()

    @inlineCallbacks
    def test_both_families_listen_on_one_port(self) -> Any:
        """RFC 3493 §5.3: "0.0.0.0" and "::" stand beside each other on the same port, where the machine has IPv6."""
        port, holders = held()
        holders[0].close()
        service = self.service(Listen(ports=(PortRange(port, port, True),)))
        service.privilegedStartService()
        service.startService()
        families = [each.addressFamily for each in service.ports]
        self.assertEqual(len(families) + len(service.skipped), 2)
        self.assertIn(socket.AF_INET, families)
        yield service.stopService()

    def test_a_port_that_needs_a_privilege_says_so(self) -> None:
        """The sentence for a port below 1024 without privilege names the remedy."""
        self.assertIn("CAP_NET_BIND_SERVICE", sentence("::", 25, PermissionError(13, "no")))


class LimitTests(SessionCase):
    """Each refusal names its limit."""

    @inlineCallbacks
    def test_connections_per_client_are_limited(self) -> Any:
        """One connection too many gets 421 with the limit; when one ends, the next is welcome."""
        self.serve(limits=Limits(connections_per_client=2, grace=0.2))

        def dialog() -> list[str]:
            first, second = Client(self.port), Client(self.port)
            third = Client(self.port, greeting=False)
            replies = [third.reply()]
            assert third.ended()
            third.close()
            first.say("QUIT")
            first.close()
            for _ in range(100):
                fourth = Client(self.port, greeting=False)
                reply = fourth.reply()
                fourth.close()
                if reply.startswith("220"):
                    break
            second.close()
            return [*replies, reply]

        replies = yield self.during(dialog)
        self.assertEqual([status(reply) for reply in replies], ["421 4.7.0", "220"])
        self.assertIn("2 are allowed", replies[0])

    @inlineCallbacks
    def test_connections_are_limited_in_all(self) -> Any:
        """`connections` counts every client's."""
        self.serve(limits=Limits(connections=1, grace=0.2))

        def dialog() -> str:
            first, second = Client(self.port), Client(self.port, greeting=False)
            reply = second.reply()
            first.close()
            second.close()
            return reply

        self.assertEqual(status((yield self.during(dialog))), "421 4.7.0")

    @inlineCallbacks
    def test_an_idle_session_is_parted_from(self) -> Any:
        """RFC 5321 §4.5.3.2.7: after `idle` without a command, also in DATA, 421 4.4.2; one that waits for us is not idle."""
        self.serve(limits=Limits(idle=0.5, grace=0.2))
        self.spool.hold = True

        def wait_for_us() -> Client:
            client = self.logged_in()
            client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            return client

        def wait_for_client() -> list[str]:
            silent, stuck = Client(self.port), self.logged_in()
            stuck.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            stuck.send(b"From: app")
            replies = [silent.reply(), stuck.reply()]
            assert silent.ended() and stuck.ended()
            silent.close()
            stuck.close()
            return replies

        patient = yield self.during(wait_for_us)
        replies = yield self.during(wait_for_client)
        self.assertEqual([status(reply) for reply in replies], ["421 4.4.2"] * 2)
        self.spool.release()
        self.assertEqual(status((yield self.during(patient.reply))), "250 2.0.0")
        patient.close()

    @inlineCallbacks
    def test_bad_commands_are_limited(self) -> Any:
        """A client that makes mistakes only is parted from with 421 4.7.0."""
        self.serve(limits=Limits(bad_commands=3, grace=0.2))

        def dialog() -> list[str]:
            client = Client(self.port)
            codes = client.codes("WHAT", "RCPT TO:<x@example.net>", "EHLO")
            codes.append(status(client.reply()))
            assert client.ended()
            client.close()
            return codes

        self.assertEqual((yield self.during(dialog)), ["500 5.5.1", "503 5.5.1", "501 5.5.4", "421 4.7.0"])

    @inlineCallbacks
    def test_a_browser_is_parted_from(self) -> Any:
        """A web page can make a browser talk to our ports: its first line ends the session, so that its body is no commands."""
        self.serve()

        def dialog() -> str:
            client = Client(self.port)
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO evil\r\nMAIL FROM:<app@a.com>\r\n")
            reply = client.reply()
            client.close()
            return reply

        self.assertEqual(status((yield self.during(dialog))), "500 5.5.1")
        yield deferLater(reactor, 0.05, lambda: None)
        self.assertEqual([event.reason for event in self.stated(Refused)], ["unknown_command"])

    @inlineCallbacks
    def test_what_is_sent_behind_a_refused_login_is_not_told(self) -> Any:
        """A6: the base64 lines of a client that ignores a refused AUTH LOGIN are unknown commands, and appear in no reply and event."""
        self.serve(Listen(auth_without_tls="never"))

        def dialog() -> list[str]:
            client = Client(self.port)
            replies = client.say("EHLO client.example", "AUTH LOGIN", "Y29ycmVjdC1ob3JzZQ==")
            client.close()
            return replies

        replies = yield self.during(dialog)
        self.assertEqual(status(replies[2]), "500 5.5.1")
        told = " ".join([*replies, *map(repr, self.events)]).lower()
        self.assertNotIn("y29ycmvjdc1ob3jzzq", told)
        self.assertNotIn("correct-horse", told)


class TLSModeTests(SessionCase):
    """[[listen]] tls, A4."""

    @inlineCallbacks
    def test_implicit_tls_is_on_from_the_start(self) -> Any:
        """RFC 8314 §3.3: the greeting comes inside TLS; STARTTLS is not offered; mail goes through."""
        self.serve(Listen(tls="implicit", auth_without_tls="never"))

        def dialog() -> list[str]:
            client = Client(self.port, greeting=False)
            client.start_tls()
            replies = [
                client.reply(),
                *client.say("EHLO client.example", LOGIN, "MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA"),
            ]
            client.send(MESSAGE + b".\r\n")
            replies.append(client.reply())
            client.close()
            return replies

        replies = yield self.during(dialog)
        self.assertEqual([status(reply) for reply in replies[-5:]], ["235 2.7.0", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0"])
        self.assertNotIn("STARTTLS", replies[1])
        self.assertIn(b"with ESMTPSA", self.spool.kept[0].content)

    @inlineCallbacks
    def test_starttls_can_be_required(self) -> Any:
        """RFC 3207 §4: before TLS only NOOP, EHLO, STARTTLS and QUIT work; AUTH is not offered."""
        self.serve(Listen(tls="starttls-required", auth_without_tls="always"))

        def dialog() -> tuple[str, list[str]]:
            client = Client(self.port)
            (hello,) = client.say("EHLO client.example")
            codes = client.codes(LOGIN, "MAIL FROM:<app@a.com>", "RSET", "VRFY x", "NOOP", "STARTTLS")
            client.start_tls()
            codes += client.codes("EHLO client.example", LOGIN, "MAIL FROM:<app@a.com>", "QUIT")
            client.close()
            return hello, codes

        hello, codes = yield self.during(dialog)
        self.assertNotIn("AUTH", hello)
        self.assertEqual(codes, ["530 5.7.0"] * 4 + ["250 2.0.0", "220 2.0.0", "250", "235 2.7.0", "250 2.1.0", "221 2.0.0"])

    @inlineCallbacks
    def test_tls_can_be_off(self) -> Any:
        """tls = "none": STARTTLS is neither offered nor taken."""
        self.serve(Listen(tls="none", auth_without_tls="always"))

        def dialog() -> list[str]:
            client = Client(self.port)
            replies = client.say("EHLO client.example", "STARTTLS", LOGIN)
            client.close()
            return replies

        hello, starttls, login = yield self.during(dialog)
        self.assertNotIn("STARTTLS", hello)
        self.assertEqual((status(starttls), status(login)), ("503 5.5.1", "235 2.7.0"))

    @inlineCallbacks
    def test_the_minimum_version_is_kept(self) -> Any:
        """[tls] minimum_version = "1.3": a client that has 1.2 only gets no session."""
        self.serve(tls=TLS(minimum_version="1.3"))

        def dialog(version: ssl.TLSVersion) -> str | None:
            client = Client(self.port)
            client.say("EHLO client.example", "STARTTLS")
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, version
            with context.wrap_socket(client.socket) as wrapped:
                return wrapped.version()

        yield self.assertFailure(self.during(dialog, ssl.TLSVersion.TLSv1_2), ssl.SSLError)
        self.assertEqual((yield self.during(dialog, ssl.TLSVersion.TLSv1_3)), "TLSv1.3")


class StopTests(SessionCase):
    """SIGTERM, as the service sees it."""

    @inlineCallbacks
    def test_a_graceful_stop_loses_nothing(self) -> Any:
        """C11: no new sessions; idle ones get 421 4.3.2; a running transaction gets its 250 first, then the same; then it is over."""
        service = self.serve(limits=Limits(grace=20.0))

        def begin() -> tuple[Client, Client]:
            idle, running = self.logged_in(), self.logged_in()
            running.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            return idle, running

        idle, running = yield self.during(begin)
        stopped = service.stopService()

        def end() -> list[str]:
            replies = [idle.reply()]
            assert idle.ended()
            running.send(MESSAGE + b".\r\n")
            replies += [running.reply(), running.reply()]
            assert running.ended()
            idle.close()
            running.close()
            return replies

        replies = yield self.during(end)
        yield stopped
        self.assertEqual([status(reply) for reply in replies], ["421 4.3.2", "250 2.0.0", "421 4.3.2"])
        self.assertEqual((len(self.spool.kept), len(service.sessions)), (1, 0))
        with self.assertRaises(ConnectionRefusedError):
            yield self.during(Client, self.port)

    @inlineCallbacks
    def test_the_grace_period_ends(self) -> Any:
        """A transaction that is not finished within `grace` gets 421, and leaves nothing."""
        service = self.serve(limits=Limits(grace=0.2))

        def begin() -> Client:
            client = self.logged_in()
            client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE)
            return client

        client = yield self.during(begin)
        yield service.stopService()
        self.assertEqual(status((yield self.during(client.reply))), "421 4.3.2")
        client.close()
        self.assertEqual((self.spool.kept, len(service.sessions)), ([], 0))

    @inlineCallbacks
    def test_what_may_yet_be_kept_is_not_refused(self) -> Any:
        """C11: a client whose message is still being committed when `grace` is over gets no 421, as it may be kept: 250, or no reply."""
        service = self.serve(limits=Limits(grace=0.2))
        self.spool.hold = True

        def begin() -> Client:
            client = self.logged_in()
            client.say("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            return client

        client: Client = yield self.during(begin)
        yield service.stopService()

        def heard() -> str:
            try:
                return client.line()
            except ConnectionResetError:
                return ""

        self.assertEqual((yield self.during(heard)), "")
        client.close()

    @inlineCallbacks
    def test_a_client_that_does_not_listen_is_cut_off(self) -> Any:
        """A session that takes no reply cannot keep the server from stopping."""
        service = self.serve(limits=Limits(junk_commands=1_000_000_000, grace=0.2))

        def flood() -> Client:
            client = Client(self.port)
            client.socket.settimeout(0.5)
            try:
                while True:
                    client.send(b"HELP\r\n" * 10_000)
            except TimeoutError:
                return client

        client = yield self.during(flood)
        yield service.stopService()
        self.assertEqual(len(service.sessions), 0)
        client.close()
