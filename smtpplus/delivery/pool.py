"""The connections to one hop: idle ones are used again, the last used first; without one, a transfer waits while one is opened.

A connection belongs to nobody until its transaction begins: when one is free, it goes to the most urgent transfer that waits and is not
stopped, whoever it was opened for. So an urgent message takes over what was opened for bulk mail, and a stopped transfer that has
not begun holds no connection. Each waiting transfer has an opening of its own, so none waits for another's transaction to end.
"""

from __future__ import annotations

from typing import Callable

from smtpplus.delivery.client import Connection
from smtpplus.delivery.dial import Dialer
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.routing import Hop
from smtpplus.delivery.transfer import Transfer
from smtpplus.mail import reasons


def _level(transfer: Transfer) -> int:
    return transfer.request.envelope.level


class Pool:
    """Implements client.Keeper and transfer.Holder. `empty` is called when there is neither connection nor transfer any more."""

    __slots__ = ("_busy", "_dialer", "_empty", "_idle", "_openings", "_waiting", "hop")

    def __init__(self, hop: Hop, dialer: Dialer, empty: Callable[[Pool], None]) -> None:
        self.hop = hop
        self._dialer = dialer
        self._empty = empty
        self._idle: list[Connection] = []
        self._waiting: list[Transfer] = []  # in order of arrival, stopped ones among them
        self._openings = 0
        self._busy = 0  # connections with a transaction

    def take(self, transfer: Transfer) -> None:
        """Carry out `transfer` on an idle connection, or on one to be opened; one that is stopped waits for its `go`."""
        if self._idle and not transfer.stopped:
            connection = self._idle.pop()
            del self._dialer.idle[connection]
            self._busy += 1
            connection.begin(transfer)
        else:
            transfer.holder = self
            self._waiting.append(transfer)
            self._open()

    def _open(self) -> None:
        """Open as many connections as transfers wait for."""
        while self._openings < len(self._ready()):
            self._openings += 1
            self._dialer.open(self.hop, self, self._settled)

    def _settled(self, result: Connection | Fault, peer: str) -> None:
        """An opening is over."""
        self._openings -= 1
        if isinstance(result, Connection):
            self._serve(result)
            return
        # As many transfers hear of it as have no opening any more, the least urgent first. A stopped one opens anew when it goes on.
        while len(ready := self._ready()) > self._openings:
            last = max(reversed(ready), key=_level)
            self._waiting.remove(last)
            last.settle(peer, (), result)
        self._check_empty()

    def _ready(self) -> list[Transfer]:
        return [transfer for transfer in self._waiting if not transfer.stopped]

    def _serve(self, connection: Connection) -> None:
        """Give a ready connection, which nobody has, to who waits; or let it be idle."""
        ready = self._ready()
        if ready:
            transfer = min(ready, key=_level)  # the first of the most urgent
            self._waiting.remove(transfer)
            self._busy += 1
            connection.begin(transfer)
        else:
            self._rest(connection)

    def _rest(self, connection: Connection) -> None:
        self._idle.append(connection)
        self._dialer.idle[connection] = None
        if self._dialer.stopping:
            connection.quit()

    def _check_empty(self) -> None:
        if not (self._waiting or self._idle or self._openings or self._busy):
            self._empty(self)

    # --- client.Keeper ----------------------------------------------------------------------------------------------------------

    def free(self, connection: Connection) -> None:
        self._busy -= 1
        if self._waiting:
            self._serve(connection)
        else:
            self._rest(connection)

    def gone(self, connection: Connection) -> None:
        if connection in self._dialer.idle:
            del self._dialer.idle[connection]
            self._idle.remove(connection)
        else:
            self._busy -= 1
        self._check_empty()

    def again(self, transfer: Transfer) -> None:
        transfer.holder = self
        self._waiting.append(transfer)
        self._open()

    # --- transfer.Holder --------------------------------------------------------------------------------------------------------

    def may_stop(self) -> bool:
        return True

    def halted(self, transfer: Transfer) -> None:
        """A stopped transfer waits on, but is passed over when a connection is ready."""

    def resumed(self, transfer: Transfer) -> None:
        if self._idle:
            self._waiting.remove(transfer)
            self.take(transfer)
        else:
            self._open()

    def abandoned(self, transfer: Transfer) -> None:
        self._waiting.remove(transfer)
        transfer.settle("", (), Fault(reasons.ABANDONED))
        self._check_empty()
