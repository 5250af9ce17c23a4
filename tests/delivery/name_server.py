"""A real DNS server on loopback: twisted.names' authority for the zone `example`, over UDP and TCP."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.names import dns
from twisted.names.authority import FileAuthority
from twisted.names.server import DNSServerFactory

MANY = 30  # records that fit into an answer over UDP
SOA = dns.Record_SOA(b"ns.example", b"hostmaster.example", 1, 3600, 600, 86400, 60)


class Broken(Exception):
    """What a broken name raises in the server, which logs it."""


class Zone(FileAuthority):
    """The zone. `questions` are the (name, type) asked; a name in `broken` is answered SERVFAIL, a question in `held` at its `release`."""

    def __init__(self, records: dict[str, list[Any]], broken: tuple[str, ...]) -> None:
        self.questions: list[tuple[str, int]] = []
        self.broken = broken
        self.held: set[tuple[str, int]] = set()
        self._waiting: list[Deferred[Any]] = []
        self._kept = {name.encode(): kept for name, kept in records.items()}
        super().__init__("")

    def loadFile(self, filename: str) -> None:
        """The records come from the test, not from a file."""
        zone: Any = self  # Twisted declares both as None
        zone.soa = (b"example", SOA)
        zone.records = {b"example": [SOA], **self._kept}

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any = None) -> Deferred[Any]:
        self.questions.append((name.decode(), type))
        if name.decode() in self.broken:
            return fail(Broken())
        lookup = super()._lookup
        if (name.decode(), type) not in self.held:
            answer: Deferred[Any] = lookup(name, cls, type, timeout)
            return answer
        waiting: Deferred[Any] = Deferred()
        waiting.addCallback(lambda _: lookup(name, cls, type, timeout))
        self._waiting.append(waiting)
        return waiting

    def release(self) -> None:
        """Answer what was held."""
        self.held.clear()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)


class Factory(DNSServerFactory):
    """Cuts answers over UDP to none if they are long (RFC 1035 §4.2.1)."""

    noisy = False
    short = False  # over TCP as well

    def sendReply(self, protocol: Any, message: Any, address: Any) -> None:
        if (address is not None or self.short) and len(message.answers) > MANY:
            message.answers, message.trunc = [], True
        super().sendReply(protocol, message, address)


class NameServer:
    """Serves a zone on 127.0.0.1:`port`."""

    def __init__(self, reactor: Any, records: dict[str, list[Any]], broken: tuple[str, ...] = ()) -> None:
        self.zone = Zone(records, broken)
        factory = self.factory = Factory(authorities=[self.zone])
        protocol = dns.DNSDatagramProtocol(factory, reactor=reactor)
        tcp = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port = int(tcp.getHost().port)
        self.listening = [tcp, reactor.listenUDP(self.port, protocol, interface="127.0.0.1")]

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def stop(self) -> Any:
        return gatherResults([each.stopListening() for each in self.listening])


def mx(preference: int, host: str, ttl: int = 300) -> Any:
    return dns.Record_MX(preference, host.encode(), ttl=ttl)


def a(address: str, ttl: int = 300) -> Any:
    return dns.Record_A(address, ttl=ttl)


def aaaa(address: str, ttl: int = 300) -> Any:
    return dns.Record_AAAA(address, ttl=ttl)


def cname(host: str, ttl: int = 300) -> Any:
    return dns.Record_CNAME(host.encode(), ttl=ttl)
