"""The daemon's reactor: Twisted's on epoll, in which urgent mail has the right of way.

While an urgent message is handed to its next hop, the reactor serves that connection alone, and the threads beside it leave it the
interpreter. So it does for as long as the peer answers at once: PATIENCE for each answer, LONGEST for each message, and over a
long time SHARE of all time, so that a slow next hop costs other mail next to nothing, whoever sends how much urgent mail to it. The
threads wait from the commit of urgent mail on, until the reactor has come to it, each time LIMIT at most.

What goes wrong in a connection is logged and ends that connection, as with any reactor.
"""

from __future__ import annotations

import math
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable
from errno import EINTR
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.tcp import Connection
from twisted.logger import Logger

from smtpplus.right_of_way import Lasting

PATIENCE = 0.003  # seconds for the next answer of one peer
LONGEST = 0.006  # seconds for one message
SHARE = 0.05  # of all time, at most: what urgent mail may cost bulk beyond its own share (A27)
CREDIT = 0.1  # seconds of that which may be used in one go
LIMIT = 0.02  # seconds for which a thread waits at most


class Reactor(EPollReactor):
    """Implements right_of_way.RightOfWay."""

    _log = Logger()

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types for its reactors
        self._calm = threading.Event()
        self._calm.set()
        self._prompt: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._favoured: list[tuple[Connection, Lasting, float]] = []  # with the time until which each is
        self._credit = CREDIT
        self._counted = math.inf  # when the credit was last brought up to date

    def promptly(self, call: Callable[..., object], *arguments: object) -> None:
        """See RightOfWay."""
        self._prompt.append((call, arguments))

    def favour(self, connection: Connection, lasting: Lasting) -> None:
        """See RightOfWay."""
        self._favoured.append((connection, lasting, self.seconds() + LONGEST))
        self._calm.clear()

    def hush(self) -> None:
        """See RightOfWay."""
        self._calm.clear()

    def wait(self) -> None:
        """See RightOfWay."""
        self._calm.wait(LIMIT)

    def attend(self) -> None:
        """See RightOfWay."""
        self._attend()

    def doPoll(self, timeout: float | None) -> None:
        """One turn: what is prompt and who is favoured, or if there is nothing of that everybody, for whom it waits `timeout` seconds."""
        if self._attend():
            return  # there may be new timed calls
        if not self._calm.is_set():
            self._calm.set()
        try:
            ready = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except OSError as fault:
            if fault.errno != EINTR:
                raise
            return
        self._serve(ready)

    doIteration = doPoll

    def _attend(self) -> bool:
        """Whether there was anything to attend to."""
        busy = bool(self._prompt)
        while self._prompt:
            call, arguments = self._prompt.popleft()
            try:
                call(*arguments)
            except Exception:
                self._log.failure("a prompt call failed")
        return self._serve_favoured() or busy if self._favoured else busy

    def _serve(self, ready: Iterable[tuple[int, int]]) -> None:
        """Read or write where it is possible: as Twisted does, but without a logging context for each."""
        selectables, serve = self._selectables, self._doReadOrWrite
        for fd, event in ready:
            selectable = selectables.get(fd)
            if selectable is not None:
                try:
                    serve(selectable, fd, event)  # type: ignore[no-untyped-call]  # see above
                except Exception:
                    self._log.failure("a connection could not be served")

    def _serve_favoured(self) -> bool:
        """Serve those who are favoured, and nobody else, until none is. Whether any of them had something to be served."""
        begun = now = self.seconds()
        self._credit = min(CREDIT, self._credit + SHARE * max(0.0, now - self._counted))
        end = now + self._credit
        served = False
        try:
            while now < end and (watched := self._watched(now)):
                ready = watched.poll(min(PATIENCE, end - now) * 1000)
                served = served or bool(ready)
                self._serve(ready)
                now = self.seconds()
                if not ready:
                    break
        finally:
            self._credit -= now - begun
            self._counted = now
            self._favoured.clear()
            self._calm.set()
        return served

    def _watched(self, now: float) -> Any:
        """What waits for those who are still favoured; None if there are none."""
        self._favoured = [each for each in self._favoured if each[2] > now and each[1]()]
        watched = None
        for connection, _, _ in self._favoured:
            fd = connection.fileno()
            if fd in self._selectables:
                watched = watched or select.poll()
                watched.register(fd, (select.POLLIN if fd in self._reads else 0) | (select.POLLOUT if fd in self._writes else 0))
        return watched
