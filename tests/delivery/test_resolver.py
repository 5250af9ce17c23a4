"""DNS as mail needs it, asked of a real server."""

from __future__ import annotations

import random
import socket
from typing import Any

from twisted.internet.task import deferLater
from twisted.names import dns
from twisted.trial.unittest import TestCase

from smtpplus.delivery import resolver
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.resolver import Resolver, Target, Targets
from tests.delivery.name_server import Broken, NameServer, a, aaaa, cname, mx
from tests.delivery.rig import reactor

RECORDS: dict[str, list[Any]] = {
    "plain.example": [mx(20, "second.example"), mx(10, "first.example")],
    "first.example": [a("192.0.2.1"), aaaa("2001:db8::1")],
    "second.example": [a("192.0.2.2")],
    "equal.example": [mx(10, "first.example"), mx(10, "second.example"), mx(5, "best.example")],
    "best.example": [a("192.0.2.9")],
    "implicit.example": [a("192.0.2.3")],
    "null.example": [mx(0, "")],
    "mixed.example": [mx(0, ""), mx(10, "first.example")],
    "alias.example": [cname("plain.example")],
    "aliased-host.example": [mx(10, "alias-of-first.example")],
    "alias-of-first.example": [cname("first.example")],
    "circle.example": [cname("circle2.example")],
    "circle2.example": [cname("circle.example")],
    "text.example": [dns.Record_TXT(b"no mail", ttl=300)],
    "dangling.example": [mx(10, "gone.example")],
    "half.example": [mx(10, "gone.example"), mx(20, "second.example")],
    "half-broken.example": [mx(10, "gone.example"), mx(20, "broken.example")],
    "brief.example": [a("192.0.2.4", ttl=0)],
    "many.example": [a(f"192.0.2.{number}") for number in range(28)],
    "long.example": [mx(number, "first.example") for number in range(40, 0, -1)],
    "many-hosts.example": [mx(number, "first.example") for number in range(24, 0, -1)],
}


class ResolverTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.server = NameServer(reactor, RECORDS, broken=("broken.example",))
        self.addCleanup(self.server.stop)
        self.resolver = Resolver(reactor=reactor, servers=[self.server.address], random=random.Random(1))

    async def hosts(self, domain: str) -> list[tuple[int, str, str]] | str:
        """Preference, host and address of each target, or the reason of the fault."""
        return _shown(await self.resolver.mail_hosts(domain))

    async def test_mx_in_order_of_preference(self) -> None:
        """The lowest preference number first, each host with its IPv6 and IPv4 addresses (RFC 5321 §5.1)."""
        assert await self.hosts("plain.example") == [
            (10, "first.example", "2001:db8::1"),
            (10, "first.example", "192.0.2.1"),
            (20, "second.example", "192.0.2.2"),
        ]

    async def test_equal_preferences_are_shuffled(self) -> None:
        """Hosts of equal preference take turns at being first, and never come before a better one."""
        firsts = set()
        for _ in range(40):
            found = await self.hosts("equal.example")
            assert isinstance(found, list)
            assert found[0][1] == "best.example"
            firsts.add(found[1][1])
        assert firsts == {"first.example", "second.example"}

    async def test_of_many_records_some_are_kept(self) -> None:
        """What is remembered of an answer, and tried one after another, is bounded: the records of the best preference."""
        found = await self.hosts("many.example")
        assert isinstance(found, list)
        assert len({address for _, _, address in found}) == resolver.RECORDS == len(found)
        await self.hosts("many-hosts.example")
        _, kept = self.resolver._memory["many-hosts.example", dns.MX]
        assert [preference for preference, _ in kept.values] == list(range(1, resolver.RECORDS + 1))

    async def test_a_long_answer_comes_over_tcp(self) -> None:
        """RFC 1035 §4.2.2: an answer cut short over UDP is asked for over TCP; `stop` leaves no connection behind."""
        found = await self.hosts("long.example")
        assert isinstance(found, list)
        assert [preference for preference, _, _ in found] == [number for number in range(1, resolver.HOSTS + 1) for _ in range(2)]
        assert self.server.zone.questions.count(("long.example", dns.MX)) == 2
        self.resolver.stop()
        while self.resolver._names.connections:
            await deferLater(reactor, 0.01, lambda: None)

    async def test_what_is_remembered_is_bounded(self) -> None:
        """However many domains mail goes to: of more answers than REMEMBERED the oldest is forgotten, and asked for again."""
        self.patch(resolver, "REMEMBERED", 3)
        for domain in ("best", "implicit", "second", "first"):
            await self.resolver.addresses(f"{domain}.example")
            assert len(self.resolver._memory) <= 3
        asked = self.server.zone.questions.count(("best.example", dns.A))
        await self.resolver.addresses("best.example")
        assert (asked, self.server.zone.questions.count(("best.example", dns.A))) == (1, 2)

    async def test_without_mx_the_domain_is_the_host(self) -> None:
        """A domain with addresses and no MX takes mail itself (RFC 5321 §5.1)."""
        assert await self.hosts("implicit.example") == [(0, "implicit.example", "192.0.2.3")]

    async def test_null_mx(self) -> None:
        """A null MX says that there is no mail, for good (RFC 7505); beside other records it is ignored."""
        assert await self.hosts("null.example") == "null_mx"
        assert await self.hosts("mixed.example") == [(10, "first.example", "2001:db8::1"), (10, "first.example", "192.0.2.1")]

    async def test_cname(self) -> None:
        """A CNAME is followed for the domain and for a mail host; one that goes in a circle is temporary."""
        assert await self.hosts("alias.example") == await self.hosts("plain.example")
        assert await self.hosts("aliased-host.example") == [
            (10, "alias-of-first.example", "2001:db8::1"),
            (10, "alias-of-first.example", "192.0.2.1"),
        ]
        assert await self.hosts("circle.example") == "dns_failed"

    async def test_what_does_not_exist_is_permanent(self) -> None:
        """NXDOMAIN, a domain without mail host, and MX hosts without address cannot be delivered to, ever."""
        assert await self.hosts("nowhere.example") == "no_such_domain"
        assert await self.hosts("text.example") == "no_route"
        assert await self.hosts("dangling.example") == "no_route"
        assert await self.hosts("half.example") == [(20, "second.example", "192.0.2.2")]

    async def test_a_server_that_fails_is_temporary(self) -> None:
        """SERVFAIL says nothing about the domain, not even where other hosts do not exist."""
        assert await self.hosts("broken.example") == "dns_failed"
        assert await self.hosts("half-broken.example") == "dns_failed"
        assert self.flushLoggedErrors(Broken)

    async def test_silence_is_temporary(self) -> None:
        """A server that does not answer defers."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            resolver = Resolver(reactor=reactor, servers=[silent.getsockname()], random=random.Random(1), patience=(1,))
            assert _shown(await resolver.mail_hosts("plain.example")) == "dns_failed"

    async def hurried(self, domain: str, *held: tuple[str, int]) -> list[tuple[int, str, str]] | str:
        """What is found while these questions have no answer; and then they have, before anybody asks again."""
        resolver = Resolver(reactor=reactor, servers=[self.server.address], random=random.Random(1), patience=(600,))
        self.server.zone.held = {(f"{name}.example", kind) for name, kind in held}
        self.server.zone.questions.clear()
        found = _shown(await resolver.mail_hosts(domain))
        asked = len(self.server.zone.questions)
        self.server.zone.release()
        while len(resolver._memory) < asked:
            await deferLater(reactor, 0.01, lambda: None)
        assert len(_shown(await resolver.mail_hosts(domain))) == 3 or isinstance(found, str)
        assert len(self.server.zone.questions) == asked
        return found

    async def test_one_family_does_not_wait_for_the_other(self) -> None:
        """RFC 8305 §3: who has an address is not held up by a question that nobody answers; the answer counts when it comes."""
        four, six, second = (10, "first.example", "192.0.2.1"), (10, "first.example", "2001:db8::1"), (20, "second.example", "192.0.2.2")
        assert await self.hurried("plain.example", ("first", dns.AAAA), ("second", dns.AAAA)) == [four, second]
        self.patch(resolver, "LATE", 0.05)
        assert await self.hurried("plain.example", ("first", dns.A), ("second", dns.AAAA)) == [six, second]

    async def test_a_worse_host_does_not_hold_up_the_best(self) -> None:
        """A mail host whose address nobody tells is left out if there is a better one; the best itself is waited for."""
        self.patch(resolver, "LATE", 0.05)
        best = [(10, "first.example", "2001:db8::1"), (10, "first.example", "192.0.2.1")]
        assert await self.hurried("plain.example", ("second", dns.A), ("second", dns.AAAA)) == best
        self.server.zone.held = {("first.example", dns.A), ("first.example", dns.AAAA)}
        waiting = self.resolver.mail_hosts("plain.example")
        await deferLater(reactor, 0.2, lambda: None)
        assert not waiting.called
        self.server.zone.release()
        assert _shown(await waiting) == [*best, (20, "second.example", "192.0.2.2")]

    async def test_answers_are_remembered_for_their_ttl(self) -> None:
        """What was asked is not asked again while it holds, that there is none included; failures and TTL 0 are asked anew."""
        for _ in range(3):
            for domain in ("plain.example", "nowhere.example", "broken.example"):
                await self.hosts(domain)
            await self.resolver.addresses("brief.example")
        asked = [self.server.zone.questions.count(question) for question in _questions("plain", "nowhere", "broken", "brief")]
        assert asked == [1, 1, 3, 3]
        assert self.flushLoggedErrors(Broken)

    async def test_one_question_for_many_askers(self) -> None:
        """Lookups of one name at the same time are one question."""
        looking = [self.resolver.mail_hosts("implicit.example") for _ in range(10)]
        assert [_shown(await each) for each in looking] == [[(0, "implicit.example", "192.0.2.3")]] * 10
        assert self.server.zone.questions.count(("implicit.example", dns.MX)) == 1

    async def test_address_literals_need_no_dns(self) -> None:
        """[192.0.2.1], [IPv6:2001:db8::1] and bare addresses are targets as they stand."""
        found = [await self.hosts(domain) for domain in ("[192.0.2.7]", "[IPv6:2001:db8::7]")]
        assert found == [[(0, "[192.0.2.7]", "192.0.2.7")], [(0, "[IPv6:2001:db8::7]", "2001:db8::7")]]
        assert await self.resolver.addresses("192.0.2.8") == (Target("192.0.2.8", "192.0.2.8"),)
        assert not self.server.zone.questions


def _shown(answer: Targets | Fault) -> list[tuple[int, str, str]] | str:
    return answer.reason.code if isinstance(answer, Fault) else [(each.preference, each.host, each.address) for each in answer]


def _questions(*names: str) -> list[tuple[str, int]]:
    return [(f"{name}.example", dns.A if name == "brief" else dns.MX) for name in names]
