"""Preemption seen from the wire (A27): a stopped transfer stops writing, nothing is cut, and it goes on to the same end."""

from __future__ import annotations

import threading

from smtpplus.mail.envelope import WholeContent
from tests.delivery.peer import Line, Peer
from tests.delivery.rig import DeliveryCase, Held, Pieces, Underway, cut, request, said

LARGE = b"Subject: bulk\r\n\r\n" + (b"z" * 62 + b"\r\n") * 400_000  # 25 MB


class StopTests(DeliveryCase):
    async def test_a_stopped_transfer_stops_writing_and_goes_on(self) -> None:
        """After stop little more arrives (what the kernels held), the session stays open, and after go the message arrives exactly. A27."""

        def script(line: Line) -> None:
            line.greet()
            line.message()
            line.gone()

        content = Pieces(cut(LARGE), slow=True)
        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            underway = Underway(delivery, request(peer.via, content=content))
            await self.until(lambda: peer.lines and len(peer.lines[0].received) > 1_000_000)
            assert underway.transfer.stop()
            assert underway.transfer.stop()
            line = peer.lines[0]
            held = -1
            while held != len(line.received):  # what was in flight arrives
                held = len(line.received)
                await self.turn(0.3)
            assert held < len(LARGE)
            await self.turn(0.5)
            assert len(line.received) == held
            underway.transfer.go()
            assert said(await underway.ended) == [("bob@b.example", 250, "delivered")]
            assert not underway.transfer.stop()
            await delivery.stop()
        assert line.received.endswith(LARGE + b".\r\nQUIT\r\n")
        assert len(peer.lines) == 1

    async def test_little_is_in_flight_to_a_slow_reader(self) -> None:
        """What leaves after stop is bounded by the kernels' buffers and one piece, not by the message."""
        reading = threading.Event()

        def script(line: Line) -> None:
            line.socket.setsockopt(1, 8, 16_384)  # SOL_SOCKET, SO_RCVBUF
            line.greet()
            line.envelope()
            reading.wait(20)
            line.until(b"\r\n.\r\n")
            line.send("250 ok\r\n")
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            given = 0

            class Counted(Pieces):
                def read(self, index: int, done: object) -> None:
                    nonlocal given
                    given = index + 1
                    super().read(index, done)

            underway = Underway(delivery, request(peer.via, content=Counted(cut(LARGE))))
            await self.until(lambda: given > 0)
            before = -1
            while before != given:
                before = given
                await self.turn(0.3)
            assert given * 65_536 < 2_000_000, "the transport took far more than one piece and the kernel's share"
            assert underway.transfer.stop()
            reading.set()
            await self.turn(0.5)
            assert given == before
            underway.transfer.go()
            assert said(await underway.ended)[0][1] == 250
            await delivery.stop()

    async def test_a_transfer_stopped_before_it_began_waits(self) -> None:
        """A transfer that is stopped while its connection is opened sends no MAIL until go; an urgent one takes the connection."""
        greeting = threading.Event()

        def script(line: Line) -> None:
            greeting.wait(20)
            line.greet()
            line.message()
            line.message()
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            bulk = Underway(delivery, request(peer.via, "bulk@x", level=5))
            await self.until(lambda: peer.lines)
            assert bulk.transfer.stop()
            urgent = Underway(delivery, request(peer.via, "urgent@x", level=1))
            greeting.set()
            assert said(await urgent.ended) == [("urgent@x", 250, "delivered")]
            await self.turn(0.3)
            assert b"bulk@x" not in peer.lines[0].received
            assert bulk.calls == 0
            bulk.transfer.go()
            assert said(await bulk.ended) == [("bulk@x", 250, "delivered")]
            await delivery.stop()

    async def test_a_transfer_stopped_before_data_writes_none(self) -> None:
        """A transfer stopped between MAIL and 354 sends no data until go, even of a message of one piece."""
        answer = threading.Event()

        def script(line: Line) -> None:
            line.greet()
            line.until(b"DATA\r\n")
            answer.wait(20)
            line.send("250 ok\r\n250 ok\r\n354 go\r\n")
            line.until(b"\r\n.\r\n")
            line.send("250 ok\r\n")
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            underway = Underway(delivery, request(peer.via))
            await self.until(lambda: peer.lines and b"DATA\r\n" in peer.lines[0].received)
            assert underway.transfer.stop()
            answer.set()
            await self.turn(0.3)
            assert peer.lines[0].received.endswith(b"DATA\r\n")
            underway.transfer.go()
            assert said(await underway.ended)[0][1] == 250
            await delivery.stop()

    async def test_stop_comes_too_late_after_the_final_dot(self) -> None:
        """Once the final dot is out, stop says no and the verdict comes; abandon waits for it too."""
        answer = threading.Event()

        def script(line: Line) -> None:
            line.greet()
            line.envelope()
            line.until(b"\r\n.\r\n")
            answer.wait(20)
            line.send("250 ok\r\n")
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            underway = Underway(delivery, request(peer.via))
            await self.until(lambda: peer.lines and peer.lines[0].received.endswith(b"\r\n.\r\n"))
            assert not underway.transfer.stop()
            underway.transfer.abandon()
            answer.set()
            assert said(await underway.ended)[0][1] == 250
            await delivery.stop()


class FullTests(DeliveryCase):
    """A peer that takes one connection and refuses every other."""

    def setUp(self) -> None:
        self.taken: list[bytes] = []

    def one(self, refusal: str = "421 4.7.0 one is enough") -> Peer:
        def takes(line: Line) -> None:
            line.greet()
            while True:
                line.until(b"DATA\r\n")
                line.send("250 ok\r\n250 ok\r\n354 go\r\n")
                self.taken.append(line.until(b"\r\n.\r\n")[:20])
                line.send("250 ok\r\n")
                while not line.buffer:
                    if not line.read():
                        return
                if line.buffer.startswith(b"QUIT"):
                    line.gone()
                    return

        return Peer(takes, lambda line: line.send(refusal + "\r\n"))

    async def test_an_urgent_message_takes_over_the_session_of_the_bulk_it_stopped(self) -> None:
        """A27: refused a connection of its own, the urgent message waits for the stopped one, which is brought to its end for it."""
        with self.one() as peer:
            delivery = self.make(("*", peer.via))
            bulk = Underway(delivery, request(peer.via, "bulk@x", level=5, content=Pieces(cut(LARGE), slow=True)))
            await self.until(lambda: peer.lines and len(peer.lines[0].received) > 1_000_000)
            assert bulk.transfer.stop()
            urgent = Underway(delivery, request(peer.via, "urgent@x", level=1))
            assert said(await bulk.ended) == [("bulk@x", 250, "delivered")]
            assert said(await urgent.ended) == [("urgent@x", 250, "delivered")]
            await delivery.stop()
        assert self.taken == [LARGE[:20], b"Subject: hello\r\n\r\nA "]
        assert len(peer.lines) == 2

    async def test_it_is_as_well_when_the_stop_comes_later(self) -> None:
        """Bulk that is stopped after the refusal goes on all the same, for the same reason."""
        with self.one() as peer:
            delivery = self.make(("*", peer.via))
            bulk = Underway(delivery, request(peer.via, "bulk@x", level=5, content=Pieces(cut(LARGE), slow=True)))
            await self.until(lambda: peer.lines and len(peer.lines[0].received) > 10_000)
            urgent = Underway(delivery, request(peer.via, "urgent@x", level=1))
            await self.until(lambda: len(peer.lines) == 2)
            await self.turn(0.1)
            bulk.transfer.stop()
            assert said(await urgent.ended) == [("urgent@x", 250, "delivered")]
            assert said(await bulk.ended) == [("bulk@x", 250, "delivered")]
            await delivery.stop()

    async def test_what_is_refused_a_connection_waits_for_its_turn(self) -> None:
        """While one connection works, the refusal of another is no verdict: five messages go one by one, the most urgent first."""
        for refusal in ("421 4.7.0 one is enough", "554 5.7.1 too many connections"):
            await self.take_turns(refusal)
            assert self.taken[1:] == [b"Subject: of level %d\r" % level for level in (2, 3, 4, 5)]

    async def take_turns(self, refusal: str) -> None:
        """Five messages to a peer that refuses so, while the first is held."""
        self.taken.clear()
        with self.one(refusal) as peer:
            delivery = self.make(("*", peer.via))
            held = Held(cut(LARGE[:500_000]))
            first = Underway(delivery, request(peer.via, content=held))
            await self.until(lambda: peer.lines and len(peer.lines[0].received) > 10_000)
            rest = [
                Underway(delivery, request(peer.via, level=level, content=WholeContent(b"Subject: of level %d\r\n\r\n" % level)))
                for level in (3, 5, 2, 4)
            ]
            await self.until(lambda: len(peer.lines) == 5)  # each of them tries for a connection
            await self.turn(1.0)  # and hears that there is none
            held.release()
            assert said(await first.ended)[0][1] == 250
            assert [said(await each.ended)[0][1] for each in rest] == [250] * 4
            await delivery.stop()

    async def test_what_is_refused_waits_for_a_session_that_is_being_opened(self) -> None:
        """The first messages to a peer: a refusal at once is no verdict while the session that it takes is not ready yet."""
        refused = threading.Semaphore(0)

        def takes_late(line: Line) -> None:
            for _ in range(4):
                assert refused.acquire(timeout=20)
            line.greet()
            for _ in range(5):
                line.message("250 ok")
            line.gone()

        def refuses(line: Line) -> None:
            line.send("421 4.7.0 one is enough\r\n")
            refused.release()

        with Peer(takes_late, refuses) as peer:
            delivery = self.make(("*", peer.via))
            sent = [Underway(delivery, request(peer.via)) for _ in range(5)]
            assert [said(await each.ended)[0][1] for each in sent] == [250] * 5
            await delivery.stop()

    async def test_a_kept_connection_is_not_kept_for_ever(self) -> None:
        """A27: bulk that gets no connection beside the one that is kept for urgent mail has that one, should nobody come for it."""
        with self.one() as peer:
            delivery = self.make(("*", peer.via))
            expected = request(peer.via, level=1).envelope
            assert said(await self.send(delivery, request(peer.via)))[0][1] == 250
            for _ in range(2):  # it is refused another one at first; then it is known that there is none
                delivery.prepare(expected, peer.via)
                bulk = [Underway(delivery, request(peer.via, level=level)) for level in (4, 5)]
                assert [said(await each.ended)[0][1] for each in bulk] == [250, 250]
            await delivery.stop()
        assert len(self.taken) == 5
        assert sum(bool(line.received) for line in peer.lines) == 1  # all of it in one session

    async def test_a_waiting_transfer_ends_with_the_delivery(self) -> None:
        """Who waits for a session when the daemon stops is deferred, not forgotten."""
        over = threading.Event()

        def reads_no_more(line: Line) -> None:
            line.greet()
            line.envelope()
            over.wait(20)

        with Peer(reads_no_more, lambda line: line.send("421 4.7.0 one is enough\r\n")) as peer:
            delivery = self.make(("*", peer.via))
            bulk = Underway(delivery, request(peer.via, level=5, content=Pieces(cut(LARGE), slow=True)))
            await self.until(lambda: peer.lines and b"DATA" in peer.lines[0].received)
            waiting = Underway(delivery, request(peer.via, level=1))
            await self.until(lambda: len(peer.lines) == 2)
            await self.turn(0.1)
            stopped = delivery.stop()
            bulk.transfer.abandon()
            assert said(await bulk.ended) == [("bob@b.example", 451, "abandoned")]
            assert said(await waiting.ended) == [("bob@b.example", 451, "abandoned")]
            over.set()
            await stopped

    async def test_nobody_waits_where_nothing_works(self) -> None:
        """Without a session that works, a refused connection is the verdict, later or for good."""
        for refusal, reason in (("421 4.7.0 later", "peer_deferred"), ("554 5.7.1 never", "peer_refused")):

            def refuses(line: Line, refusal: str = refusal) -> None:
                line.send(refusal + "\r\n")

            with Peer(refuses) as peer:
                delivery = self.make(("*", peer.via))
                assert said(await self.send(delivery, request(peer.via)))[0][1:] == (int(refusal[:3]), reason)
                await delivery.stop()

    async def test_a_host_that_had_a_session_refuses_no_message(self) -> None:
        """554 to the session after the last one, which may not have ended for the peer, is temporary: the mail before it was taken."""
        with self.one("554 5.7.1 too many connections") as peer:
            delivery = self.make(("*", peer.via), messages=1)
            found = [await self.send(delivery, request(peer.via)) for _ in range(2)]
            await delivery.stop()
        assert [(each.reply.code, each.reason) for (each,) in found] == [(250, "delivered"), (451, "session_refused")]
        assert "refuses a session: 554 5.7.1 too many connections" in found[1][0].reply.text

    async def test_another_server_of_the_same_machine_speaks_for_itself(self) -> None:
        """A session with the server at one port says nothing of that at another: its 554 is a verdict."""
        with self.one() as taking, Peer(lambda line: line.send("554 5.7.1 never\r\n")) as refusing:
            delivery = self.make(("*", taking.via))
            found = [said(await self.send(delivery, request(peer.via)))[0][1:] for peer in (taking, refusing)]
            await delivery.stop()
        assert found == [(250, "delivered"), (554, "peer_refused")]
