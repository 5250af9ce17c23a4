"""Signing on the way out: what arrives at the next hop is verified by dkimpy, with the keys of a real database."""

from __future__ import annotations

from typing import Any

import dkim as dkimpy  # type: ignore[import-untyped]  # dkimpy has no annotations
from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from smtpplus.delivery import keys
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.keys import StoredKey
from smtpplus.delivery.signing import FIELDS_LIMIT, Signer
from smtpplus.mail import dkim
from smtpplus.mail.envelope import CHUNK, Content, WholeContent
from smtpplus.storage.database import Database
from smtpplus.storage.engine import migrate
from smtpplus.storage.schema import dkim_keys
from tests.delivery.peer import Line, Peer
from tests.delivery.rig import DeliveryCase, Pieces, Underway, cut, reactor, request, said
from tests.rig.next_hop import NextHop

MESSAGE = b"From: Ann <ann@A.example>\r\nSubject: hello\r\n\r\nA line.\r\n"
LARGE = b"From: ann@a.example\r\nSubject: large\r\n\r\n" + b"  a line \t of text \r\n.\r\n\r\n" * 40_000


class SigningTests(DeliveryCase):
    async def prepare(self, *algorithms: Any, domain: str = "a.example", start: bool = True) -> None:
        """A database with one key for each algorithm, and the signer over it."""
        folder = self.folder()
        folder.mkdir()
        url = f"sqlite:///{folder}/keys.sqlite"
        migrate(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.addCleanup(self.database.stop)
        self.keys: list[StoredKey] = []
        for algorithm in algorithms:
            await self.add(algorithm, domain=domain)
        threads = ThreadPool(0, 1, "signing")
        threads.start()
        self.addCleanup(threads.stop)
        self.signer = Signer(self.database, reactor=reactor, threads=threads, now=lambda: 1e9)
        self.addCleanup(self.signer.stop)
        if start:
            self.signer.start()

    async def add(self, algorithm: Any, *, domain: str = "a.example", active: bool = True) -> StoredKey:
        number = len(self.keys)

        def work(connection: Connection) -> list[StoredKey]:
            return keys.add_keys(connection, domain, selector=f"s{number}", algorithm=algorithm, now=float(number), active=active)

        made = await self.database.write(work)
        self.keys += made
        return made[0]

    async def fields(self, content: Content, **envelope: Any) -> list[bytes]:
        """The signatures of a message, by the signer alone."""
        wanted = request("x", content=content, **envelope)
        done: Deferred[bytes | Fault] = Deferred()
        self.signer.sign(wanted.envelope, content, done.callback)
        found = await done
        assert isinstance(found, bytes)
        return [b"DKIM-Signature" + each for each in found.split(b"DKIM-Signature")[1:]]

    def verified(self, message: bytes, count: int) -> bool:
        """Whether `count` signatures of the message verify, and there are no more."""

        def look_up(name: bytes, **_: Any) -> bytes | None:
            return next((key.record().encode() for key in self.keys if name.decode().rstrip(".") == key.name), None)

        judge = dkimpy.DKIM(message, minkey=1024)
        found = len([name for name, _ in judge.headers if name.lower() == b"dkim-signature"])
        return found == count and all(judge.verify(index, dnsfunc=look_up) for index in range(count))

    async def arrived(self, content: Content, **envelope: Any) -> bytes:
        """The message as the next hop has it."""
        with NextHop() as hop:
            delivery = self.make(("*", hop.via), signer=self.signer)
            [disposition] = await self.send(delivery, request(hop.via, content=content, **envelope))
            assert disposition.reply.code == 250
            [taken] = hop.await_deliveries(bool)
            await delivery.stop()
        return taken.content

    async def test_mail_arrives_signed_by_both(self) -> None:
        """C5: with a key of each algorithm a message has two signatures on top, both verify, and below them it is byte-exact."""
        await self.prepare("rsa", "ed25519")
        message = await self.arrived(WholeContent(MESSAGE))
        assert self.verified(message, 2)
        assert message.endswith(b"\r\n" + MESSAGE)

    async def test_a_large_message_is_signed_piece_by_piece(self) -> None:
        """A message in pieces, at hand or not, verifies; a body of its own, no larger piece than CHUNK and the signature, is held."""
        await self.prepare("ed25519")
        for size in (CHUNK, 1000):
            content = Pieces(cut(LARGE, size), slow=size == CHUNK)
            [field] = await self.fields(content)
            assert self.verified(field + LARGE, 1)
            self.signer._done.clear()
        assert self.verified(await self.arrived(Pieces(cut(LARGE))), 1)

    async def test_the_next_attempt_has_the_same_signature(self) -> None:
        """A message is hashed once: another attempt, and one that asks meanwhile, read nothing."""
        await self.prepare("rsa")
        reads = 0

        class Counted(Pieces):
            def read(self, index: int, done: Any) -> None:
                nonlocal reads
                reads += 1
                super().read(index, done)

        content = Counted(cut(LARGE), slow=True)
        first, second = self.fields(content), self.fields(content)
        assert await Deferred.fromCoroutine(first) == await Deferred.fromCoroutine(second) == await self.fields(content)
        assert reads == content.chunks

    async def test_odd_headers_are_signed_but_not_remembered(self) -> None:
        """What is kept for later does not grow with a header: neither a From at its limit, nor a field of 20,000 names."""
        await self.prepare("ed25519")
        dkim._named.cache_clear()
        author = b"(" + b"x" * 5_000 + b") ann@a.example"
        await self.fields(WholeContent(MESSAGE.replace(b"Ann <ann@A.example>", author)), id=1)
        assert self.signer._authors.cache_info().currsize == 0
        message = b"To: x\r\n" * 20_000 + MESSAGE
        dkim._named.cache_clear()
        [field] = await self.fields(WholeContent(message), id=2)
        assert len(field) > FIELDS_LIMIT
        assert field.count(b"to:") >= 20_000
        assert (2 in self.signer._done, dkim._named.cache_info().currsize) == (False, 0)

    async def test_who_has_no_key_is_not_signed(self) -> None:
        """Only the exact domain of From signs, whoever the envelope's sender is; several authors sign each for theirs."""
        await self.prepare("ed25519")
        for author in (b"x@b.example", b"x@m.a.example", b"x@nota.example", b"nonsense", b""):
            assert await self.fields(WholeContent(MESSAGE.replace(b"Ann <ann@A.example>", author)), id=hash(author)) == []
            assert self.signer._under_way == {}
        await self.add("ed25519", domain="b.example")
        await self.until(lambda: len(self.signer._keys) == 2)
        both = MESSAGE.replace(b"Ann", b"x@b.example, Ann")
        found = await self.fields(WholeContent(both), sender="c@c.example", id=7)
        assert [b" d=b.example;" in found[0], b" d=a.example;" in found[1]] == [True, True]
        assert self.verified(b"".join(found) + both, 2)

    async def test_alert_mode_gets_no_signature(self) -> None:
        """A19: what was let through although its sender is not authorized leaves unsigned, as it came."""
        await self.prepare("ed25519")
        assert await self.arrived(WholeContent(MESSAGE), unauthorized=True) == MESSAGE
        assert self.verified(await self.arrived(WholeContent(MESSAGE)), 1)

    async def test_what_is_converted_is_signed_as_it_leaves(self) -> None:
        """C5, RFC 6376 §5.3: 8-bit mail has one signature for who takes it, and one over the converted octets for who does not."""
        await self.prepare("ed25519")
        mime = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"
        content = WholeContent(mime + MESSAGE.replace(b"A line", "Grüße".encode()))

        def script(line: Line) -> None:
            line.greet("250-old.example\r\n250 PIPELINING\r\n")
            line.message()
            line.gone()

        assert self.verified(await self.arrived(content, body="8BITMIME"), 1)
        with Peer(script) as peer:
            delivery = self.make(("*", peer.via), signer=self.signer)
            await self.send(delivery, request(peer.via, content=content, body="8BITMIME"))
            await delivery.stop()
        message = bytes(peer.lines[0].received).partition(b"DATA\r\n")[2].removesuffix(b"QUIT\r\n").removesuffix(b".\r\n")
        assert b"Gr=C3=BC=C3=9Fe" in message
        assert self.verified(message, 1)

    async def test_keys_change_while_it_runs(self) -> None:
        """A new key replaces the older one of its algorithm, one that waits for its record does not, and without keys nobody asks."""
        await self.prepare()
        await self.until(lambda: not self.signer.active)
        for number, active in enumerate((True, True, False)):
            key = await self.add("ed25519", active=active)
            await self.turn(0.6)
            [field] = await self.fields(WholeContent(MESSAGE), id=number)
            assert (b" s=%s;" % key.selector.encode() in field) == active
        await self.database.write(lambda connection: keys.remove_keys(connection, self.keys))
        await self.until(lambda: not self.signer.active)

    async def test_nothing_leaves_before_the_keys_are_read(self) -> None:
        """What is to be sent before the keys are known waits for them."""
        await self.prepare("ed25519", start=False)
        with NextHop() as hop:
            delivery = self.make(("*", hop.via), signer=self.signer)
            underway = Underway(delivery, request(hop.via, content=WholeContent(MESSAGE)))
            assert underway.transfer.stop()
            underway.transfer.go()
            await self.turn(0.1)
            assert underway.calls == 0
            self.signer.start()
            assert said(await underway.ended)[0][1] == 250
            [taken] = hop.await_deliveries(bool)
            await delivery.stop()
        assert self.verified(taken.content, 1)

    async def test_a_transfer_can_be_stopped_and_given_up_while_it_is_signed(self) -> None:
        """A27: what is stopped before it is signed sends no command until it goes on; what is abandoned there is deferred."""
        await self.prepare("rsa")
        await self.until(lambda: self.signer._keys)

        def script(line: Line) -> None:
            line.greet()
            line.message()
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via), signer=self.signer)
            held = Underway(delivery, request(peer.via, content=WholeContent(MESSAGE)))
            gone = Underway(delivery, request(peer.via, content=Pieces(cut(LARGE), slow=True), id=2))
            assert held.transfer.stop()
            gone.transfer.abandon()
            assert said(await gone.ended) == [("bob@b.example", 451, "abandoned")]
            await self.until(lambda: 1 in self.signer._done)
            await self.turn(0.1)
            assert not peer.lines
            held.transfer.go()
            assert said(await held.ended) == [("bob@b.example", 250, "delivered")]
            await self.until(lambda: not self.signer._under_way)
            await delivery.stop()

    async def test_what_cannot_be_read_is_deferred(self) -> None:
        """A piece that is lost defers the message; a damaged row of a key costs that key alone, and is logged."""
        await self.prepare("ed25519")
        delivery = self.make(("*", "discard:"), signer=self.signer)
        lost = request("discard:", content=Pieces(cut(LARGE), lost=3))
        assert said(await self.send(delivery, lost)) == [("bob@b.example", 451, "content_lost")]
        broken = self.keys[0]
        await self.database.write(
            lambda connection: connection.execute(
                dkim_keys.insert().values(domain="b.example", selector="x", algorithm="rsa", private_key="none", active=True, created_at=1)
            )
        )
        await self.database.write(keys.raise_generation)
        await self.until(lambda: self.signer._seen == 2)
        assert len(self.flushLoggedErrors(ValueError)) == 1
        assert await self.fields(WholeContent(MESSAGE.replace(b"A.example", b"b.example")), id=3) == []
        [field] = await self.fields(WholeContent(MESSAGE), id=4)
        assert broken.selector.encode() in field
