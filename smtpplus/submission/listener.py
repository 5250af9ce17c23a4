"""The ports: one factory per [[listen]] block, the limits that all sessions share, and a stop that loses nothing.

A port of a range that cannot be had is skipped, logged and kept in `skipped` for status; one named alone stops the start with a
sentence (A2). Idle sessions are found by one sweep per second over all of them, not by a timer each. Stopping closes the ports first,
parts from idle sessions with 421, and lets transactions finish for as long as `[limits] grace` says. Failure: ListenError, and then
nothing is left listening.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import resource
import socket
from collections import Counter
from typing import Any, Callable

import attrs
from twisted.application.service import Service
from twisted.cred.portal import Portal
from twisted.internet import tcp
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.mail import smtp

from smtpplus.config import Configuration, Listen, Network
from smtpplus.events import Events
from smtpplus.mail import reasons
from smtpplus.mail.reasons import Refusal
from smtpplus.submission.acceptance import Acceptance, Spool
from smtpplus.submission.admission import SECURE, SENDER, Admission
from smtpplus.submission.sasl import MECHANISMS
from smtpplus.submission.session import Session
from smtpplus.submission.tls import ServerTLS

BACKLOG = 1024  # connections that wait to be accepted, per port; the kernel's net.core.somaxconn may allow fewer
SWEEP = 1.0  # seconds between two looks for idle sessions: how exact idle times are
SPARE_FILES = 512  # descriptors for everything that is neither a port nor a session
_LAST_WORDS = 2.0  # seconds for replies on their way when the grace period is over


class ListenError(Exception):
    """A port cannot be had; the text is a sentence for the operator."""


@attrs.frozen(kw_only=True)
class Dependencies:
    """What submission needs of the rest of the house; one object for all sessions."""

    configuration: Configuration
    events: Events
    portal: Portal
    spool: Spool
    new_id: Callable[[], int]
    tls: ServerTLS | None
    reactor: Any  # IReactorTime, IReactorFDSet


class Sessions:
    """The sessions under way, on all ports: counted, limited, looked after."""

    def __init__(self, configuration: Configuration, clock: IReactorTime) -> None:
        self._limits = configuration.limits
        self._clock = clock
        self._clients: Counter[str] = Counter()
        self._all: set[Admission] = set()
        self._empty: Deferred[None] | None = None
        self._sweep = LoopingCall(self._look)
        self._sweep.clock = clock
        self.now = clock.seconds()

    def __len__(self) -> int:
        return len(self._all)

    def start(self) -> None:
        """Begin to look for idle sessions."""
        self._sweep.start(SWEEP)

    def stop(self) -> None:
        """Stop looking."""
        if self._sweep.running:
            self._sweep.stop()

    def admit(self, session: Admission) -> Refusal | None:
        """Count a new session; the refusal if it is one too many. It is among them until it leaves, admitted or not."""
        limit = self._limits.connections
        many = len(self._all) >= limit
        if not many and self._clients[session.address] >= self._limits.connections_per_client:
            limit, many = self._limits.connections_per_client, True
        self._all.add(session)
        self._clients[session.address] += 1
        return reasons.TOO_MANY_CONNECTIONS.refusal(limit=str(limit)) if many else None

    def leave(self, session: Admission) -> None:
        """A session is over."""
        if session in self._all:
            self._all.discard(session)
            self._clients[session.address] -= 1
            if not self._clients[session.address]:
                del self._clients[session.address]
        if not self._all and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def drain(self, grace: float) -> Deferred[None]:
        """Part from all sessions; fires when they are gone, at the latest shortly after `grace` seconds."""
        for session in list(self._all):
            session.drain()
        if not self._all:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._empty = empty
        over = self._clock.callLater(grace, self._insist)
        gone = self._clock.callLater(grace + _LAST_WORDS, self._abort)

        def settled(result: None) -> None:
            for call in (over, gone):
                if call.active():
                    call.cancel()

        return empty.addBoth(settled)

    def _insist(self) -> None:
        for session in list(self._all):
            session.bye(reasons.SHUTTING_DOWN.refusal())

    def _abort(self) -> None:
        for session in list(self._all):
            session.transport.abortConnection()

    def _look(self) -> None:
        now = self.now = self._clock.seconds()
        idle = self._limits.idle
        for session in list(self._all):
            session.expire(now, idle)


class SubmissionFactory(smtp.SMTPFactory):
    """Makes the sessions of one [[listen]] block, and holds what they share. See Twisted's SMTPFactory."""

    noisy = False
    protocol: Any = Session

    def __init__(self, dependencies: Dependencies, listen: Listen, sessions: Sessions, acceptance: Acceptance) -> None:
        configuration = dependencies.configuration
        super().__init__(dependencies.portal)  # type: ignore[no-untyped-call]  # twisted has no types there
        self.domain = configuration.hostname.encode("ascii")
        self.hostname = configuration.hostname
        self.limits = configuration.limits
        self.events = dependencies.events
        self.clock = dependencies.reactor
        self.acceptance = acceptance
        self.tls = None if listen.tls == "none" else dependencies.tls
        self.implicit_tls = listen.tls == "implicit"
        self.trusted_as = listen.trusted_as
        self._trusted: tuple[Network, ...] = listen.trusted_networks if listen.trusted_as else ()
        self._clear_login = listen.auth_without_tls
        self._tls_required = listen.tls == "starttls-required"
        self._sessions = sessions
        self.greeting_reply = b"220 %s ESMTP smtpplus\r\n" % self.domain
        self.helo_reply = b"250 %s\r\n" % self.domain
        self._ehlo = {(secure, login): self._extensions(secure, login) for secure in (False, True) for login in (False, True)}

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A session for a client at `addr`."""
        address = str(getattr(addr, "host", ""))
        if address.startswith("::ffff:"):
            address = address[7:]
        return Session(self, address, int(getattr(addr, "port", 0)))

    @property
    def now(self) -> float:
        """Seconds since the epoch, as of the last sweep."""
        return self._sessions.now

    def admit(self, session: Admission) -> Refusal | None:
        """See Sessions.admit."""
        return self._sessions.admit(session)

    def leave(self, session: Admission) -> None:
        """See Sessions.leave."""
        self._sessions.leave(session)

    def first_state(self, address: str) -> int:
        """What is true of a client before it says anything."""
        state = 0 if self._tls_required else SECURE
        if self._trusted:
            client = ipaddress.ip_address(address.partition("%")[0])
            if any(client in network for network in self._trusted if client.version == network.version):
                state |= SENDER
        return state

    def allows_clear_login(self, address: str) -> bool:
        """Whether this client may log in without TLS."""
        if self._tls_required or self._clear_login == "never":
            return False
        return self._clear_login == "always" or address == "::1" or address.startswith("127.")

    def ehlo_reply(self, session: Admission) -> bytes:
        """The answer to EHLO."""
        reply, size = self._ehlo[session.startedTLS, session.may_log_in], self.limits.message_size
        return reply if session.size_limit == size else reply.replace(b"SIZE %d\r" % size, b"SIZE %d\r" % session.size_limit)

    def _extensions(self, secure: bool, login: bool) -> bytes:
        """The answer to EHLO in one of its states: each extension only where it works."""
        lines = [self.hostname, "PIPELINING", f"SIZE {self.limits.message_size}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        if self.tls is not None and not secure:
            lines.append("STARTTLS")
        if login:
            lines.append(f"AUTH {' '.join(MECHANISMS)}")
        lines.append("HELP")
        return b"".join(
            b"250%s%s\r\n" % (b" " if number == len(lines) else b"-", line.encode("ascii")) for number, line in enumerate(lines, 1)
        )


class QuietPort(tcp.Port):
    """A listening port that does not write a log line about itself: there are thousands. IPv6 ports are IPv6 only, RFC 3493 §5.3."""

    def startListening(self) -> None:
        """Bind and listen; CannotListenError if the port cannot be had."""
        listening = socket.socket(self.addressFamily, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.addressFamily == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((self.interface, self.port))
            listening.listen(self.backlog)
        except OSError as fault:
            listening.close()
            raise CannotListenError(self.interface, self.port, fault) from None
        self._realPortNumber = listening.getsockname()[1]
        if self.factory is not None:
            self.factory.doStart()
        self.connected = True
        self.socket = listening
        self.fileno = listening.fileno  # type: ignore[method-assign]  # as Twisted's own does
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]  # twisted has no types there

    def _logConnectionLostMsg(self) -> None:
        """Nor about its end."""


class SubmissionService(Service):
    """All listeners. `skipped` has a sentence for each port of a range that could not be had; `ports` those that listen."""

    _log = Logger()

    def __init__(self, dependencies: Dependencies) -> None:
        self.setName("submission")  # type: ignore[no-untyped-call]  # the same
        configuration = dependencies.configuration
        self._reactor = dependencies.reactor
        self._configuration = configuration
        self.sessions = Sessions(configuration, dependencies.reactor)
        acceptance = Acceptance(
            configuration=configuration,
            events=dependencies.events,
            spool=dependencies.spool,
            new_id=dependencies.new_id,
            clock=dependencies.reactor,
        )
        self.factories = [SubmissionFactory(dependencies, listen, self.sessions, acceptance) for listen in configuration.listen]
        self.ports: list[tcp.Port] = []
        self.skipped: list[str] = []

    def privilegedStartService(self) -> None:
        """Bind while twistd still may: ports below 1024 need it."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]  # the same
        self.bind()

    def startService(self) -> None:
        """Bind, unless done already, and look after the sessions."""
        super().startService()  # type: ignore[no-untyped-call]  # the same
        self.bind()
        self.sessions.start()

    def stopService(self) -> Deferred[None]:
        """Take no more connections, and finish: see Sessions.drain."""
        super().stopService()  # type: ignore[no-untyped-call]  # the same
        ports, self.ports = self.ports, []
        closed = DeferredList([closing for port in ports if (closing := port.stopListening()) is not None], consumeErrors=True)
        drained = self.sessions.drain(self._configuration.limits.grace)
        return closed.addCallback(lambda _: drained).addCallback(lambda _: self.sessions.stop())

    def bind(self) -> None:
        """Listen on every port of the configuration. ListenError if one that is named alone cannot be had, or none at all."""
        if self.ports:
            return
        blocks = self._configuration.listen
        wanted = sum((ports.last - ports.first + 1) * len(listen.interfaces) for listen in blocks for ports in listen.ports)
        _allow_files(wanted + self._configuration.limits.connections + SPARE_FILES)
        try:
            for factory, listen in zip(self.factories, blocks, strict=True):
                for interface in listen.interfaces:
                    self._bind_block(factory, listen, interface)
            if not self.ports:
                raise ListenError("no port could be listened on: " + "; ".join(self.skipped[:3]))
        except ListenError:
            for port in self.ports:
                port.stopListening()
            self.ports = []
            raise
        self._log.info("listening on {count} ports", count=len(self.ports))

    def _bind_block(self, factory: SubmissionFactory, listen: Listen, interface: str) -> None:
        """The ports of one block on one interface."""
        if ":" in interface and len(listen.interfaces) > 1 and not _has_ipv6():
            self._skip(f"{interface}: this machine has no IPv6")
            return
        for ports in listen.ports:
            for number in range(ports.first, ports.last + 1):
                port = QuietPort(number, factory, BACKLOG, interface, self._reactor)
                try:
                    port.startListening()
                except CannotListenError as fault:
                    why = _sentence(interface, number, fault.socketError)
                    if ports.alone or fault.socketError.errno in {errno.EMFILE, errno.ENFILE}:
                        raise ListenError(why) from None
                    self._skip(why)
                else:
                    self.ports.append(port)

    def _skip(self, why: str) -> None:
        self.skipped.append(why)
        self._log.warn("skipped: {why}", why=why)


def _sentence(interface: str, number: int, fault: OSError) -> str:
    """Why a port cannot be had, for the operator."""
    where = f"port {number} on [{interface}]" if ":" in interface else f"port {number} on {interface}"
    if fault.errno == errno.EADDRINUSE:
        return f"{where} is held by another program"
    if fault.errno in {errno.EACCES, errno.EPERM}:
        return f"{where} needs a privilege: start as root, or with CAP_NET_BIND_SERVICE"
    if fault.errno in {errno.EMFILE, errno.ENFILE}:
        return f"{where} cannot be opened: the limit of open files is too low (ulimit -n)"
    return f"{where} cannot be listened on: {os.strerror(fault.errno) if fault.errno else fault}"


def _has_ipv6() -> bool:
    """Whether this machine can listen on IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _allow_files(count: int) -> None:
    """Raise the soft limit of open files to `count`, as far as the hard one lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
