"""How a session with a hop comes about: its targets one after another, until one of them is ready.

A target that refuses, keeps silent or breaks the session before it is ready hands over to the next; the last one's fault is the
opening's, but for a refusal for good: it counts only if every target says so, if no host's addresses were not to be had, and if the one
that says so had no session with us lately. What refuses one session of many says nothing about a message.

The addresses of one host are raced (RFC 8305), hosts are not: their order is the peer's wish, but for those that took a session lately
and no mail, which come last. Targets that are ourselves, and those no better (RFC 5321 §5.1), are left out. Opportunistic TLS that
fails is given up on a fresh connection to the same target (RFC 7435).
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import ip_address
from typing import TYPE_CHECKING, Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectBindError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IOpenSSLClientConnectionCreator, IReactorTCP
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.delivery.client import Connection
from smtpplus.delivery.dialogue import Dialogue
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.keeper import Keeper
from smtpplus.delivery.resolver import Target, Targets, literal
from smtpplus.delivery.routing import Hop, Way
from smtpplus.delivery.terms import Terms, terms_for
from smtpplus.mail import reasons
from smtpplus.mail.reply import Outcome

if TYPE_CHECKING:
    from smtpplus.delivery.dial import Dialer

CONNECT_PATIENCE = 30.0  # seconds for a TCP connection, ours
STAGGER = 0.25  # seconds until the next address is tried as well, RFC 8305 §5
TARGETS = 8  # addresses tried in one opening
_WILDCARDS = frozenset(("0.0.0.0", "::", ""))

Session = tuple[Terms, IOpenSSLClientConnectionCreator]  # what one is to be like, and how it is encrypted
Settled = Callable[["Connection | Fault", str], None]


class _Factory(ClientFactory):
    """Makes the connection of one try."""

    noisy = False

    def __init__(self, opening: Opening, target: Target, session: Session) -> None:
        self._opening = opening
        self._target = target
        self._session = session
        self._connection: Connection | None = None

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:
        self._connection = self._opening.connected(self._target, self._session)
        return self._connection

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._opening.unreachable(self._target, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        if self._connection is not None:
            self._opening.dialer.discard(self._connection)


class Opening:
    """One try to get a session with a hop.

    While one address of a host does not answer, the next is tried as well after STAGGER seconds; the first that connects goes on.
    """

    _log = Logger()

    def __init__(self, dialer: Dialer, hop: Hop, keeper: Keeper, settled: Settled, level: int) -> None:
        self.dialer = dialer
        self._hop = hop
        self._level = level  # of the most urgent mail that waits for the session
        self._tls = hop.tls or dialer.manner.tls
        self.keeper = keeper
        self._settled = settled
        self._targets: list[Target] = []  # that have not failed
        self._trying: dict[Target, IConnector] = {}  # connections on their way
        self._stagger: IDelayedCall | None = None
        self._peer = ""
        self._target: Target | None = None  # to whom there is a connection
        self._plain: Target | None = None  # with whom TLS failed
        self._faults: list[tuple[Fault, str]] = []  # of targets that have failed, and who was reached
        self._partial = False  # there may be other targets, of which DNS did not tell
        self._connection: Connection | None = None
        self._over = False

    def start(self) -> None:
        self._find().addCallback(self._found).addErrback(self._stumbled)

    def hurry(self, level: int) -> None:
        """Mail of that level waits for the session."""
        if level < self._level:
            self._level = level
            if not self._targets:
                self._find().addErrback(lambda _: None)  # whoever asks for urgent mail takes those along who asked before

    def cancel(self) -> None:
        """Give up now."""
        if self._over:
            return
        self._finish(Fault(reasons.ABANDONED))
        if self._connection is not None:
            self._connection.cut(Fault(reasons.ABANDONED))

    def _find(self) -> Deferred[Targets | Fault]:
        address = literal(self._hop.host)
        if address:
            return succeed(Targets((Target(self._hop.host, address),)))
        resolver = self.dialer.resolver
        return (resolver.mail_hosts if self._hop.way is Way.MX else resolver.addresses)(self._hop.host, self._level)

    def _found(self, answer: Targets | Fault) -> None:
        if isinstance(answer, Fault):
            # The name of a smarthost is the operator's, not the sender's: its slips can be corrected while mail waits.
            wrong = self._hop.way is not Way.MX and answer.reason is not reasons.DNS_FAILED
            self._finish(Fault(reasons.DNS_FAILED, "there is no such host") if wrong else answer)
            return
        self._partial = answer.partial
        own = [target.preference for target in answer if is_own(target.address, self._hop.port, self.dialer.manner.own)]
        targets = [target for target in answer if not own or target.preference < min(own)]  # RFC 5321 §5.1
        if not targets:
            self._finish(Fault(reasons.SELF_LOOP))
            return
        targets.sort(key=lambda target: self.dialer.is_behind(target.host))
        self._targets = [target for target in targets if self._source(target) is not None][:TARGETS]
        if self._targets:
            self._try(self._targets[0])
        else:
            self._finish(Fault(reasons.SOURCE_UNFIT, "its hosts have no address of the same family"))

    def _source(self, target: Target) -> str | None:
        """The address to connect to `target` from, "" for any; None if none of ours can."""
        six = ":" in target.address
        return next((source for source in self._hop.source if (":" in source) == six), None) if self._hop.source else ""

    def _stumbled(self, failure: Failure) -> None:
        self._log.failure("opening a session with {hop} failed", failure, hop=self._hop.destination)
        self._finish(Fault(reasons.UNEXPECTED))

    # --- the race -----------------------------------------------------------------------------------------------------------------

    def _try(self, target: Target) -> None:
        """Connect to `target`; before long, to the next address of the same host as well."""
        if self._over:
            return
        try:
            self._connect(target)
        except Exception:
            self._log.failure("connecting to {host} failed", host=target.host)
            self._trying.pop(target, None)
            self._failed(target, Fault(reasons.UNEXPECTED))

    def _connect(self, target: Target) -> None:
        terms = self._terms(target)
        if isinstance(terms, Fault):
            self._finish(terms)
            return
        contexts = self.dialer.contexts
        host = target.address if target.host.startswith("[") else target.host
        try:
            encryption = contexts.verified(host) if self._tls == "verify" else contexts.unverified(host)
        except ValueError:
            self._failed(target, Fault(reasons.TLS_FAILED, "no certificate can be for such a name", at=target.peer(self._hop.port)))
            return
        source = self._source(target)
        tcp: IReactorTCP = self.dialer.reactor
        self._trying[target] = tcp.connectTCP(
            target.address,
            self._hop.port,
            _Factory(self, target, (terms, encryption)),
            timeout=CONNECT_PATIENCE,
            bindAddress=(source, 0) if source else None,
        )
        if self._rival() is not None:
            self._stagger = self.dialer.reactor.callLater(STAGGER, self._try_rival)

    def _rival(self) -> Target | None:
        """The next address of the host that is tried, if it is not tried yet."""
        host = self._targets[0].host
        return next((target for target in self._targets if target.host == host and target not in self._trying), None)

    def _try_rival(self) -> None:
        self._stagger = None
        rival = self._rival()
        if rival is not None:
            self._try(rival)

    def _end_race(self) -> None:
        """Call off whatever is still on its way."""
        if self._stagger is not None:
            self._stagger.cancel()
            self._stagger = None
        trying, self._trying = self._trying, {}
        for connector in trying.values():
            connector.disconnect()

    def connected(self, target: Target, session: Session) -> Connection | None:
        """The connection for a socket that stands; None if another was faster."""
        if self._over or target not in self._trying:
            return None
        del self._trying[target]
        self._end_race()
        terms, encryption = session
        self._target, self._peer = target, target.peer(self._hop.port)
        self._connection = Connection(
            clock=self.dialer.reactor,
            dialogue=Dialogue(terms),
            peer=self._peer,
            encryption=encryption,
            keeper=self.keeper,
            opened=self._opened,
            most=self.dialer.manner.messages,
            favour=self.dialer.favour,
            spare=any(each.host != target.host for each in self._targets),
        )
        self.dialer.add(self._connection)
        return self._connection

    def unreachable(self, target: Target, reason: Failure) -> None:
        """No TCP connection to `target` came about."""
        if self._trying.pop(target, None) is None:
            return  # called off
        if reason.check(ConnectBindError):
            fault = Fault(reasons.SOURCE_UNFIT, str(reason.value))
        else:
            why = reasons.CONNECTION_REFUSED if reason.check(Refused) else reasons.CONNECTION_TIMED_OUT
            fault = Fault(why, str(reason.value), at=target.peer(self._hop.port))
        self._peer = ""
        self._failed(target, fault)

    def _failed(self, target: Target, fault: Fault) -> None:
        """There is no connection to `target`, which is not tried any more: go on with the race, or with the next host."""
        if not self._trying:
            self._drop(target, fault)
            return
        self._faults.append((fault, self._peer))
        self._targets.remove(target)
        if self._stagger is not None:  # RFC 8305 §5: a failure brings the next one at once
            self._stagger.cancel()
            self._try_rival()

    # --- the session --------------------------------------------------------------------------------------------------------------

    def _terms(self, target: Target) -> Terms | Fault:
        return terms_for(self._hop, "none" if target == self._plain else self._tls, target.address, self.dialer.manner.hostname)

    def _opened(self, connection: Connection, fault: Fault | None) -> None:
        target = self._target
        assert target is not None
        if fault is None:
            self._finish(connection)
        elif fault.reason is reasons.TLS_FAILED and self._may_be_plain(target):
            self._plain = target
            self.dialer.reactor.callLater(0, self._try, target)
        else:
            self._drop(target, fault)

    def _may_be_plain(self, target: Target) -> bool:
        """Whether a failed handshake may be followed by plaintext. With a password to protect, only on loopback."""
        if target == self._plain or self._hop.way is Way.SMTPS or self._tls != "opportunistic":
            return False
        terms = self._terms(target)
        return isinstance(terms, Terms) and not terms.insists

    def _drop(self, target: Target, fault: Fault) -> None:
        """`target` has failed: go on with those that are left."""
        if self._over:
            return
        self._faults.append((fault, self._peer))
        self._targets.remove(target)
        self._end_race()
        if self._targets:
            self.dialer.reactor.callLater(0, self._try, self._targets[0])
        else:
            self._conclude(target)

    def _conclude(self, last: Target) -> None:
        """All targets have failed."""
        fault, peer = self._faults[-1]
        if _is_final(fault):
            passing = next((each for each in reversed(self._faults) if not _is_final(each[0])), None)
            if passing is not None:
                fault, peer = passing
            elif self._partial or self.dialer.had_session(last.peer(self._hop.port)):
                fault = Fault(reasons.SESSION_REFUSED, str(fault.answer))
        self._peer = peer
        self._finish(fault)

    def _finish(self, result: Connection | Fault) -> None:
        if self._over:
            return
        self._over = True
        self._end_race()
        self._connection = None if isinstance(result, Connection) else self._connection
        self.dialer.closed(self)
        self._settled(result, self._peer)


def _is_final(fault: Fault) -> bool:
    return fault.answer is not None and fault.answer.outcome is Outcome.FAILED


def is_own(address: str, port: int, own: Collection[tuple[str, int]]) -> bool:
    """Whether we listen there: on that very address, or on all of them and the address is this machine's.

    What is connected to counts, not how it is written: an IPv4 address may be mapped into IPv6, and to connect to the
    unspecified address is to connect to this machine.
    """
    place = ip_address(address)
    place = getattr(place, "ipv4_mapped", None) or place
    if place.is_unspecified:
        place = ip_address("127.0.0.1" if place.version == 4 else "::1")
    address = str(place)
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
