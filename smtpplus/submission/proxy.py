"""The PROXY header (haproxy, proxy-protocol.txt), versions 1 and 2: who the client is whose connection a proxy hands on.

It is expected from the networks of `proxy_protocol_from` and from nobody else; nothing is said before it came. This is not Twisted's
`protocols.haproxy`: that greets before the header, wants its first 16 octets in one segment, takes any text for an address, and holds
as much as the proxy sends. Failure: what is no header, or does not come in time, ends the connection without a word.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any, Callable

import msgspec
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

_V1, _V2 = b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"
_V1_LONGEST = 107  # octets with CRLF, proxy-protocol.txt §2.1
_V2_LONGEST = 16 + 2048  # octets; the addresses and far more attributes than are in use
_ADDRESS_LENGTH = {0x11: 4, 0x21: 16}  # octets of one address by family and protocol, §2.2; others are not over TCP
PATIENCE = 10.0  # seconds for the header: the proxy sends it at once


class ProxyError(ValueError):
    """This is no PROXY header."""


class Origin(msgspec.Struct, frozen=True):
    """What a header says. `address` is "" where the proxy speaks for itself. `rest` is what came behind it."""

    address: str
    port: int
    rest: bytes


def parse(data: bytes) -> Origin | None:
    """The header that `data` begins with; None if it may still become one. ProxyError."""
    if data.startswith(_V2):
        return _version_2(data)
    if data.startswith(_V1):
        return _version_1(data)
    if _V2.startswith(data) or _V1.startswith(data):
        return None
    raise ProxyError("it does not begin as one")


def _version_1(data: bytes) -> Origin | None:
    end = data.find(b"\r\n", 0, _V1_LONGEST)
    if end < 0:
        if len(data) >= _V1_LONGEST:
            raise ProxyError("it has no end")
        return None
    rest = data[end + 2 :]
    parts = data[len(_V1) : end].split(b" ")
    if parts[0] == b"UNKNOWN":
        return Origin("", 0, rest)
    if len(parts) != 5 or parts[0] not in {b"TCP4", b"TCP6"}:
        raise ProxyError("it does not name two addresses and two ports")
    version = int(parts[0][3:])
    try:
        addresses = [ipaddress.ip_address(part.decode("ascii")) for part in parts[1:3]]
    except ValueError:
        raise ProxyError("it has an address that is none") from None
    if any(address.version != version for address in addresses) or not all(_is_port(part) for part in parts[3:]):
        raise ProxyError("it has an address of another family, or a port that is none")
    return Origin(str(addresses[0]), int(parts[3]), rest)


def _is_port(text: bytes) -> bool:
    return text.isdigit() and len(text) <= 5 and int(text) <= 65_535


def _version_2(data: bytes) -> Origin | None:
    if len(data) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    if command >> 4 != 2 or command & 15 > 1:
        raise ProxyError("its version or command is not known")
    end = 16 + length
    if end > _V2_LONGEST:
        raise ProxyError("it is too long")
    if len(data) < end:
        return None
    rest = data[end:]
    if command & 15 == 0 or family >> 4 == 0:  # LOCAL: a check by the proxy itself; or a client that it cannot name
        return Origin("", 0, rest)
    size = _ADDRESS_LENGTH.get(family)
    if size is None or length < 2 * size + 4:
        raise ProxyError("it is not about a TCP connection")
    (port,) = struct.unpack_from("!H", data, 16 + 2 * size)
    return Origin(str(ipaddress.ip_address(data[16 : 16 + size])), port, rest)


class Proxied(Protocol):
    """A connection from a proxy until its header is there; then `admit(address, port)` makes the protocol that goes on with it."""

    noisy = False
    transport: Any
    _log = Logger()

    def __init__(self, proxy: tuple[str, int], admit: Callable[[str, int], Any], leave: Callable[[Proxied], None], now: float) -> None:
        self._proxy = proxy
        self._admit = admit
        self._leave = leave
        self._buffer = b""
        self._since = now

    def dataReceived(self, data: bytes) -> None:
        """Octets of the header, and perhaps more."""
        self._buffer += data
        try:
            origin = parse(self._buffer)
        except ProxyError as fault:
            self._log.warn("no PROXY header from {address}: {fault}", address=self._proxy[0], fault=fault)
            self.transport.abortConnection()
            return
        if origin is not None:
            self._leave(self)
            session = self._admit(*(origin.address, origin.port) if origin.address else self._proxy)
            self.transport.protocol = session
            session.makeConnection(self.transport)
            if origin.rest:
                session.dataReceived(origin.rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave(self)

    def expire(self, now: float) -> None:
        """End it if the header did not come in time."""
        if now - self._since > PATIENCE:
            self.transport.abortConnection()
