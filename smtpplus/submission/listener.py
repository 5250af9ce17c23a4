"""The way in: one factory per [[listen]] block, and the service that opens and closes the ports.

Here the rooms of submission are joined: what the rest of the house gives (`Dependencies`) becomes one Acceptance, one set of
sessions, and a factory for each block with its answers made beforehand. Stopping closes the ports first, parts from idle sessions
with 421, and lets transactions finish for as long as `[limits] grace` says. Failure: ListenError at the start.
"""

from __future__ import annotations

import functools
import ipaddress
import time
from typing import Any, Callable

import attrs
from twisted.application.service import Service
from twisted.cred.portal import Portal
from twisted.internet import tcp
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.mail import smtp

from smtpplus.config import Configuration, Listen, Network
from smtpplus.events import Events
from smtpplus.mail.budget import Budgets
from smtpplus.mail.reasons import Refusal
from smtpplus.submission import scram
from smtpplus.submission.acceptance import Acceptance, Spool
from smtpplus.submission.admission import SECURE, SENDER, Admission
from smtpplus.submission.offer import Offer
from smtpplus.submission.ports import ListenError, bind
from smtpplus.submission.proxy import Proxied
from smtpplus.submission.renewal import Renewal
from smtpplus.submission.sasl import MECHANISMS
from smtpplus.submission.session import Session
from smtpplus.submission.sessions import Sessions
from smtpplus.submission.tls import ServerTLS

__all__ = ["Dependencies", "ListenError", "SubmissionFactory", "SubmissionService"]


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
    now: Callable[[], float] = time.time  # seconds since the epoch; the reactor's own are good for intervals alone
    full: Callable[[], bool] = bool  # whether there is no room for another message
    budgets: Budgets = attrs.Factory(Budgets)


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
        self.wall = dependencies.now
        self.full = dependencies.full
        self.acceptance = acceptance
        self.tls = None if listen.tls == "none" else dependencies.tls
        self.implicit_tls = listen.tls == "implicit"
        self.trusted_as = listen.trusted_as
        self._trusted: tuple[Network, ...] = listen.trusted_networks if listen.trusted_as else ()
        self._proxies = listen.proxy_protocol_from
        self._clear_login = listen.auth_without_tls
        self._tls_required = listen.tls == "starttls-required"
        self._sessions = sessions
        self.greeting_reply = b"220 %s ESMTP smtpplus\r\n" % self.domain
        self.helo_reply = b"250 %s\r\n" % self.domain
        self.offer = Offer(configuration, tls=self.tls is not None)
        self.verifiers = next((checker for checker in dependencies.portal.checkers.values() if scram.IVerifiers.providedBy(checker)), None)
        self.attempts = sessions.attempts
        mechanisms = [*MECHANISMS, *([scram.PLAIN] if self.verifiers is not None else [])]
        self._mechanisms = (" ".join(mechanisms), " ".join([*mechanisms, *([scram.BOUND] if self.verifiers is not None else [])]))

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A session for a client at `addr`."""
        address = str(getattr(addr, "host", ""))
        if address.startswith("::ffff:"):
            address = address[7:]
        port = int(getattr(addr, "port", 0))
        if self._proxies and _within(address, self._proxies):
            proxied = Proxied((address, port), functools.partial(Session, self), self._sessions.forget, self.now)
            self._sessions.watch(proxied)
            return proxied
        return Session(self, address, port)

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
        if self._trusted and _within(address, self._trusted):
            state |= SENDER
        return state

    def allows_clear_login(self, address: str) -> bool:
        """Whether this client may log in without TLS."""
        if self._tls_required or self._clear_login == "never":
            return False
        return self._clear_login == "always" or address == "::1" or address.startswith("127.")

    def ehlo_reply(self, session: Admission) -> bytes:
        """The answer to EHLO."""
        mechanisms = self._mechanisms[session.startedTLS] if session.may_log_in else ""
        return self.offer.ehlo(secure=session.startedTLS, mechanisms=mechanisms, size=session.size_limit, now=self.wall())


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether a client is in one of `networks`."""
    client = ipaddress.ip_address(address.partition("%")[0])
    return any(client in network for network in networks if client.version == network.version)


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
            now=dependencies.now,
            budgets=dependencies.budgets,
        )
        self.factories = [SubmissionFactory(dependencies, listen, self.sessions, acceptance) for listen in configuration.listen]
        tls, events = dependencies.tls, dependencies.events
        self._renewal = Renewal(tls, dependencies.reactor, dependencies.now, events) if tls is not None else None
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
        if self._renewal is not None:
            self._renewal.start()

    def reload(self) -> None:
        """Read certificates and keys anew; sessions under way keep theirs."""
        if self._renewal is not None:
            self._renewal.reload()

    def stopService(self) -> Deferred[None]:
        """Take no more connections, and finish: see Sessions.drain."""
        super().stopService()  # type: ignore[no-untyped-call]  # the same
        if self._renewal is not None:
            self._renewal.stop()
        ports, self.ports = self.ports, []
        closed = DeferredList([closing for port in ports if (closing := port.stopListening()) is not None], consumeErrors=True)
        drained = self.sessions.drain(self._configuration.limits.grace)
        return closed.addCallback(lambda _: drained).addCallback(lambda _: self.sessions.stop())

    def bind(self) -> None:
        """Listen on every port of the configuration, once; ListenError, see ports.bind."""
        if self.ports:
            return
        blocks = zip(self.factories, self._configuration.listen, strict=True)
        self.ports, self.skipped = bind(blocks, self._reactor, connections=self._configuration.limits.connections)
        for why in self.skipped:
            self._log.warn("skipped: {why}", why=why)
        self._log.info("listening on {count} ports", count=len(self.ports))
