"""Deliveries over real sockets: what the next hop gets, and what the queue is told."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred

from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import CHUNK, WholeContent
from tests.delivery.peer import Line, Peer
from tests.delivery.rig import SMALL, DeliveryCase, Held, Pieces, Underway, cut, request, said
from tests.rig.next_hop import NextHop


class AcceptedTests(DeliveryCase):
    async def test_a_message_reaches_an_independent_next_hop(self) -> None:
        """A message arrives once, byte-exact, with its envelope; the disposition is the peer's own reply and name."""
        with NextHop() as hop:
            delivery = self.make(("*", hop.via))
            [disposition] = await self.send(delivery, request(hop.via, "bob@b.example"))
            [taken] = hop.await_deliveries(bool)
            await delivery.stop()
        assert (taken.sender, taken.recipients, taken.content) == ("ann@a.example", ("bob@b.example",), SMALL)
        assert (str(disposition.reply), disposition.reason) == ("250 2.0.0 taken", "delivered")
        assert disposition.peer == f"127.0.0.1[127.0.0.1]:{hop.port}"

    async def test_dots_at_every_chunk_boundary_arrive_exactly(self) -> None:
        """Lines that begin with a dot arrive byte-exact wherever the pieces of the content are cut (fault 8 of the architecture)."""
        octets = b"Subject: dots\r\n\r\n" + b"".join(b".\r\n..\r\n.%d\r\n" % number for number in range(12)) + b".."
        with NextHop() as hop:
            delivery = self.make(("*", hop.via))
            for size in range(1, 24):
                content = Pieces(cut(octets, size), slow=size % 2 == 0)
                [disposition] = await self.send(delivery, request(hop.via, content=content))
                assert disposition.reply.code == 250
            taken = hop.await_deliveries(lambda deliveries: len(deliveries) == 23)
            await delivery.stop()
        assert {each.content for each in taken} == {octets + b"\r\n"}

    async def test_a_large_message_arrives_exactly(self) -> None:
        """A message of many pieces with dots around each 64 KiB boundary arrives byte-exact."""
        octets = bytearray(b"Subject: large\r\n\r\n" + b"x" * 62 + b"\r\n") + (b"y" * 62 + b"\r\n") * 20_000
        for boundary in range(CHUNK, len(octets) - 8, CHUNK):
            for shift in (-3, -2, -1, 0):
                octets[boundary + shift : boundary + shift + 3] = b"\r\n."
        with NextHop() as hop:
            delivery = self.make(("*", hop.via))
            await self.send(delivery, request(hop.via, content=Pieces(cut(bytes(octets)))))
            [taken] = hop.await_deliveries(bool)
            await delivery.stop()
        assert taken.content == bytes(octets)

    async def test_a_connection_is_used_again_from_within_done(self) -> None:
        """A request handed in from `done` runs on the connection that has just become free; many messages need one connection."""
        with NextHop() as hop:
            delivery = self.make(("*", hop.via))
            finished: Deferred[int] = Deferred()
            count = 0

            def done(dispositions: list[Disposition]) -> None:
                nonlocal count
                count += 1
                if count == 50:
                    finished.callback(count)
                else:
                    delivery.deliver(request(hop.via), done)

            delivery.deliver(request(hop.via), done)
            await finished
            taken = hop.await_deliveries(lambda deliveries: len(deliveries) == 50)
            await delivery.stop()
        assert {each.connection for each in taken} == {1}

    async def test_a_connection_carries_a_hundred_messages(self) -> None:
        """After 100 transactions a connection ends with QUIT, and another takes over."""
        with NextHop() as hop:
            delivery = self.make(("*", hop.via))
            for _ in range(101):
                await self.send(delivery, request(hop.via))
            taken = hop.await_deliveries(lambda deliveries: len(deliveries) == 101)
            await delivery.stop()
        assert [sum(each.connection == number for each in taken) for number in (1, 2)] == [100, 1]

    async def test_a_prepared_connection_waits_for_its_message(self) -> None:
        """A27: while the only session works, one that is prepared is opened before the urgent message for it comes, and only one."""
        content = Held(cut(SMALL, 10))

        def sessions() -> int:
            return len({each.connection for each in list(hop.arrivals)})

        with NextHop() as hop:
            delivery = self.make(("*", hop.via))
            urgent = request(hop.via, "urgent@b.example", level=1)
            delivery.prepare(urgent.envelope, hop.via)  # nobody was reached there yet: without effect
            bulk = self.sending(delivery, request(hop.via, "bulk@b.example", content=content))
            await self.until(lambda: len(hop.attempts) == 1)
            delivery.prepare(urgent.envelope, hop.via)
            delivery.prepare(urgent.envelope, hop.via)
            await self.until(lambda: sessions() == 2)
            await self.send(delivery, urgent)
            delivery.prepare(urgent.envelope, hop.via)  # one is idle
            content.release()
            await bulk
            taken = hop.await_deliveries(lambda deliveries: len(deliveries) == 2)
            await delivery.stop()
        assert [(each.recipients, each.connection) for each in taken] == [(("urgent@b.example",), 2), (("bulk@b.example",), 1)]
        assert sessions() == 2

    async def test_bulk_leaves_the_last_idle_connection_to_who_is_expected(self) -> None:
        """A27: between `prepare` and the urgent message others open a connection of their own, and afterwards use all of them again."""
        content = Held([SMALL])
        with NextHop() as hop:
            delivery = self.make(("*", hop.via))
            urgent = msgspec.structs.replace(request(hop.via, "urgent@b.example", level=1), urgent=True)
            await self.send(delivery, request(hop.via, "first@b.example"))
            delivery.prepare(urgent.envelope, hop.via)
            bulk = self.sending(delivery, request(hop.via, "bulk@b.example", content=content))
            await self.send(delivery, urgent)
            await self.send(delivery, request(hop.via, "last@b.example"))
            content.release()
            await bulk
            taken = hop.await_deliveries(lambda deliveries: len(deliveries) == 4)
            await delivery.stop()
        found = {each.recipients[0].partition("@")[0]: each.connection for each in taken}
        assert (found["first"], found["urgent"]) == (1, 1)
        assert {found["bulk"], found["last"]} == {1, 2}


class VerdictTests(DeliveryCase):
    async def test_each_recipient_hears_its_own_reply(self) -> None:
        """Recipients of one transaction have their own dispositions."""

        def script(line: Line) -> None:
            line.greet()
            line.message("250 2.0.0 taken", "550 5.1.1 no", "250 ok", "450 4.2.1 later", "552 5.2.2 full")
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            found = await self.send(delivery, request(peer.via, "a@x", "b@x", "c@x", "d@x"))
            await delivery.stop()
        assert said(found) == [
            ("a@x", 550, "peer_refused"),
            ("b@x", 250, "delivered"),
            ("c@x", 450, "peer_deferred"),
            ("d@x", 552, "peer_refused"),
        ]

    async def test_data_that_nobody_gets_is_a_lone_dot(self) -> None:
        """When all recipients are refused and DATA is accepted, a lone dot is sent (RFC 2920 §3.1), and the session goes on."""

        def script(line: Line) -> None:
            line.greet()
            line.envelope("550 no")
            assert line.until(b"\r\n") == b".\r\n"
            line.send("554 5.5.1 nobody\r\n")
            line.message()
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            first = await self.send(delivery, request(peer.via))
            second = await self.send(delivery, request(peer.via))
            await delivery.stop()
        assert said(first) + said(second) == [("bob@b.example", 550, "peer_refused"), ("bob@b.example", 250, "delivered")]
        assert len(peer.lines) == 1

    async def test_a_failed_transaction_is_reset_before_the_next(self) -> None:
        """After a refused DATA the next transaction on the connection begins with RSET, in the same write where the peer pipelines."""

        def script(line: Line) -> None:
            line.greet()
            line.command("MAIL")
            line.command("RCPT")
            line.command("DATA")
            line.send("250 ok\r\n250 ok\r\n451 4.3.0 not now\r\n")
            line.command("RSET")
            assert b"DATA\r\n" in line.buffer
            line.send("250 ok\r\n")
            line.message()
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            first = await self.send(delivery, request(peer.via))
            second = await self.send(delivery, request(peer.via))
            await delivery.stop()
        assert [said(first)[0][1:], said(second)[0][1:]] == [(451, "peer_deferred"), (250, "delivered")]

    async def test_without_pipelining_each_command_waits(self) -> None:
        """A peer that offers nothing, not even EHLO, gets HELO and one command at a time."""

        def script(line: Line) -> None:
            line.send("220 old.example\r\n")
            line.command("EHLO")
            line.send("500 what?\r\n")
            line.command("HELO")
            line.send("250 old.example\r\n")
            for verb in ("MAIL", "RCPT", "RCPT", "DATA"):
                assert line.command(verb).rstrip() in {"MAIL FROM:<ann@a.example>", "RCPT TO:<a@x>", "RCPT TO:<b@x>", "DATA"}
                assert not line.buffer
                line.send("354 go\r\n" if verb == "DATA" else "250 ok\r\n")
            line.until(b"\r\n.\r\n")
            line.send("250 ok\r\n")
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            found = await self.send(delivery, request(peer.via, "a@x", "b@x"))
            await delivery.stop()
        assert [each.reply.code for each in found] == [250, 250]

    async def test_parameters_are_sent_where_they_are_offered(self) -> None:
        """SIZE, BODY=8BITMIME and SMTPUTF8 go with MAIL when the peer offers and the envelope needs them."""

        def script(line: Line) -> None:
            line.greet()
            line.message()
            line.gone()

        content = WholeContent("Subject: é\r\n\r\né\r\n".encode())
        wanted = [
            request("", content=content, body="8BITMIME", smtputf8=True, sender="é@a.example"),
            request("", content=content, body="8BITMIME"),
            request("", sender=""),
        ]
        commands = []
        for each in wanted:
            with Peer(script) as peer:
                delivery = self.make(("*", peer.via))
                await self.send(delivery, msgspec.structs.replace(each, destination=peer.via))
                await delivery.stop()
            commands.append(peer.lines[0].received.split(b"\r\n")[1].decode())
        assert commands == [
            f"MAIL FROM:<é@a.example> SIZE={content.size} BODY=8BITMIME SMTPUTF8",
            f"MAIL FROM:<ann@a.example> SIZE={content.size} BODY=8BITMIME",
            f"MAIL FROM:<> SIZE={len(SMALL)}",
        ]

    async def test_a_peer_that_lacks_what_the_message_needs_is_not_tried(self) -> None:
        """Mail that needs what the peer lacks (8BITMIME, SMTPUTF8, size) fails for good; ASCII goes without the extensions."""

        def script(line: Line) -> None:
            line.greet("250-plain.example\r\n250 SIZE 1000\r\n")
            line.message()
            line.gone()

        eight, plain = WholeContent(b"Subject: no MIME\r\n\r\n\xe9\r\n"), WholeContent(b"\r\ne\r\n")
        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            found = [
                said(await self.send(delivery, each))[0][1:]
                for each in (
                    request(peer.via, content=eight, body="8BITMIME"),
                    request(peer.via, content=Pieces([b"a", b"\xe9"], slow=True), smtputf8=True),
                    request(peer.via, "\u00e9@x", content=plain, smtputf8=True),
                    request(peer.via, "\u00e9@x", content=plain),
                    request(peer.via, content=WholeContent(b"x" * 1001)),
                    request(peer.via, content=Pieces([b"a", b"b"], lost=1), body="8BITMIME"),
                    request(peer.via, content=plain, body="8BITMIME", smtputf8=True),
                )
            ]
            await delivery.stop()
        assert found == [
            (554, "peer_lacks_8bitmime"),
            (553, "peer_lacks_smtputf8"),
            (553, "peer_lacks_smtputf8"),
            (553, "peer_lacks_smtputf8"),
            (552, "peer_size_limit"),
            (451, "content_lost"),
            (250, "delivered"),
        ]
        assert b"BODY" not in peer.lines[0].received

    async def test_a_recipient_the_peer_cannot_have_fails_alone(self) -> None:
        """Without SMTPUTF8 an address that is not ASCII is refused, and those beside it are not, if the content allows."""

        def script(line: Line) -> None:
            line.greet("250-plain.example\r\n250 PIPELINING\r\n")
            line.message("250 ok", "250 ok", "550 no")
            line.gone()

        eight = WholeContent(b"Subject: \xc3\xa9\r\n\r\n")
        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            addresses = ("\u00e9@x", "ann@x", "\u00fc@x", "bob@x")
            lacks, sent, refused = (553, "peer_lacks_smtputf8"), (250, "delivered"), (550, "peer_refused")
            for content, verdicts in ((eight, [lacks] * 4), (WholeContent(SMALL), [lacks, sent, lacks, refused])):
                found = await self.send(delivery, request(peer.via, *addresses, content=content, smtputf8=True))
                assert said(found) == [(address, *verdict) for address, verdict in zip(addresses, verdicts, strict=True)]
            await delivery.stop()
        [line] = peer.lines
        assert line.received.count(b"RCPT TO") == 2

    async def test_an_address_with_a_line_end_never_reaches_the_wire(self) -> None:
        """A command cannot be smuggled in an address: the attempt is deferred as a fault of ours, and nothing of it is sent."""

        def script(line: Line) -> None:
            line.greet()
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            found = await self.send(delivery, request(peer.via, "a@x>\r\nRCPT TO:<evil@x"))
            await delivery.stop()
        assert said(found)[0][1:] == (451, "unexpected")
        assert peer.lines[0].received == b"EHLO relay.example\r\n"
        assert len(self.flushLoggedErrors(ValueError)) == 1


class LocalTests(DeliveryCase):
    async def test_discard_takes_everything(self) -> None:
        """discard: reports every recipient as delivered, and never before `deliver` has returned."""
        delivery = self.make(("*", "discard:"))
        underway = Underway(delivery, request("discard:", "a@x", "b@x"))
        assert underway.calls == 0
        assert said(await underway.ended) == [("a@x", 250, "delivered"), ("b@x", 250, "delivered")]

    async def test_no_route_is_final(self) -> None:
        """A domain that no route matches fails for good."""
        delivery = self.make(("a.example", "discard:"))
        assert said(await self.send(delivery, request("b.example"))) == [("bob@b.example", 550, "no_route")]

    async def test_a_stopped_delivery_defers(self) -> None:
        """After `stop` every request is deferred at once."""
        delivery = self.make(("*", "discard:"))
        first, second = delivery.stop(), delivery.stop()
        await first
        await second
        assert said(await self.send(delivery, request("discard:"))) == [("bob@b.example", 451, "abandoned")]
