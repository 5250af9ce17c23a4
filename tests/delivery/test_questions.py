"""Single questions to name servers that hinder them: what goes wrong with one harms no other."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.names import dns
from twisted.trial.unittest import TestCase

from smtpplus.delivery import questions
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.resolver import Resolver
from tests.delivery.name_server import NameServer, a, cname, mx
from tests.delivery.rig import reactor
from tests.turns import until

LONG = [a(f"192.0.2.{number}") for number in range(40)]  # too much for UDP


class Scripted(DatagramProtocol):
    """A name server that gives the octets of `answers`, one datagram after another, to a question."""

    noisy = False

    def __init__(self, answers: Callable[[Any], list[bytes]]) -> None:
        self._answers = answers

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        message = dns.Message()
        message.fromStr(data)
        for octets in self._answers(message):
            self.transport.write(octets, addr)  # type: ignore[union-attr]  # it is there while it listens


def answer(question: Any, *records: Any, **changed: Any) -> bytes:
    """A whole answer to the question, but for what is changed."""
    message = dns.Message(changed.get("id", question.id), answer=1)
    message.queries = changed.get("queries", question.queries)
    message.answers = list(records)
    octets: bytes = message.toStr()
    return octets


def record(name: str, payload: Any) -> dns.RRHeader:
    return dns.RRHeader(name.encode(), payload.TYPE, dns.IN, 60, payload)


class QuestionsTests(TestCase):
    timeout = 30

    def served(self, records: dict[str, list[Any]]) -> NameServer:
        server = NameServer(reactor, records)
        self.addCleanup(server.stop)
        return server

    def asking(self, address: tuple[str, int], patience: tuple[int, ...] = (2,)) -> Resolver:
        resolver = Resolver(reactor=reactor, servers=[address], random=random.Random(1), patience=patience)
        self.addCleanup(resolver.stop)
        return resolver

    def scripted(self, answers: Callable[[Any], list[bytes]]) -> Resolver:
        port = reactor.listenUDP(0, Scripted(answers), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return self.asking(("127.0.0.1", port.getHost().port))

    async def reason(self, resolver: Resolver, domain: str) -> str:
        found = await resolver.mail_hosts(domain)
        return found.reason.code if isinstance(found, Fault) else " ".join(each.host for each in found)

    async def test_a_long_answer_that_cannot_be_had(self) -> None:
        """Truncated with TCP refused, or cut short again over TCP: temporary, for this host alone, and nothing of ours is at fault."""
        records = {"b.example": [mx(10, "long.example"), mx(20, "short.example")], "c.example": [mx(10, "long.example")]}
        server = self.served({**records, "long.example": LONG, "short.example": [a("192.0.2.1")]})
        resolver = self.asking(server.address)
        server.factory.short = True
        assert await self.reason(resolver, "b.example") == "short.example"
        await server.listening.pop(0).stopListening()
        assert await self.reason(resolver, "b.example") == "short.example"
        assert await self.reason(resolver, "c.example") == "dns_failed"
        assert self.flushLoggedErrors() == []

    async def test_without_descriptors_a_question_fails(self) -> None:
        """No file descriptor is temporary, and the same question may be asked again."""
        server = self.served({"b.example": [a("192.0.2.1")]})
        resolver = self.asking(server.address)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            asked = resolver.mail_hosts("b.example")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        found = await asked
        assert isinstance(found, Fault)
        assert (found.reason.code, "Too many open files" in found.cause) == ("dns_failed", True)
        assert await self.reason(resolver, "b.example") == "b.example"
        assert self.flushLoggedErrors() == []

    async def test_a_server_that_cannot_be_reached_is_passed_over(self) -> None:
        """A server without a way to it costs no time: the next one is asked."""
        server = self.served({"b.example": [a("192.0.2.1")]})
        resolver = Resolver(reactor=reactor, servers=[("255.255.255.255", 53), server.address], random=random.Random(1), patience=(600,))
        self.addCleanup(resolver.stop)
        assert await self.reason(resolver, "b.example") == "b.example"

    async def test_so_many_at_once(self) -> None:
        """More questions than AT_ONCE wait for their turn, so that they do not take all descriptors."""
        self.patch(questions, "AT_ONCE", 3)
        names = [f"d{number}.example" for number in range(10)]
        server = self.served({name: [mx(10, "127.0.0.1")] for name in names})
        server.zone.held = {(name, dns.MX) for name in names}
        resolver = self.asking(server.address, (20,))
        asked = [resolver.mail_hosts(name) for name in names]
        await until(lambda: len(server.zone.questions) >= 3)
        await deferLater(reactor, 0.2, lambda: None)  # more would come by now
        assert len(server.zone.questions) == 3
        server.zone.release()
        assert not [each for each in await gatherResults(asked) if isinstance(each, Fault)]

    async def test_urgent_questions_go_first(self) -> None:
        """A27: of the questions that wait, those for urgent mail are next, also those that somebody else asked before for other mail, and
        those that follow from their answers; the others keep their order."""
        self.patch(questions, "AT_ONCE", 1)
        names = [f"d{number}.example" for number in range(5)]
        server = self.served({name: [mx(10, f"mx-{name}")] for name in names} | {f"mx-{name}": [a("192.0.2.1")] for name in names})
        server.zone.held = {(names[0], dns.MX)}
        resolver = self.asking(server.address, (20,))
        asked = [resolver.mail_hosts(name, 3) for name in names]
        asked += [resolver.mail_hosts(names[3], 2), resolver.mail_hosts(names[4], 1)]
        await until(lambda: server.zone.questions)
        server.zone.release()
        await gatherResults(asked)
        order = [name.removeprefix("mx-") for name, _ in server.zone.questions]
        assert list(dict.fromkeys(order)) == [names[each] for each in (0, 4, 3, 1, 2)]
        assert sorted(order[1:7]) == [names[3]] * 3 + [names[4]] * 3
        assert not resolver._names.turns._levels

    async def test_hosts_that_nobody_tells_of_hold_up_nobody_for_long(self) -> None:
        """The address of a host is asked for in the first rounds alone: a domain may name many such hosts."""
        hosts = [f"h{number}.example" for number in range(10)]
        server = self.served({"b.example": [mx(10, host) for host in hosts], **{host: [a("192.0.2.1")] for host in hosts}})
        server.zone.held = {(host, kind) for host in hosts for kind in (dns.A, dns.AAAA)}
        assert await self.reason(self.asking(server.address, (1, 1, 600)), "b.example") == "dns_failed"

    async def test_questions_are_not_told_in_the_log(self) -> None:
        """Neither a question over UDP nor one over TCP leaves a line in the daemon's log."""
        server = self.served({"long.example": LONG})
        events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(events.append)
        self.addCleanup(publisher.removeObserver, events.append)
        assert await self.reason(self.asking(server.address), "long.example")
        assert [str(event) for event in events if "UDP" in str(event) or "DNS" in str(event)] == []

    async def test_only_an_answer_to_what_was_asked_counts(self) -> None:
        """Garbage, and answers with another number or to another question, are passed over."""

        def answers(question: Any) -> list[bytes]:
            [asked] = question.queries
            name = asked.name.name.decode()
            if asked.type != dns.MX:
                return [answer(question, *[record(name, a("192.0.2.1"))] * (asked.type == dns.A))]
            false, true = record(name, mx(10, "false.example")), record(name, mx(10, "true.example"))
            elsewhere = [dns.Query(b"elsewhere.example", dns.MX)]
            noise = [b"", b"x", question.toStr(), question.toStr()[:2] + b"\x81\x80\x00\x01\x00\x09\x00\x00\x00\x00" + b"\xc0\x0c" * 40]
            others = [answer(question, false, id=question.id ^ 1), answer(question, false, queries=elsewhere)]
            return [*noise, *others, answer(question, true)]

        assert await self.reason(self.scripted(answers), "b.example") == "true.example"

    async def test_a_circle_is_temporary_however_it_is_told(self) -> None:
        """CNAME records that lead back defer, all in one answer or one after another, to oneself or past another name."""
        circles = {"self": ["self"], "two": ["other", "two"], "three": ["x", "y", "x"]}
        for start, names in circles.items():
            links = list(zip([start, *names], names, strict=False))

            records = [(one, record(one, cname(other))) for one, other in links]

            def whole(question: Any, records: Any = records) -> list[bytes]:
                return [answer(question, *(each for _, each in records))]

            def parted(question: Any, records: Any = records) -> list[bytes]:
                asked = question.queries[0].name.name.decode()
                return [answer(question, *(each for name, each in records if name == asked))]

            for answers in (whole, parted):
                assert await self.reason(self.scripted(answers), start) == "dns_failed"

    async def test_names_are_printable(self) -> None:
        """What a name server puts into a name drives no terminal and breaks no line."""
        evil = b"mx\x1b]0;owned\x07\r\nx: y\x9b.evil"

        def answers(question: Any) -> list[bytes]:
            [asked] = question.queries
            name = asked.name.name.decode("latin-1")
            if asked.type == dns.MX:
                return [answer(question, record(name, dns.Record_MX(10, evil, ttl=60)))]
            return [answer(question, *[record(name, a("192.0.2.1"))] * (asked.type == dns.A))]

        found = await self.scripted(answers).mail_hosts("b.example")
        assert not isinstance(found, Fault)
        assert [each.host for each in found] == ["mx ]0;owned x: y\\x9b.evil"]
