"""A real listener on loopback in front of real accounts, and a spool that keeps what it is given in memory.

Clients are blocking sockets in threads, so that they share nothing with the server but the connection. Nothing waits without a bound.
"""

from __future__ import annotations

import itertools
import re
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from twisted.cred.portal import Portal
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from smtpplus.accounts import passwords, store
from smtpplus.accounts.directory import Directory
from smtpplus.accounts.user import Sender
from smtpplus.config import Configuration, Limits, Listen, PortRange
from smtpplus.events import Event, Events
from smtpplus.mail.envelope import Envelope
from smtpplus.storage.database import Database
from smtpplus.storage.engine import create_engine, migrate
from smtpplus.submission.checker import make_portal
from smtpplus.submission.listener import Dependencies, SubmissionService
from smtpplus.submission.tls import ServerTLS, server_tls

reactor: Any = _reactor
T = TypeVar("T")
HOST = "127.0.0.1"
PATIENCE = 20.0  # seconds a client waits for the server
USER, PASSWORD = "app", "correct-horse"
LOGIN = "AUTH PLAIN AGFwcABjb3JyZWN0LWhvcnNl"  # \0app\0correct-horse
MESSAGE = b"From: App <app@a.com>\r\nTo: x@example.net\r\nSubject: hello\r\n\r\nbody\r\n"


class Kept:
    """A message in the memory spool."""

    def __init__(self, envelope: Envelope, content: bytes) -> None:
        self.envelope = envelope
        self.content = content


class MemorySpool:
    """A Spool whose disk is a list. `hold` makes commits wait until `release`; `broken` makes them fail, as a full disk does."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.intakes: list[MemoryIntake] = []
        self.hold = False
        self.broken = False
        self.waiting: list[tuple[Deferred[None], Kept]] = []

    def accept(self, envelope: Envelope, content: bytes) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        kept = Kept(envelope, content)
        if self.hold:
            self.waiting.append((done, kept))
        else:
            reactor.callLater(0, self.settle, done, kept)
        return done

    def settle(self, done: Deferred[None], kept: Kept) -> None:
        """The commit is over."""
        if self.broken:
            done.errback(OSError("no space left on device"))
        else:
            self.kept.append(kept)
            done.callback(None)

    def release(self) -> None:
        """Let the commits that wait happen, in order."""
        self.hold = False
        waiting, self.waiting = self.waiting, []
        for done, kept in waiting:
            self.settle(done, kept)

    def begin(self, envelope_id: int) -> MemoryIntake:
        self.intakes.append(MemoryIntake(self))
        return self.intakes[-1]


class MemoryIntake:
    """One large message. Every piece asks its client to wait for a turn of the reactor."""

    def __init__(self, spool: MemorySpool) -> None:
        self.spool = spool
        self.pieces: list[bytes] = []
        self.aborted = False
        self.committed = False

    def write(self, octets: bytes) -> Deferred[None]:
        assert octets
        done: Deferred[None] = Deferred()
        self.pieces.append(octets)
        if self.spool.broken:
            reactor.callLater(0, done.errback, OSError("no space left on device"))
        else:
            reactor.callLater(0, done.callback, None)
        return done

    def commit(self, envelope: Envelope) -> Deferred[None]:
        self.committed = True
        return self.spool.accept(envelope, b"".join(self.pieces))

    def abort(self) -> None:
        self.aborted = True


class Client:
    """A blocking SMTP client that sends octets and reads replies. Use it in a thread."""

    def __init__(self, port: int, greeting: bool = True) -> None:
        self.socket: socket.socket = socket.create_connection((HOST, port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        if greeting:
            assert self.reply().startswith("220 ")

    def send(self, octets: bytes) -> None:
        """Send as it is."""
        self.socket.sendall(octets)

    def line(self) -> str:
        """One line of the server's; "" at its end."""
        while b"\r\n" not in self.buffer:
            octets = self.socket.recv(65_536)
            if not octets:
                assert not self.buffer, f"the server closed inside a line: {self.buffer!r}"
                return ""
            self.buffer += octets
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode("ascii")

    def reply(self) -> str:
        """One reply, lines separated by a line feed; "" if the server closed."""
        lines = [self.line()]
        while lines[-1][3:4] == "-":
            lines.append(self.line())
        return "\n".join(lines)

    def say(self, *commands: str) -> list[str]:
        """Send each command and wait for its reply."""
        replies = []
        for command in commands:
            self.send(command.encode() + b"\r\n")
            replies.append(self.reply())
        return replies

    def codes(self, *commands: str) -> list[str]:
        """The code and the enhanced code of each reply: "250 2.1.0"."""
        return [status(reply) for reply in self.say(*commands)]

    def start_tls(self) -> None:
        """The TLS handshake; the certificate is not looked at."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)

    def ended(self) -> bool:
        """Whether the server closes without another word."""
        return self.line() == ""

    def close(self) -> None:
        self.socket.close()


def status(reply: str) -> str:
    """ "250 2.1.0" of a reply, "354" where there is no enhanced code."""
    found = re.match(r"(\d{3})[ -](?:(\d\.\d{1,3}\.\d{1,3}) )?", reply)
    return " ".join(part for part in found.groups() if part) if found else reply


class SessionCase(TestCase):
    """A listener with one user, `app`, who may send as anybody at a.com; `serve` starts it, on `port`."""

    timeout = 60

    def setUp(self) -> None:
        self.directory_path = Path(self.mktemp())
        self.directory_path.mkdir()
        self.spool = MemorySpool()
        self.events: list[Event] = []
        self.accounts: Directory | None = None
        self.database: Database | None = None
        self.service: SubmissionService | None = None

    def tearDown(self) -> Any:
        stopped: Deferred[None] = succeed(None)
        if self.service is not None and self.service.running:
            self.spool.release()
            stopped = self.service.stopService()
        if self.accounts is not None:
            stopped.addCallback(lambda _: self._stop_accounts())
        return stopped

    def _stop_accounts(self) -> Any:
        assert self.accounts is not None and self.database is not None
        self.accounts.stop()
        return self.database.stop()

    def serve(
        self, listen: Listen | None = None, *, portal: Callable[[Events], Portal] | None = None, **settings: Any
    ) -> SubmissionService:
        """Start a listener as `listen` says (its ports are ours to choose) with `settings` of Configuration."""
        listen = msgspec.structs.replace(listen or Listen(auth_without_tls="always"), ports=(PortRange(0, 0, True),), interfaces=(HOST,))
        settings.setdefault("limits", Limits(grace=0.2))
        configuration = Configuration(hostname="mail.example.com", state_directory=self.directory_path, listen=(listen,), **settings)
        bus = Events()
        bus.subscribe(self.events.append)
        self.service = SubmissionService(
            Dependencies(
                configuration=configuration,
                events=bus,
                portal=portal(bus) if portal else make_portal(self.directory(), configuration, bus, time.time),
                spool=self.spool,
                new_id=itertools.count(1).__next__,
                tls=self.tls(configuration),
                reactor=reactor,
            )
        )
        self.service.privilegedStartService()
        self.service.startService()
        self.port = self.service.ports[0].getHost().port
        return self.service

    def tls(self, configuration: Configuration) -> ServerTLS | None:
        """The listener's TLS: self-signed."""
        return server_tls(configuration, reactor.seconds())

    def directory(self) -> Directory:
        """The accounts, on a real database with the user in it."""
        self.url = f"sqlite:///{self.directory_path / 'smtpplus.sqlite'}"
        migrate(self.url)
        self.database = Database(self.url, reactor)
        self.database.start()
        self.add_user(USER)
        self.accounts = Directory(self.database, reactor)
        self.accounts.start()
        return self.accounts

    def add_user(self, name: str, **fields: Any) -> None:
        """Write a user with PASSWORD, as the command line does, from outside."""
        fields.setdefault("domains", (Sender("domain", "a.com"),))
        fields.setdefault("vouch", True)
        engine = create_engine(self.url)
        with engine.begin() as connection:
            store.add_user(connection, name, passwords.hash_password(PASSWORD), now=1.0, **fields)
        engine.dispose()

    def during(self, dialog: Callable[..., T], *arguments: Any, **named: Any) -> Deferred[T]:
        """Run `dialog` in a thread while the server serves."""
        return deferToThread(dialog, *arguments, **named)

    def logged_in(self) -> Client:
        """A client that said EHLO and logged in. In a thread."""
        client = Client(self.port)
        assert client.codes("EHLO client.example", LOGIN)[-1] == "235 2.7.0"
        return client

    def stated(self, kind: type[T]) -> list[T]:
        """The events of one class, in order."""
        return [event for event in self.events if isinstance(event, kind)]
