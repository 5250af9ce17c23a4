"""Where mail for a domain goes: the first route that matches it, and what that route's `via` means.

`Router.destination` gives the key that groups recipients: recipients with equal keys travel together. It is pure and cheap, for
it is asked for every recipient. `Router.hop` says how a destination is reached; it also knows destinations that no route of the
present configuration has any more (mail may wait longer than a configuration lives).
"""

from __future__ import annotations

import enum
import functools
from typing import Protocol, Sequence

import msgspec

from smtpplus.mail.address import AddressError, normalize_domain

KNOWN_DOMAINS = 65_536  # domains whose destination is remembered
_SCHEMES = frozenset(("smtp", "smtps", "maildir", "discard"))


class RouteLike(Protocol):
    """What a route of the configuration has."""

    @property
    def destination(self) -> str: ...  # domain | .subtree | *
    @property
    def via(self) -> str: ...  # mx | smtp://host:port | smtps://host:port | maildir:PATH | discard:
    @property
    def username(self) -> str: ...
    @property
    def password_file(self) -> str: ...
    @property
    def tls(self) -> str: ...  # none | opportunistic | required | verify; "": as for all
    @property
    def source(self) -> tuple[str, ...]: ...  # IP addresses to connect from, at most one of each family


class Way(enum.Enum):
    """How a hop is reached."""

    MX = "mx"
    SMTP = "smtp"
    SMTPS = "smtps"
    MAILDIR = "maildir"
    DISCARD = "discard"


class Hop(msgspec.Struct, frozen=True):
    """A next hop. `host` is a domain whose MX count, or a host; `path` is a Maildir, perhaps with placeholders."""

    destination: str
    way: Way
    host: str = ""
    port: int = 0
    path: str = ""
    username: str = ""
    password_file: str = ""
    tls: str = ""  # as of RouteLike
    source: tuple[str, ...] = ()


class Router:
    """The routes of a configuration, first match first."""

    def __init__(self, routes: Sequence[RouteLike], *, mx_port: int) -> None:
        self._mx_port = mx_port
        self._routes = tuple(routes)
        self._exact: dict[str, tuple[int, str]] = {}  # domain → (place in the list, destination); "" stands for MX
        self._subtrees: dict[str, tuple[int, str]] = {}  # ".domain" → the same
        self._any: tuple[int, str] | None = None
        self._hops: dict[str, Hop] = {}
        for place, route in enumerate(routes):
            self._add(place, route)
        self._remembered = functools.lru_cache(maxsize=KNOWN_DOMAINS)(self._destination)

    def destination(self, domain: str) -> str:
        """The key for `domain`: itself where its MX count (or no route matches), else the `via`, with the user name if it has one."""
        return self._remembered(domain)

    def hop(self, destination: str) -> Hop | None:
        """How to reach a destination; None if it is a domain that no route matches."""
        known = self._hops.get(destination)
        if known:
            return known
        if destination.partition(":")[0] in _SCHEMES:
            return _hop(destination, destination, None)
        found = self._match(destination)
        if found is None:
            return None
        route = self._routes[found[0]]
        return Hop(destination, Way.MX, destination, self._mx_port, tls=route.tls, source=route.source)

    def smarthosts(self) -> list[Hop]:
        """The hosts that routes name."""
        return [hop for hop in self._hops.values() if hop.way in (Way.SMTP, Way.SMTPS)]

    def _add(self, place: int, route: RouteLike) -> None:
        key = ""
        if route.via != "mx":
            key = _key(route)
            self._hops.setdefault(key, _hop(route.via, key, route))
        pattern = route.destination
        if pattern == "*":
            self._any = self._any or (place, key)
        else:
            (self._subtrees if pattern.startswith(".") else self._exact).setdefault(pattern.lower(), (place, key))

    def _destination(self, domain: str) -> str:
        try:
            name = normalize_domain(domain)
        except AddressError:
            name = domain.lower()
        found = self._match(name)
        return (found[1] if found else "") or name

    def _match(self, name: str) -> tuple[int, str] | None:
        """The first route that matches the domain `name`: its place, and its destination, "" for MX."""
        matches = [found for found in (self._exact.get(name), self._any) if found]
        at = name.find(".")
        while at >= 0:
            found = self._subtrees.get(name[at:])
            if found:
                matches.append(found)
            at = name.find(".", at + 1)
        return min(matches) if matches else None


def _key(route: RouteLike) -> str:
    """The destination of a route that is not by MX: routes that differ in anything that makes another session have others."""
    scheme, separator, rest = route.via.partition("://")
    if not separator:
        return route.via
    user = f"{route.username}@" if route.username else ""
    manner = "&".join(filter(None, (f"tls={route.tls}" if route.tls else "", f"source={','.join(route.source)}" if route.source else "")))
    return f"{scheme}://{user}{rest}" + (f"?{manner}" if manner else "")


def _hop(via: str, destination: str, route: RouteLike | None) -> Hop:
    """The hop that a `via` of the configuration names, or a key made of one; the text is well-formed, the configuration saw to that."""
    scheme, _, rest = via.partition(":")
    if scheme == "maildir":
        return Hop(destination, Way.MAILDIR, path=rest)
    if scheme == "discard":
        return Hop(destination, Way.DISCARD)
    place, _, manner = rest.removeprefix("//").rpartition("@")[2].partition("?")
    host, _, port = place.rpartition(":")
    hop = Hop(destination, Way(scheme), host.strip("[]"), int(port))
    if route is not None:
        return msgspec.structs.replace(hop, username=route.username, password_file=route.password_file, tls=route.tls, source=route.source)
    said = dict(part.split("=", 1) for part in manner.split("&") if part)
    return msgspec.structs.replace(hop, tls=said.get("tls", ""), source=tuple(filter(None, said.get("source", "").split(","))))
