"""How a session with a hop comes about: its targets one after another, until one of them is ready.

A target that refuses, keeps silent or breaks the session before it is ready hands over to the next; the last one's fault is the
opening's. Targets that are ourselves, and those no better (RFC 5321 §5.1), are left out. Opportunistic TLS that fails is given up on a
fresh connection to the same target (RFC 7435). The dialer also keeps all live connections: it sweeps their deadlines, and
bounds how many stand idle.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any, Callable

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IReactorTCP
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.delivery.client import Connection, Keeper
from smtpplus.delivery.dialogue import Dialogue
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.resolver import Resolver, Target, Targets, literal
from smtpplus.delivery.routing import Hop, Way
from smtpplus.delivery.terms import Credentials, Terms
from smtpplus.delivery.tls import Contexts
from smtpplus.mail import reasons

CONNECT_PATIENCE = 30.0  # seconds for a TCP connection, ours
SWEEP = 5.0  # seconds between two looks at the deadlines
TARGETS = 8  # addresses tried in one opening
_WILDCARDS = frozenset(("0.0.0.0", "::", ""))


class Manner(msgspec.Struct, frozen=True):
    """What all sessions have in common."""

    hostname: str  # ours
    tls: str  # none | opportunistic | required | verify
    own: Collection[tuple[str, int]]  # where we listen: (address or wildcard, port); may grow after the start
    connections: int  # live at once; more are opened if they are wanted, but none then stands idle
    messages: int  # transactions per connection


Settled = Callable[["Connection | Fault", str], None]


class Dialer:
    """Opens sessions and watches over them."""

    def __init__(self, *, reactor: Any, resolver: Resolver, contexts: Contexts, manner: Manner) -> None:
        self.reactor = reactor  # IReactorTCP and IReactorTime
        self.resolver = resolver
        self.contexts = contexts
        self.manner = manner
        self.live: set[Connection] = set()
        self.idle: dict[Connection, None] = {}  # in the order in which they became so
        self.openings: set[Opening] = set()
        self._sweeping: IDelayedCall | None = None
        self._ended: list[Deferred[None]] = []  # those who wait for the end
        self.stopping = False

    def open(self, hop: Hop, keeper: Keeper, settled: Settled) -> None:
        """Begin an opening; `settled` hears once, later, of the connection or of the fault, with the peer that
        was reached last, "" if it was not."""
        if self.idle and len(self.live) >= self.manner.connections:
            next(iter(self.idle)).quit()
        opening = Opening(self, hop, keeper, settled)
        self.openings.add(opening)
        opening.start()

    def add(self, connection: Connection) -> None:
        """A connection was made."""
        self.live.add(connection)
        if self._sweeping is None:
            self._sweeping = self.reactor.callLater(SWEEP, self._tick)

    def discard(self, connection: Connection) -> None:
        """A connection was lost."""
        self.live.discard(connection)
        self._check_end()

    def closed(self, opening: Opening) -> None:
        """An opening is over, either way."""
        self.openings.discard(opening)
        self._check_end()

    def stop(self, patience: float) -> Deferred[None]:
        """Cancel openings, send QUIT where nothing runs, cut what still waits `patience` seconds from now; fires when nothing is left."""
        self.stopping = True
        ended = Deferred[None]()
        self._ended.append(ended)
        for opening in list(self.openings):
            opening.cancel()
        for connection in list(self.idle):
            connection.quit()
        limit = self.reactor.seconds() + patience
        for connection in self.live:
            connection.deadline = min(connection.deadline, limit)
        self._check_end()
        return ended

    def _check_end(self) -> None:
        if not self._ended or self.live or self.openings:
            return
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        waiting, self._ended = self._ended, []
        for ended in waiting:
            ended.callback(None)

    def sweep(self) -> None:
        """Expire every connection whose deadline has passed."""
        now = self.reactor.seconds()
        for connection in [each for each in self.live if each.deadline <= now]:
            connection.expire()

    def _tick(self) -> None:
        self._sweeping = None
        self.sweep()
        if self.live:
            self._sweeping = self.reactor.callLater(0.2 if self.stopping else SWEEP, self._tick)


class _Factory(ClientFactory):
    """Makes the one connection of one try."""

    noisy = False

    def __init__(self, opening: Opening, connection: Connection) -> None:
        self._opening = opening
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        self._opening.dialer.add(self._connection)
        return self._connection

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._opening.unreachable(reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        self._opening.dialer.discard(self._connection)


class Opening:
    """One try to get a session with a hop."""

    _log = Logger()

    def __init__(self, dialer: Dialer, hop: Hop, keeper: Keeper, settled: Settled) -> None:
        self.dialer = dialer
        self._hop = hop
        self._keeper = keeper
        self._settled = settled
        self._targets: list[Target] = []
        self._peer = ""
        self._plain = False  # TLS failed with the present target
        self._connector: IConnector | None = None
        self._connection: Connection | None = None
        self._over = False

    def start(self) -> None:
        self._find().addCallbacks(self._found, self._stumbled)

    def cancel(self) -> None:
        """Give up now."""
        if self._over:
            return
        self._finish(Fault(reasons.ABANDONED))
        if self._connection is not None:
            self._connection.cut(Fault(reasons.ABANDONED))
        if self._connector is not None:
            self._connector.disconnect()

    def _find(self) -> Deferred[Targets | Fault]:
        address = literal(self._hop.host)
        if address:
            return succeed((Target(self._hop.host, address),))
        resolver = self.dialer.resolver
        return resolver.mail_hosts(self._hop.host) if self._hop.way is Way.MX else resolver.addresses(self._hop.host)

    def _found(self, answer: Targets | Fault) -> None:
        if isinstance(answer, Fault):
            # The name of a smarthost is the operator's, not the sender's: its slips can be corrected while mail waits.
            wrong = self._hop.way is not Way.MX and answer.reason is not reasons.DNS_FAILED
            self._finish(Fault(reasons.DNS_FAILED, "there is no such host") if wrong else answer)
            return
        own = [target.preference for target in answer if is_own(target.address, self._hop.port, self.dialer.manner.own)]
        self._targets = [target for target in answer if not own or target.preference < min(own)][:TARGETS]  # RFC 5321 §5.1
        if not self._targets:
            self._finish(Fault(reasons.SELF_LOOP))
            return
        self._try()

    def _stumbled(self, failure: Failure) -> None:
        self._log.failure("opening a session with {hop} failed", failure, hop=self._hop.destination)
        self._finish(Fault(reasons.UNEXPECTED))

    def _try(self) -> None:
        """Connect to the first of the targets that are left."""
        if self._over:
            return
        target = self._targets[0]
        self._peer = target.peer(self._hop.port)
        terms = self._terms(target)
        if isinstance(terms, Fault):
            self._finish(terms)
            return
        contexts, manner = self.dialer.contexts, self.dialer.manner
        host = target.address if target.host.startswith("[") else target.host
        self._connection = Connection(
            clock=self.dialer.reactor,
            dialogue=Dialogue(terms),
            peer=self._peer,
            encryption=contexts.verified(host) if manner.tls == "verify" else contexts.unverified(host),
            keeper=self._keeper,
            opened=self._opened,
            most=manner.messages,
        )
        tcp: IReactorTCP = self.dialer.reactor
        self._connector = tcp.connectTCP(target.address, self._hop.port, _Factory(self, self._connection), timeout=CONNECT_PATIENCE)

    def _terms(self, target: Target) -> Terms | Fault:
        hop, manner = self._hop, self.dialer.manner
        credentials = None
        if hop.username:
            try:
                password = Path(hop.password_file).read_text("utf-8").strip("\r\n")
            except (OSError, UnicodeError) as error:
                return Fault(reasons.PEER_LOGIN_FAILED, f"password_file cannot be read: {type(error).__name__}")
            credentials = Credentials(hop.username, password)
        loopback = target.address == "::1" or target.address.startswith("127.")
        tls = "none" if self._plain else manner.tls
        return Terms(manner.hostname, tls, hop.way is Way.SMTPS, credentials, loopback)

    def unreachable(self, reason: Failure) -> None:
        """No TCP connection came about."""
        why = reasons.CONNECTION_REFUSED if reason.check(Refused) else reasons.CONNECTION_TIMED_OUT
        at, self._peer = self._peer, ""
        self._next(Fault(why, str(reason.value), at=at))

    def _opened(self, connection: Connection, fault: Fault | None) -> None:
        if fault is None:
            self._finish(connection)
        elif fault.reason is reasons.TLS_FAILED and self._may_be_plain():
            self._plain = True
            self._again()
        else:
            self._next(fault)

    def _may_be_plain(self) -> bool:
        """Whether a failed handshake may be followed by plaintext. With a password to protect, only on loopback."""
        if self._plain or self._hop.way is Way.SMTPS or self.dialer.manner.tls != "opportunistic":
            return False
        terms = self._terms(self._targets[0])
        return isinstance(terms, Terms) and not terms.insists

    def _next(self, fault: Fault) -> None:
        """Leave the present target for the next."""
        if self._over:
            return
        self._plain = False
        self._targets.pop(0)
        if self._targets:
            self._again()
        else:
            self._finish(fault)

    def _again(self) -> None:
        self._connection = self._connector = None
        self.dialer.reactor.callLater(0, self._try)

    def _finish(self, result: Connection | Fault) -> None:
        if self._over:
            return
        self._over = True
        self._connector = None
        self._connection = None if isinstance(result, Connection) else self._connection
        self.dialer.closed(self)
        self._settled(result, self._peer)


def is_own(address: str, port: int, own: Collection[tuple[str, int]]) -> bool:
    """Whether we listen there: on that very address, or on all of them and the address is this machine's."""
    if (address, port) in own:
        return True
    if not any(host in _WILDCARDS and number == port for host, number in own):
        return False
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))  # only an address of this machine can be bound
    except OSError:
        return False
    return True
