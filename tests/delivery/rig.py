"""What tests of deliveries need: a Delivery on the real reactor, requests, and dispositions as Deferreds."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate
from twisted.internet.task import deferLater
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from smtpplus.config import DNS, Configuration, Route
from smtpplus.config import Delivery as DeliverySettings
from smtpplus.delivery.attempt import Delivery
from smtpplus.delivery.signing import Signer
from smtpplus.mail.disposition import DeliveryAgent, Disposition, Request, Transfer
from smtpplus.mail.envelope import CHUNK, Content, Envelope, Recipient, WholeContent

reactor: Any = _reactor
SMALL = b"Subject: hello\r\n\r\nA line.\r\n"


class Pieces:
    """Content in several pieces, given at once or, with `slow`, a turn of the reactor later; `lost` is the piece that cannot be read."""

    def __init__(self, pieces: list[bytes], *, slow: bool = False, lost: int = -1) -> None:
        self.pieces = pieces
        self.slow = slow
        self.lost = lost

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def chunks(self) -> int:
        return len(self.pieces)

    def read(self, index: int, done: Any) -> None:
        piece = None if index == self.lost else self.pieces[index]
        if self.slow:
            reactor.callLater(0, done, piece)
        else:
            done(piece)


class Held(Pieces):
    """Content whose last piece is not read before `release`: the transfer is under way for as long as the test wants."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(pieces)
        self._last: list[Any] = []
        self._released = False

    def read(self, index: int, done: Any) -> None:
        if index == len(self.pieces) - 1 and not self._released:
            self._last.append(done)
        else:
            super().read(index, done)

    def release(self) -> None:
        """Let the last piece go."""
        self._released = True
        for done in self._last:
            done(self.pieces[-1])


def cut(octets: bytes, size: int = CHUNK) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


def request(
    destination: str, *addresses: str, content: Content | None = None, sender: str = "ann@a.example", level: int = 3, **fields: Any
) -> Request:
    """An attempt at a message of ann's, to bob if nobody is named. `fields` are the envelope's."""
    recipients = tuple(Recipient(address) for address in addresses or ("bob@b.example",))
    content = content or WholeContent(SMALL)
    given = {"id": 1, "user": "ann", "received_at": 0.0, **fields}
    envelope = Envelope(sender=sender, recipients=recipients, level=level, size=content.size, **given)
    return Request(envelope, recipients, destination, content, 1)


class Underway:
    """A delivery that was begun: `transfer` to stop and let go, `ended` with its dispositions, `calls` of done."""

    def __init__(self, delivery: DeliveryAgent, wanted: Request) -> None:
        self.ended: Deferred[list[Disposition]] = Deferred()
        self.calls = 0
        self.transfer: Transfer = delivery.deliver(wanted, self._done)

    def _done(self, dispositions: list[Disposition]) -> None:
        self.calls += 1
        if self.calls == 1:
            self.ended.callback(dispositions)


def said(dispositions: list[Disposition]) -> list[tuple[str, int, str]]:
    """Recipient, reply code and reason of each."""
    return [(each.recipient.address, each.reply.code, each.reason) for each in dispositions]


class DeliveryCase(TestCase):
    """A test case that stops its deliveries and its threads, and then leaves nothing with the reactor."""

    timeout = 60

    def make(
        self,
        *routes: tuple[str, str] | Route,
        tls: str = "none",
        dns: tuple[tuple[str, int], ...] = (("127.0.0.1", 9),),
        own: set[tuple[str, int]] | None = None,
        trust: Certificate | None = None,
        mx_port: int = 25,
        connections: int = 100,
        messages: int = 100,
        signer: Signer | None = None,
    ) -> Delivery:
        given = {"tls": tls, "mx_port": mx_port, "connections": connections, "messages_per_connection": messages}
        settings = msgspec.convert(given, DeliverySettings)
        route = tuple(each if isinstance(each, Route) else Route(destination=each[0], via=each[1]) for each in routes)
        configuration = Configuration(hostname="relay.example", delivery=settings, dns=DNS(servers=dns), route=route)
        threads = ThreadPool(0, 1, "maildir")
        threads.start()
        self.addCleanup(threads.stop)
        delivery = Delivery(
            configuration=configuration,
            reactor=reactor,
            threads=threads,
            random=random.Random(1),
            own=own or set(),
            trust=trust,
            signer=signer,
        )
        self.addCleanup(delivery.stop)
        return delivery

    async def send(self, delivery: Delivery, wanted: Request) -> list[Disposition]:
        """Carry out one attempt to its end."""
        underway = Underway(delivery, wanted)
        dispositions = await underway.ended
        await self.turn()
        assert underway.calls == 1, "done was called again"
        return dispositions

    def sending(self, delivery: Delivery, wanted: Request) -> Deferred[list[Disposition]]:
        """`send`, begun now."""
        return Deferred.fromCoroutine(self.send(delivery, wanted))

    async def turn(self, seconds: float = 0.0) -> None:
        await deferLater(reactor, seconds, lambda: None)

    async def until(self, condition: Any, seconds: float = 20.0) -> None:
        """Let the reactor run until `condition()` is true; fail if it never is."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            await self.turn(0.01)

    def folder(self) -> Path:
        return Path(self.mktemp()).absolute()
