"""What a single option may say, read from its text.

Each function takes the text as written and returns the value in base units (seconds, octets), or raises ValueError with a
sentence that names the part of the text that is wrong. Nothing here knows keys, files or lines.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, TypeAlias

import msgspec

from smtpplus.mail.address import normalize_domain, parse_mailbox

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Rate: TypeAlias = tuple[int, float, Literal["recipients", "octets"]]  # so much in so many seconds
Endpoint: TypeAlias = tuple[str, int]  # IP address, port

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PERIODS = frozenset("mhd")
_LETTERS = {_SECONDS[letter]: letter for letter in sorted(_PERIODS)}
_OCTETS = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_WHOLE = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024), ("B", 1))
_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*(ms|[smhdw])\s*", re.ASCII)
_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([KMG]?i?B)\s*", re.ASCII)
_PORTS = re.compile(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?", re.ASCII)
_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*", re.ASCII)
PLACEHOLDERS = ("{recipient}", "{user}", "{domain}")  # in the path of a maildir, delivery.maildir
HIGHEST_PORT = 65_535
LONGEST_HOLD = 999_999_999  # seconds: nine digits (RFC 4865 §4)


class PortRange(msgspec.Struct, frozen=True, order=True):
    """Ports `first` to `last`, both included. `alone`: written as one number, not as a range (A2: then it must be free)."""

    first: int
    last: int
    alone: bool

    def __str__(self) -> str:
        return str(self.first) if self.alone else f"{self.first}-{self.last}"


def duration(text: str) -> float:
    """Seconds in "30s", "5m", "1h 30m", "5d", "250ms", "2w"."""
    seconds, at = 0.0, 0
    while at < len(text) or not text:
        part = _DURATION.match(text, at)
        if part is None:
            raise ValueError(f'"{text}" is no duration; write a number with ms, s, m, h, d or w, such as "30s", "5m" or "1h 30m"')
        seconds += float(part[1]) * _SECONDS[part[2]]
        at = part.end()
    return seconds


def rates(text: str) -> tuple[Rate, ...]:
    """Amounts, seconds and units in "100/m; 10 MiB/h": recipients, or octets, a minute (m), hour (h) or day (d). "": none."""
    found: list[Rate] = []
    for part in text.split(";"):
        if not part.strip():
            continue
        amount, _, period = (piece.strip() for piece in part.partition("/"))
        if period not in _PERIODS:
            raise ValueError(f'"{part.strip()}" is no rate; write an amount a minute, hour or day, such as "100/m" or "10 MiB/h"')
        if amount.isascii() and amount.isdecimal() and int(amount):
            found.append((int(amount), _SECONDS[period], "recipients"))
        else:
            found.append((size(amount), _SECONDS[period], "octets"))
    return tuple(found)


def rate_text(text: str) -> str:
    """What `rates` reads, as text that is equal for equal rates: "100/m; 10 MiB/h"."""
    return "; ".join(f"{amount if unit == 'recipients' else _octets(amount)}/{_LETTERS[seconds]}" for amount, seconds, unit in rates(text))


def _octets(amount: int) -> str:
    """Octets as `size` reads them."""
    return next(f"{amount // many} {unit}" for unit, many in _WHOLE if amount % many == 0)


def time_span(text: str) -> float:
    """A `duration` that is not zero."""
    seconds = duration(text)
    if seconds <= 0:
        raise ValueError(f'"{text}" is zero; it must be more')
    return seconds


def pause(text: str) -> float:
    """A `duration` that a peer waiting for message data endures: it may give up after 3 minutes (RFC 5321 §4.5.3.2.5)."""
    seconds = duration(text)
    if seconds > 150:
        raise ValueError(f'"{text}" is too long; next hops may give up after 3 minutes of silence, so at most "150s" is allowed')
    return seconds


def hold_time(text: str) -> float:
    """A `duration` that an SMTP client can ask for: RFC 4865 §4 gives it nine digits of seconds."""
    seconds = duration(text)
    if seconds > LONGEST_HOLD:
        raise ValueError(f'"{text}" is too long; at most {LONGEST_HOLD:,} seconds can be asked for')
    return seconds


def size(text: str) -> int:
    """Octets in "50 MiB", "10 MB", "64 KiB", "1000 B"; at least one."""
    part = _SIZE.fullmatch(text)
    if part is None or part[2] not in _OCTETS:
        raise ValueError(f'"{text}" is no size; write a number with B, KB, MB, GB, KiB, MiB or GiB, such as "50 MiB"')
    octets = int(float(part[1]) * _OCTETS[part[2]])
    if octets < 1:
        raise ValueError(f'"{text}" is less than one octet; it must be more')
    return octets


def ports(text: str) -> tuple[PortRange, ...]:
    """Port numbers and ranges with their limits, separated by commas, in the order written: "25, 587, 1025-5000"."""
    if not text.strip():
        raise ValueError('the list of ports is empty; write some, such as "25, 587, 1025-5000"')
    ranges: list[PortRange] = []
    for token in (part.strip() for part in text.split(",")):
        new = _port_range(token, text)
        for old in ranges:
            if new.first <= old.last and old.first <= new.last:
                raise ValueError(f'"{token}" overlaps "{old}"; name each port once')
        ranges.append(new)
    return tuple(ranges)


def _port_range(token: str, text: str) -> PortRange:
    found = _PORTS.fullmatch(token)
    if not token:
        raise ValueError(f'"{text}" has an empty entry between its commas; take it out')
    if found is None:
        raise ValueError(f'"{token}" is neither a port nor a range of ports such as "1025-5000"')
    first, last = int(found[1]), int(found[2] or found[1])
    for number in (first, last):
        if not 1 <= number <= HIGHEST_PORT:
            raise ValueError(f'"{token}" goes beyond the ports there are, 1 to {HIGHEST_PORT}')
    if first > last:
        raise ValueError(f'"{token}" is reversed; write "{last}-{first}"')
    return PortRange(first, last, alone=found[2] is None)


def network(text: str) -> Network:
    """An IP network in CIDR form, or one address: "10.0.0.0/8", "2001:db8::/32", "127.0.0.1"."""
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError:
        raise ValueError(
            f'"{text}" is no network; write an address or a network such as "10.0.0.0/8" (no bits set behind the prefix)'
        ) from None


def interface(text: str) -> str:
    """The IP address of an interface to listen on; "0.0.0.0" and "::" stand for all."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f'"{text}" is no IP address; write one, or "0.0.0.0" or "::" for all') from None


def endpoint(text: str, port: int | None = None) -> Endpoint:
    """An IP address and a port: "127.0.0.1:53", "[::1]:53"; without a port only where `port` gives the default."""
    try:
        host, number = _host_and_port(text.strip(), port)
        return str(ipaddress.ip_address(host)), number
    except ValueError:
        form = '"127.0.0.1:53"' if port is None else '"127.0.0.1" or "127.0.0.1:53"'
        raise ValueError(f'"{text}" is no address with a port; write it such as {form} (an IPv6 address with a port in brackets)') from None


def _host_and_port(text: str, default: int | None) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise ValueError("no closing bracket")
        colon, number = rest[:1], rest[1:]
    elif text.count(":") > 1:
        host, colon, number = text, "", ""
    else:
        host, colon, number = text.partition(":")
    if not colon and not number and default is not None:
        return host, default
    if colon != ":" or not (number.isascii() and number.isdigit() and len(number) < 6) or not 1 <= int(number) <= HIGHEST_PORT:
        raise ValueError("no port")
    return host, int(number)


def name_server(text: str) -> Endpoint:
    """A DNS server, on port 53 unless it says another."""
    return endpoint(text, 53)


def optional_endpoint(text: str) -> Endpoint | None:
    """An `endpoint`, or None for the empty text."""
    return endpoint(text) if text.strip() else None


def public_url(text: str) -> str:
    """A web address for others to reach us at, "https://mail.example.com" or with a path, without its final slash; "" stays."""
    text = text.strip().rstrip("/")
    if text and not _URL.fullmatch(text):
        raise ValueError(f'"{text}" is no web address; write it such as "https://mail.example.com", without "?" and "#"')
    return text


def webhook(text: str) -> str:
    """A web address that is posted to, whatever its path and query; "" stays."""
    text = text.strip()
    if text and not (text.isascii() and text.isprintable() and re.fullmatch(r"https?://[^\s/?#]+\S*", text)):
        raise ValueError(f'"{text}" is no web address; write it such as "https://example.com/hook"')
    return text


def destination(text: str) -> str:
    """Where a route applies: a domain, ".domain" for everything below it, or "*"."""
    text = text.strip()
    if text == "*":
        return text
    dot = "." if text.startswith(".") else ""
    return dot + normalize_domain(text[len(dot) :])


def via(text: str) -> str:
    """How a route delivers: "mx", "smtp://host:port", "smtps://host:port", "maildir:PATH" or "discard:"."""
    text = text.strip()
    if text in {"mx", "discard:"}:
        return text
    if text.startswith("maildir:") and text != "maildir:":
        unknown = next((name for name in re.findall(r"\{[^{}/]*\}", text) if name not in PLACEHOLDERS), "")
        if unknown:
            raise ValueError(f'"{text}" has the placeholder {unknown}; there are {", ".join(PLACEHOLDERS)}')
        return text
    scheme, separator, rest = text.partition("://")
    if separator and scheme in {"smtp", "smtps"}:
        try:
            host, port = _host_and_port(rest.rstrip("/"), 25 if scheme == "smtp" else 465)
            host = str(ipaddress.ip_address(host)) if ":" in host else normalize_domain(host)
        except ValueError:
            raise ValueError(f'"{text}" names no host to connect to; write "{scheme}://host:port"') from None
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    raise ValueError(
        f'"{text}" is no way to deliver; there are "mx", "smtp://host:port", "smtps://host:port", "maildir:PATH" and "discard:"'
    )


def sources(text: str) -> tuple[str, ...]:
    """IP addresses to connect from, one or one of each family: "192.0.2.1", "192.0.2.1, 2001:db8::1"; none for the empty text."""
    try:
        found = [ipaddress.ip_address(part.strip()) for part in text.split(",")] if text.strip() else []
    except ValueError:
        raise ValueError(f'"{text}" is no IP address; write such as "192.0.2.1" or "192.0.2.1, 2001:db8::1"') from None
    if len({address.version for address in found}) < len(found):
        raise ValueError(f'"{text}" has two addresses of one family; name one of each at most')
    return tuple(map(str, found))


def host_name(text: str) -> str:
    """The name this server calls itself by; "" stays."""
    return normalize_domain(text.strip()) if text.strip() else ""


def mailbox(text: str) -> str:
    """A mail address, as written; "" stays."""
    text = text.strip()
    if text:
        parse_mailbox(text)
    return text


def database(text: str) -> str:
    """A database URL of a kind we know, or "". The text may hold a password and is not repeated in the sentence."""
    text = text.strip()
    if text and not text.startswith(("postgresql://", "postgresql+psycopg://", "sqlite:///")):
        raise ValueError('it must be empty, "postgresql://user@host/name" or "sqlite:///PATH"')
    return text
