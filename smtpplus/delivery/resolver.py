"""Who takes mail for a domain, by DNS (RFC 5321 §5.1): MX by preference, implicit MX, null MX (RFC 7505), and the addresses of a host.

Answers are values: targets in the order to try, or a `Fault`. A name that does not exist is permanent, a server that does not answer
says nothing and is temporary. Answers are remembered for their TTL, within bounds; failures are not. A CNAME is followed
whether the server followed it already or not. Once there is somebody to connect to, a question that is not answered holds nothing up
for long; its answer counts when it comes, from the next time on.
"""

from __future__ import annotations

import random
from ipaddress import ip_address
from itertools import zip_longest
from typing import Any, Callable, Coroutine, Iterable, Self, Sequence, TypeVar, cast

import msgspec
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.names import dns
from twisted.names.error import DNSNameError, DomainError
from twisted.names.hosts import searchFileForAll
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from smtpplus.delivery.fault import Fault
from smtpplus.delivery.questions import LEAST, Names
from smtpplus.mail import reasons
from smtpplus.mail.reply import printable

PATIENCE = (2, 4, 8)  # seconds for each round over the servers
ADDRESS_ROUNDS = 2  # of them for the address of a host: a domain may name many hosts of which nobody tells
LONGEST_TTL = 3600.0  # seconds an answer is remembered at most
NEGATIVE_TTL = 60.0  # seconds "there is none" is remembered; RFC 2308 would allow more
REMEMBERED = 10_000  # answers
ALIASES = 16  # CNAMEs followed
RECORDS = 20  # of an answer that are kept: those of the best preference. An answer over TCP may have thousands
HOSTS = 10  # MX hosts of a domain that are considered; RFC 5321 §5.1 asks for two at least
RESOLUTION_DELAY = 0.05  # seconds that AAAA may be behind A, RFC 8305 §3
LATE = 2.0  # seconds that A may be behind AAAA, and worse mail hosts behind the best: without them there is less to fall back on. Ours
_Answer = TypeVar("_Answer")


class Target(msgspec.Struct, frozen=True):
    """One address to connect to. `host` is the name it has, for people and for TLS; `preference` that of its MX."""

    host: str
    address: str
    preference: int = 0

    def peer(self, port: int) -> str:
        """As dispositions name it: host[address]:port."""
        return f"{self.host}[{self.address}]:{port}"


class Targets(tuple[Target, ...]):
    """Whom to try, in this order. `partial` if it is not known whether there are others: a look-up failed, or takes too long."""

    partial: bool

    def __new__(cls, targets: Iterable[Target], partial: bool = False) -> Self:
        made = super().__new__(cls, targets)
        made.partial = partial
        return made


class _Found(msgspec.Struct, frozen=True):
    """An answer of DNS. `exists` is false for NXDOMAIN; `values` is empty if there are no records of the type."""

    exists: bool
    values: tuple[tuple[int, str], ...]  # MX: preference and host; A, AAAA: 0 and the address


class _Question:
    """One that is being asked, and who waits for the answer."""

    __slots__ = ("asked", "level", "waiting")

    def __init__(self, asked: str, level: int) -> None:
        self.asked = asked  # the name of which the servers are asked now
        self.level = level  # of the most urgent mail that it is for
        self.waiting: list[Deferred[_Found | Fault]] = []


def literal(text: str) -> str | None:
    """The IP address that `text` is, in brackets as in mail addresses (RFC 5321 §4.1.3) or without; None if it is none."""
    if text.startswith("["):
        text = text[1:-1].removeprefix("IPv6:")
    try:
        return str(ip_address(text))
    except ValueError:
        return None


class Resolver:
    """Asks `servers`; without any, those of /etc/resolv.conf, and then /etc/hosts comes first for hosts."""

    _log = Logger()

    def __init__(
        self, *, reactor: IReactorTime, servers: Sequence[tuple[str, int]], random: random.Random, patience: Sequence[int] = PATIENCE
    ) -> None:
        system = None if servers else "/etc/resolv.conf"
        self._patience = tuple(patience)
        self._names = Names(resolv=system, servers=servers, timeout=self._patience, reactor=reactor)
        self._hosts = FilePath(b"/etc/hosts") if system else None
        self._clock = reactor
        self._random = random
        self._memory: dict[tuple[str, int], tuple[float, _Found]] = {}  # (name, type) → until when, what
        self._asking: dict[tuple[str, int], _Question] = {}

    def stop(self) -> None:
        """Leave the servers that are asked."""
        self._names.stop()

    def mail_hosts(self, domain: str, level: int = LEAST) -> Deferred[Targets | Fault]:
        """Where mail for `domain` (normalized, or an address literal) goes; `level` is that of the most urgent mail it is asked for."""
        return _spawn(self._mail_hosts(domain, level))

    def addresses(self, host: str, level: int = LEAST) -> Deferred[Targets | Fault]:
        """The addresses of a host, IPv6 and IPv4 by turns (RFC 8305 §4)."""
        return _spawn(self._addresses(host, 0, level))

    async def _mail_hosts(self, domain: str, level: int) -> Targets | Fault:
        if domain.startswith("["):
            return await self._addresses(domain, 0, level)
        found = await self._ask(domain, dns.MX, level)
        if isinstance(found, Fault):
            return found
        if not found.exists:
            return Fault(reasons.NO_SUCH_DOMAIN)
        if not found.values:  # RFC 5321 §5.1: the implicit MX
            implicit = await self._addresses(domain, 0, level)
            missing = isinstance(implicit, Fault) and implicit.reason is reasons.NO_SUCH_DOMAIN
            return Fault(reasons.NO_ROUTE) if missing else implicit
        exchanges = [(preference, host) for preference, host in found.values if host]
        if not exchanges:
            return Fault(reasons.NULL_MX)  # RFC 7505 §3
        ranked = sorted((preference, self._random.random(), host) for preference, host in exchanges)
        looking = [_spawn(self._addresses(host, preference, level)) for preference, _, host in ranked[:HOSTS]]
        answers = [await looking[0]]
        if isinstance(answers[0], Fault):
            answers += await gatherResults(looking[1:])
        else:
            others = await gatherResults([self._within(each, LATE) for each in looking[1:]])
            answers += [answer for answer in others if answer is not None]
        faults = [answer for answer in answers if isinstance(answer, Fault)]
        partial = len(answers) < len(looking) or any(fault.reason is reasons.DNS_FAILED for fault in faults)
        targets = Targets((target for answer in answers if not isinstance(answer, Fault) for target in answer), partial)
        return targets or _worst(faults)

    async def _addresses(self, host: str, preference: int, level: int) -> Targets | Fault:
        address = literal(host)
        if address:
            return Targets((Target(host, address, preference),))
        if self._hosts is not None:
            known = searchFileForAll(self._hosts, host.encode("ascii", "replace"))
            if known:
                return Targets(Target(host, each, preference) for each in known)
        answers = await self._families(host, level)
        families = [[address for _, address in answer.values] for answer in answers if isinstance(answer, _Found)]
        found = [address for each in zip_longest(*families) for address in each if address is not None]
        if found:
            return Targets(Target(host, address, preference) for address in found)
        faults = [answer for answer in answers if isinstance(answer, Fault)]
        return faults[0] if faults else Fault(reasons.NO_SUCH_DOMAIN)

    async def _families(self, host: str, level: int) -> list[_Found | Fault]:
        """What is said of AAAA, then of A; the one may be missing if the other has addresses."""
        asked = self._look_up(host, dns.AAAA, level), self._look_up(host, dns.A, level)
        # mypy takes the answer of a DeferredList that fires on the first for one of all.
        first, place = cast(tuple[_Found | Fault, int], await DeferredList(asked, fireOnOneCallback=True, fireOnOneErrback=True))
        if isinstance(first, Fault) or not first.values:
            return await gatherResults(asked)
        second = await self._within(asked[1 - place], RESOLUTION_DELAY if place else LATE)
        answers = (second, first) if place else (first, second)
        return [answer for answer in answers if answer is not None]

    def _within(self, asked: Deferred[_Answer], seconds: float) -> Deferred[_Answer | None]:
        """The answer, or None if it takes longer."""
        given: Deferred[_Answer | None] = Deferred()
        over = self._clock.callLater(seconds, given.callback, None)

        def arrived(answer: _Answer) -> None:
            if over.active():
                over.cancel()
                given.callback(answer)

        def failed(failure: Failure) -> Failure | None:
            if not over.active():
                return failure  # nobody waits: it is logged
            over.cancel()
            given.errback(failure)
            return None

        asked.addCallbacks(arrived, failed)
        return given

    # --- one question -----------------------------------------------------------------------------------------------------------

    def _look_up(self, name: str, kind: int, level: int) -> Deferred[_Found | Fault]:
        return _spawn(self._ask(name, kind, level))

    async def _ask(self, name: str, kind: int, level: int) -> _Found | Fault:
        """The answer from memory, from a question already under way, or from the servers."""
        key = (name, kind)
        remembered = self._memory.get(key)
        if remembered and remembered[0] > self._clock.seconds():
            return remembered[1]
        question = self._asking.get(key)
        if question is not None:
            if level < question.level:
                question.level = level
                self._names.turns.hurry((question.asked, kind), level)
            answer: Deferred[_Found | Fault] = Deferred()
            question.waiting.append(answer)
            return await answer
        question = self._asking[key] = _Question(name, level)
        found: _Found | Fault = Fault(reasons.DNS_FAILED, "the question failed")
        try:
            found = await self._follow(name, kind, question)
        except Exception:  # of this question alone: others for the same mail may be answered
            self._log.failure("asking about {name} failed", name=name)
        finally:
            for each in self._asking.pop(key).waiting:
                each.callback(found)
        return found

    async def _follow(self, name: str, kind: int, question: _Question) -> _Found | Fault:
        """Ask, and ask again for the name behind a CNAME that the server did not follow."""
        ttl = LONGEST_TTL
        asked = name
        passed = {name}
        while True:
            try:
                question.asked = asked
                records = await self._query(asked, kind, question.level)
            except DNSNameError:
                return self._remember(name, kind, NEGATIVE_TTL, _Found(False, ()))
            except DeferredTimeout:
                return Fault(reasons.DNS_FAILED, "it takes too long")
            except DomainError as error:
                return Fault(reasons.DNS_FAILED, type(error).__name__)
            except OSError as error:
                return Fault(reasons.DNS_FAILED, str(error))
            target = asked
            while alias := next((r for r in records if r.type == dns.CNAME and _text(r.name) == target), None):
                ttl = min(ttl, float(alias.ttl))
                target = _text(cast(Any, alias.payload).name)
                if target in passed or len(passed) > ALIASES:
                    return Fault(reasons.DNS_FAILED, "its CNAME records go in a circle, or too far")
                passed.add(target)
            values = [(r.ttl, _value(r)) for r in records if r.type == kind and _text(r.name) == target]
            if values:
                ttl = min(ttl, *(float(each) for each, _ in values))
                kept = [value for _, value in values]
                if len(kept) > RECORDS:
                    self._random.shuffle(kept)  # which ones it is must not be always the same, but the best of them (the sort is stable)
                    kept = sorted(kept, key=lambda value: value[0])[:RECORDS]
                return self._remember(name, kind, ttl, _Found(True, tuple(kept)))
            if target == asked:
                return self._remember(name, kind, NEGATIVE_TTL, _Found(True, ()))
            asked = target

    async def _query(self, name: str, kind: int, level: int) -> list[dns.RRHeader]:
        """The answer section."""
        methods: dict[int, Callable[[str, Sequence[int]], Any]] = {
            dns.MX: self._names.lookupMailExchange,
            dns.A: self._names.lookupAddress,
            dns.AAAA: self._names.lookupIPV6Address,
        }
        self._names.turns.hurry((name, kind), level)
        try:
            sections = await methods[kind](name, self._patience if kind == dns.MX else self._patience[:ADDRESS_ROUNDS])
        finally:
            self._names.turns.over((name, kind))
        return list(sections[0])

    def _remember(self, name: str, kind: int, ttl: float, found: _Found) -> _Found:
        if len(self._memory) >= REMEMBERED:
            del self._memory[next(iter(self._memory))]  # the oldest
        self._memory.pop((name, kind), None)
        self._memory[name, kind] = (self._clock.seconds() + ttl, found)
        return found


def _spawn(coroutine: Coroutine[Deferred[Any], Any, _Answer]) -> Deferred[_Answer]:
    return Deferred.fromCoroutine(coroutine)


def _worst(faults: list[Fault]) -> Fault:
    """What to say when no MX host has an address: later, if any of them might have one then."""
    return next((fault for fault in faults if fault.reason is reasons.DNS_FAILED), Fault(reasons.NO_ROUTE))


def _text(name: dns.Name) -> str:
    """The name as text. A label may hold any octet: what is not printable must reach neither reply, log nor terminal."""
    return printable(name.name.decode("ascii", "backslashreplace")).rstrip(".").lower()


def _value(record: dns.RRHeader) -> tuple[int, str]:
    payload = cast(Any, record.payload)  # of the class that goes with the type
    if record.type == dns.MX:
        return payload.preference, _text(payload.name)
    return 0, payload.dottedQuad() if record.type == dns.A else str(ip_address(payload.address))
