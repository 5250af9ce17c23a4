"""Those who keep connections: the dialer opens them, knows all that live, sweeps their deadlines, and bounds how many stand idle.

There is one timer for all of them. It runs while anything lives, and `stop` fires when nothing does.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from smtpplus.client_tls import Contexts
from smtpplus.delivery.client import Connection
from smtpplus.delivery.keeper import Keeper
from smtpplus.delivery.opening import Opening, Settled
from smtpplus.delivery.resolver import Resolver
from smtpplus.delivery.routing import Hop
from smtpplus.right_of_way import Favour

SWEEP = 5.0  # seconds between two looks at the deadlines
BEHIND = 300.0  # seconds for which a host that took a session and no mail comes after the others, ours
LATELY = 300.0  # seconds after a session with a host in which its refusal of another is no verdict on a message, ours
HOSTS = 1_000  # such hosts that are remembered, of each kind


class Manner(msgspec.Struct, frozen=True):
    """What all sessions have in common."""

    hostname: str  # ours
    tls: str  # none | opportunistic | required | verify
    own: Collection[tuple[str, int]]  # where we listen: (address or wildcard, port); may grow after the start
    connections: int  # live at once; more are opened if they are wanted, but none then stands idle
    messages: int  # transactions per connection


class Dialer:
    """Opens sessions and watches over them."""

    def __init__(self, *, reactor: Any, resolver: Resolver, contexts: Contexts, manner: Manner, favour: Favour | None = None) -> None:
        self.reactor = reactor  # IReactorTCP and IReactorTime
        self.resolver = resolver
        self.contexts = contexts
        self.manner = manner
        self.favour = favour
        self.live: set[Connection] = set()
        self.idle: dict[Connection, None] = {}  # in the order in which they became so
        self.openings: set[Opening] = set()
        self._behind: dict[str, float] = {}  # by name: until when a host is put behind others
        self._sessions: dict[str, float] = {}  # by name and port: until when a host that had a session may refuse another
        self._sweeping: IDelayedCall | None = None
        self._ended: list[Deferred[None]] = []  # those who wait for the end
        self.stopping = False

    def open(self, hop: Hop, keeper: Keeper, settled: Settled, level: int) -> None:
        """Begin an opening, for mail of that level; `settled` hears once, later, of the connection or of the fault, with the peer that
        was reached last, "" if it was not."""
        if self.idle and len(self.live) >= self.manner.connections:
            next(iter(self.idle)).quit()
        opening = Opening(self, hop, keeper, settled, level)
        self.openings.add(opening)
        opening.start()

    def hurry(self, keeper: Keeper, level: int) -> None:
        """Mail of that level waits for the openings of `keeper`."""
        for opening in self.openings:
            if opening.keeper is keeper:
                opening.hurry(level)

    def add(self, connection: Connection) -> None:
        """A connection was made."""
        self.live.add(connection)
        if self._sweeping is None:
            self._sweeping = self.reactor.callLater(SWEEP, self._tick)

    def discard(self, connection: Connection) -> None:
        """A connection was lost."""
        self.live.discard(connection)
        self._check_end()

    def put_behind(self, peer: str) -> None:
        """The host of `peer` ("host[address]:port") wants no mail now: others for the same mail are better for a while (RFC 5321 §5.1)."""
        self._remember(self._behind, _host(peer), BEHIND)

    def is_behind(self, host: str) -> bool:
        """Whether the host was put behind others."""
        return self._behind.get(host, -math.inf) > float(self.reactor.seconds())

    def session_ended(self, peer: str) -> None:
        """A session with the host of `peer` was ready, and is over."""
        self._remember(self._sessions, _service(peer), LATELY)

    def had_session(self, peer: str) -> bool:
        """Whether the host of `peer` had a session with us lately at the same port, or has one, whatever the address."""
        service = _service(peer)
        lately = self._sessions.get(service, -math.inf) > float(self.reactor.seconds())
        return lately or any(each.is_open and _service(each.peer) == service for each in self.live)

    def _remember(self, hosts: dict[str, float], host: str, seconds: float) -> None:
        if len(hosts) >= HOSTS:
            del hosts[next(iter(hosts))]
        hosts.pop(host, None)
        hosts[host] = self.reactor.seconds() + seconds

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


def _host(peer: str) -> str:
    """Of "host[address]:port"; an address literal stays one."""
    return peer[: peer.rindex("[")]


def _service(peer: str) -> str:
    """The host and the port."""
    return _host(peer) + peer[peer.rindex("]") + 1 :]
