"""The right of way (A27): who is served first and for how long, with real sockets on a reactor of the tests' own, turned by hand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from smtpplus.reactor import CREDIT, LONGEST, Reactor
from smtpplus.right_of_way import NoRightOfWay


class Served(Protocol):
    """Notes in its factory who was served, and with what."""

    def dataReceived(self, data: bytes) -> None:
        factory: Any = self.factory
        factory.served.append(data)


class ReactorTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.addCleanup(self.close)
        self.served: list[bytes] = []
        self.made: list[Any] = []
        factory: Any = Factory()
        factory.protocol, factory.served = self.make, self.served
        self.port: Any = self.reactor.listenTCP(0, factory, interface="127.0.0.1")

    def close(self) -> None:
        """Everything that was opened."""
        self.port.stopListening()
        for each in self.made:
            each.transport.abortConnection()
        self.turn_until(lambda: not self.reactor.removeAll())
        for waker in list(self.reactor._internalReaders):
            waker.connectionLost(Failure(ConnectionDone()))
        self.reactor._poller.close()

    def make(self) -> Served:
        """A protocol for a new connection."""
        served = Served()
        self.made.append(served)
        return served

    def connect(self) -> tuple[Any, socket.socket]:
        """The transport of a connection, and its other end."""
        other = socket.create_connection(("127.0.0.1", self.port.getHost().port), 30)
        self.addCleanup(other.close)
        count = len(self.made)
        while len(self.made) == count or self.made[-1].transport is None:
            self.reactor.iterate(0.01)
        return self.made[-1].transport, other

    def turn_until(self, done: Callable[[], bool]) -> int:
        """Turn until it is so; how many turns it took."""
        for count in range(1, 1000):
            self.reactor.iterate(0.01)
            if done():
                return count
        raise AssertionError("it is never so")

    def test_the_favoured_is_served_alone(self) -> None:
        """Whatever else is ready waits until the favoured has had all that it is favoured for, in the very same turn."""
        _, bulk = self.connect()
        transport, urgent = self.connect()
        bulk.sendall(b"bulk")
        urgent.sendall(b"urgent")
        self.reactor.favour(transport, lambda: not self.served)
        self.reactor.doPoll(0)
        self.assertEqual(self.served, [b"urgent"])
        self.turn_until(lambda: len(self.served) == 2)
        self.assertEqual(self.served, [b"urgent", b"bulk"])

    def test_the_favoured_may_write(self) -> None:
        """A favoured connection whose socket was full is served when it takes more."""
        transport, urgent = self.connect()
        octets = b"x" * 10_000_000
        transport.write(octets)
        received = bytearray()

        def read() -> None:
            while len(received) < len(octets):
                received.extend(urgent.recv(1_000_000))

        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive():
            self.reactor.favour(transport, reader.is_alive)
            self.reactor.iterate(0.01)
        reader.join()
        self.assertEqual(bytes(received), octets)

    def test_a_silent_one_holds_nobody_up(self) -> None:
        """Who is favoured and has nothing to say is favoured no more: the others are served in the same turn."""
        _, bulk = self.connect()
        transport, _ = self.connect()
        bulk.sendall(b"bulk")
        self.reactor.favour(transport, lambda: True)
        self.turn_until(lambda: bool(self.served))
        self.assertEqual(self.served, [b"bulk"])
        self.assertEqual(self.reactor._favoured, [])

    def test_one_that_talks_without_end_is_favoured_for_a_while(self) -> None:
        """After LONGEST the others have their turn, whatever the favoured still has to say."""
        _, bulk = self.connect()
        transport, urgent = self.connect()
        ticks = iter(range(1_000_000))
        self.reactor.seconds = lambda: next(ticks) * LONGEST / 4  # time is the tests'
        bulk.sendall(b"bulk")
        self.reactor.favour(transport, lambda: urgent.send(b"urgent") > 0)
        self.turn_until(lambda: b"bulk" in self.served)
        self.assertIn(b"urgent", self.served)

    def test_all_together_have_their_share(self) -> None:
        """When the credit is spent nobody is favoured; it comes back with time."""
        _, bulk = self.connect()
        transport, urgent = self.connect()
        clock = Clock()
        self.reactor.seconds = clock.seconds  # time is the tests'

        def favoured_first() -> bool:
            """Whether the favoured one is served before another that is ready."""
            self.served.clear()
            bulk.sendall(b"bulk")
            urgent.sendall(b"urgent")
            self.reactor.favour(transport, lambda: not self.served)
            self.reactor.doPoll(0)
            first = self.served == [b"urgent"]
            self.turn_until(lambda: len(self.served) == 2)
            return first

        self.assertTrue(favoured_first())

        def spend() -> bool:
            """It lasts, and all of the credit with it."""
            clock.advance(CREDIT)
            return True

        self.reactor.favour(transport, spend)
        self.reactor.doPoll(0)
        self.assertFalse(favoured_first())
        clock.advance(10.0)
        self.assertTrue(favoured_first())

    def test_prompt_calls_come_before_sockets(self) -> None:
        """In their order, and one that fails keeps nobody from its turn."""
        _, bulk = self.connect()
        bulk.sendall(b"bulk")
        self.reactor.promptly(self.served.append, b"first")
        self.reactor.promptly(lambda: 1 // 0)
        self.reactor.promptly(self.served.append, b"second")
        self.turn_until(lambda: len(self.served) == 3)
        self.assertEqual(self.served, [b"first", b"second", b"bulk"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_one_attends_at_once(self) -> None:
        """`attend` makes the prompt calls, and serves whom they favour, before it returns."""
        transport, urgent = self.connect()
        urgent.sendall(b"urgent")
        self.reactor.promptly(self.reactor.favour, transport, lambda: not self.served)
        self.reactor.attend()
        self.assertEqual(self.served, [b"urgent"])

    def test_a_closed_connection_is_favoured_in_vain(self) -> None:
        """Favouring one that is gone, or that goes in the middle, does no harm."""
        _, bulk = self.connect()
        transport, urgent = self.connect()
        urgent.close()
        self.reactor.favour(transport, lambda: True)
        self.turn_until(lambda: not transport.connected)
        self.reactor.favour(transport, lambda: True)
        bulk.sendall(b"bulk")
        self.turn_until(lambda: bool(self.served))
        self.assertEqual(self.served, [b"bulk"])

    def test_who_fails_is_favoured_no_more(self) -> None:
        """A fault in what says how long it lasts is the end of it: others have their turn, and threads go on."""
        _, bulk = self.connect()
        transport, _ = self.connect()
        bulk.sendall(b"bulk")
        self.reactor.favour(transport, lambda: 1 // 0 > 0)
        with self.assertRaises(ZeroDivisionError):
            self.reactor.doPoll(0)
        self.assertTrue(self.reactor._calm.is_set())
        self.turn_until(lambda: bool(self.served))
        self.assertEqual(self.served, [b"bulk"])

    def test_threads_wait_until_it_is_over(self) -> None:
        """Who waits goes on when a turn has found nobody favoured; meanwhile it does not."""
        self.reactor.wait()
        self.reactor.hush()
        self.assertFalse(self.reactor._calm.is_set())
        waiting = threading.Thread(target=self.reactor._calm.wait)
        waiting.start()
        self.reactor.doPoll(0)
        waiting.join(30)
        self.assertFalse(waiting.is_alive())

    def test_a_fault_in_a_connection_is_its_own(self) -> None:
        """What a protocol raises is logged and ends its connection; the reactor goes on."""
        transport, other = self.connect()
        transport.protocol.dataReceived = lambda data: 1 // 0
        _, bulk = self.connect()
        other.sendall(b"x")
        self.turn_until(lambda: not transport.connected)
        bulk.sendall(b"bulk")
        self.turn_until(lambda: bool(self.served))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class NoRightOfWayTests(TestCase):
    def test_all_have_their_turn(self) -> None:
        """On another reactor a prompt call has its turn in the next round, and nobody waits."""
        clock = Clock()
        called: list[int] = []
        road = NoRightOfWay(clock)
        road.promptly(called.append, 1)
        road.hush()
        road.wait()
        road.attend()
        self.assertEqual(called, [])
        clock.advance(0)
        self.assertEqual(called, [1])
