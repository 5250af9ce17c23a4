"""What the path of urgent mail asks of the reactor and of the threads beside it: the right of way, for some milliseconds at a time.

The daemon's own reactor gives it (smtpplus.reactor); on any other there is none. Invariant: time apart, nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Connection

Lasting = Callable[[], bool]
Favour = Callable[[Connection, Lasting], None]


class RightOfWay(Protocol):
    """All but `hush` and `wait` are for the reactor's thread."""

    def promptly(self, call: Callable[..., object], *arguments: object) -> None:
        """Call soon, before any other socket is looked at."""

    def favour(self, connection: Connection, lasting: Lasting) -> None:
        """Serve `connection` alone while `lasting` says so, a few milliseconds at most."""

    def attend(self) -> None:
        """Make the prompt calls and serve whom they favour, now. Not to be called from a connection that is being served."""

    def hush(self) -> None:
        """Ask those who `wait` to do so. For a thread that then wakes the reactor, which lets them go on."""

    def wait(self) -> None:
        """Return when urgent mail does not need the interpreter and the processors, after 20 ms at the latest. For the other threads, a few
        times in each millisecond of their work."""


class NoRightOfWay:
    """Urgent mail has its turn with all other. Implements RightOfWay."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def promptly(self, call: Callable[..., object], *arguments: object) -> None:
        self._clock.callLater(0, call, *arguments)

    def favour(self, connection: Connection, lasting: Lasting) -> None:
        """It is served with the others."""

    def attend(self) -> None:
        """All have their turn."""

    def hush(self) -> None:
        """Nobody waits."""

    def wait(self) -> None:
        """There is nothing to wait for."""
