"""Octets in, replies out: how a session reads, writes and waits. What the octets mean is the session's business.

Invariant: one step after the other, replies in the order of the commands, under any pipelining and any slowness behind a step. While a
step waits (for a login, a commit, a check), or the client does not read its replies, nothing is worked on; the read that comes then is
the last one, and it is kept. What a step goes on with after it waited runs only while the client is there. After STEPS steps the others
have their turn, however many commands one client sends at once. Replies of one turn are written together. Failure: what a step raises is
handed to `fault` and the next step follows.

This replaces the reading and writing of Twisted's ESMTP, which runs commands before those ahead of them are answered.
"""

from __future__ import annotations

from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IPushProducer
from twisted.mail import smtp
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpplus.submission.framing import Framer
from smtpplus.submission.layer import start_tls
from smtpplus.wire import send

STEPS = 50  # of one session in one turn of the reactor; their replies are written together. A read may hold 10,000 commands


@implementer(IPushProducer)
class Channel(smtp.ESMTP):
    """One connection. It is its transport's producer of replies, and is told so when they are not taken."""

    noisy = False
    transport: Any  # tcp.Server, with TLS switched on in place

    def __init__(self) -> None:
        # Twisted's own __init__ prepares what is replaced here, and costs memory in every idle session
        self._framer = Framer()
        self._replies: list[bytes] = []
        self._waits = 0  # steps that wait for a Deferred; they may nest
        self._full = False  # the transport has as many replies as it wants
        self._turned = False  # it is the turn of others
        self._paused = False  # reading is stopped
        self._running = False
        self.closing = False
        self.lost = False
        self.received = 0  # octets, in clear
        self.seen = 0.0  # when the client last did something, or a step of ours ended: seconds of `tick`

    # what a session defines

    def step(self) -> bool:
        """Work on what waits in the framer; False if that is not enough for anything."""
        raise NotImplementedError

    def fault(self, failure: Failure) -> None:
        """A step, or what it waited for, failed. Must not raise."""
        raise NotImplementedError

    def tick(self) -> float:
        """The time, not finer than the sweep for idle sessions."""
        raise NotImplementedError

    def next_turn(self, call: Callable[[], None]) -> None:
        """Call in the next turn of the reactor."""
        raise NotImplementedError

    # what a session uses

    @property
    def waiting(self) -> bool:
        """Whether a step waits for something of ours."""
        return self._waits > 0

    def reply(self, octets: bytes) -> None:
        """Answer, behind the answers that were given before."""
        self._replies.append(octets)

    def wait(self, done: Deferred[Any], then: Callable[..., object] | None = None, *arguments: object) -> None:
        """Go on with `then(result, *arguments)` when `done` has fired, unless the client is gone by then; a failure is a fault.

        What must follow also without the client is in the callbacks of `done` already.
        """
        self._waits += 1
        if then is not None:
            done.addCallback(self._follow, then, arguments)
        done.addErrback(self.fault)
        done.addBoth(self._waited)

    def secure(self, tls: IOpenSSLServerConnectionCreator) -> None:
        """Begin the TLS handshake. What came in before it in clear is thrown away (RFC 3207 §4.2)."""
        self._flush()
        self._framer.clear()
        start_tls(self.transport, tls)
        self.startedTLS = True

    def close(self) -> None:
        """Write what waits, then close. Nothing that still comes in is looked at."""
        if not self.closing:
            self.closing = True
            self.seen = self.tick()
            self._flush()
            self.transport.unregisterProducer()  # TLS waits for its producer before it closes
            self.transport.loseConnection()

    # what Twisted calls

    def connectionMade(self) -> None:
        """The transport is there."""
        self.seen = self.tick()
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client."""
        if self.closing:
            return
        self.seen = self.tick()
        self.received += len(data)
        self._framer.feed(data)
        if self._waits or self._full or self._turned:
            self._paused = True
            self.transport.pauseProducing()
        else:
            self.advance()

    def pauseProducing(self) -> None:
        """The client does not take its replies: work on no more commands. Reading stops when something is read.

        Not at once: a TLS handshake, before which replies wait too, must go on reading.
        """
        self._full = True

    def resumeProducing(self) -> None:
        """The client took what was written."""
        self._full = False
        self.advance()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost says so too."""

    # the order of things

    def advance(self) -> None:
        """Take steps until one waits, there is nothing left to work on, or it is the turn of others; then write."""
        if self._running or self._turned or self.lost:
            return
        self._running = True
        left = STEPS
        try:
            while left and not (self._waits or self._full or self.closing):
                left -= 1
                try:
                    if not self.step():
                        break
                except Exception:
                    self.fault(Failure())
            else:
                self._turned = not left
        finally:
            self._running = False
        if self._replies:
            self._flush()
        if self._turned:
            self.next_turn(self._go_on)
        elif self._paused and not (self._waits or self._full or self.closing):
            self._paused = False
            self.transport.resumeProducing()

    def _go_on(self) -> None:
        self._turned = False
        self.advance()

    def _follow(self, result: object, then: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if not self.lost:
            then(result, *arguments)

    def _waited(self, _: object) -> None:
        self._waits -= 1
        self.seen = self.tick()
        self.advance()

    def _flush(self) -> None:
        """Write what was replied."""
        replies = self._replies
        if replies and not self.lost:
            send(self.transport, replies[0] if len(replies) == 1 else b"".join(replies))
        replies.clear()
