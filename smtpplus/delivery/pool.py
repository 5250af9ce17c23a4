"""The connections to one hop: idle ones are used again, the last used first; without one, a transfer waits while one is opened.

A connection belongs to nobody until its transaction begins: when one is free, it goes to the most urgent transfer that waits and is not
stopped, whoever it was opened for. So an urgent message takes over what was opened for bulk mail, and a stopped transfer that has
not begun holds no connection. Each waiting transfer has an opening of its own, so none waits for another's transaction to end.

Unless the peer refuses more connections than there are: while there is one, or one is still being opened, that says how many it takes,
whether it says later or never, and is no verdict on a message. Then no more are opened until one has ended, and who waits takes over the
next that is free. Where those that work are stopped for the very transfer that waits, the one with the least left is pressed on to the
end of its message.
"""

from __future__ import annotations

from typing import Callable

from twisted.internet.interfaces import IDelayedCall

from smtpplus.delivery.client import Connection
from smtpplus.delivery.dial import Dialer
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.questions import LEAST
from smtpplus.delivery.routing import Hop
from smtpplus.delivery.transfer import Transfer
from smtpplus.mail import reasons

KEPT = 0.2  # seconds; somewhat longer than a commit takes, ours


def _level(transfer: Transfer) -> int:
    return transfer.request.envelope.level


class Pool:
    """Implements client.Keeper and transfer.Holder. `empty` is called when there is neither connection nor transfer any more."""

    __slots__ = ("_dialer", "_empty", "_full", "_idle", "_keeping", "_kept_until", "_openings", "_waiting", "_working", "hop")

    def __init__(self, hop: Hop, dialer: Dialer, empty: Callable[[Pool], None]) -> None:
        self.hop = hop
        self._dialer = dialer
        self._empty = empty
        self._idle: list[Connection] = []
        self._waiting: list[Transfer] = []  # in order of arrival, stopped ones among them
        self._kept_until = 0.0  # of the reactor's seconds: until when the last idle connection is for urgent mail alone
        self._keeping: IDelayedCall | None = None  # until then somebody else waits for that connection
        self._openings = 0
        self._working: set[Connection] = set()  # connections with a transaction
        self._full = False  # the peer takes no more connections than those

    def take(self, transfer: Transfer) -> None:
        """Carry out `transfer` on an idle connection, or on one to be opened; one that is stopped waits for its `go`."""
        if transfer.request.urgent:
            self._kept_until = 0.0  # it has come
        if self._idle and not transfer.stopped and not self._kept_for():
            connection = self._take_idle()
            self._working.add(connection)
            connection.begin(transfer)
        else:
            transfer.holder = self
            self._waiting.append(transfer)
            self._open()
            self._await_end_of_keeping()

    def prepare(self, level: int) -> None:
        """Have a connection idle, or about to be, for one who is to come, and keep it for KEPT seconds."""
        self._kept_until = self._dialer.reactor.seconds() + KEPT
        if not (self._idle or self._openings or self._full or self._dialer.stopping):
            self._openings += 1
            self._dialer.open(self.hop, self, self._settled, level)

    def _kept_for(self) -> float:
        """The seconds for which the last idle connection is still kept; 0: it is not, or there is another."""
        return max(0.0, self._kept_until - self._dialer.reactor.seconds()) if len(self._idle) == 1 else 0.0

    def _await_end_of_keeping(self) -> None:
        """Who is expected may not come, and who waits instead may get no connection of its own."""
        if self._idle and self._keeping is None and self._ready():
            self._keeping = self._dialer.reactor.callLater(self._kept_for(), self._keeping_ended)

    def _keeping_ended(self) -> None:
        self._keeping = None
        while self._idle and self._ready() and not self._kept_for():
            self._serve(self._take_idle())
        self._await_end_of_keeping()

    def _take_idle(self) -> Connection:
        """An idle connection, which is nobody's from now on."""
        connection = self._idle.pop()
        del self._dialer.idle[connection]
        return connection

    def _open(self) -> None:
        """Open as many connections as transfers wait for."""
        if self._full:
            self._press()
            return
        ready = self._ready()
        level = min(map(_level, ready), default=LEAST)
        if self._openings and level < LEAST:
            self._dialer.hurry(self, level)
        while self._openings < len(self._ready()):
            self._openings += 1
            self._dialer.open(self.hop, self, self._settled, level)

    def _settled(self, result: Connection | Fault, peer: str) -> None:
        """An opening is over."""
        self._openings -= 1
        if isinstance(result, Connection):
            self._serve(result)
        elif (self._working or self._idle or self._openings) and not self._dialer.stopping:
            self._full = True
            self._press()
        else:
            self._full = False
            self._give_up(result, peer)

    def _give_up(self, fault: Fault, peer: str) -> None:
        """As many transfers hear of it as have no opening any more, the least urgent first. A stopped one opens anew when it goes on."""
        while len(ready := self._ready()) > self._openings:
            last = max(reversed(ready), key=_level)
            self._waiting.remove(last)
            last.settle(peer, (), fault)
        self._check_empty()

    def _press(self) -> None:
        """Let a connection that is stopped for the sake of one who waits come to the end of its message."""
        ready = self._ready()
        if not ready:
            return
        most_urgent = min(map(_level, ready))
        begun = [each.transaction for each in self._working]
        held = [each for each in begun if each.transfer is not None and each.transfer.held and _level(each.transfer) > most_urgent]
        if held and len(held) == len(begun):
            min(held, key=lambda each: each.left).press()

    def _ready(self) -> list[Transfer]:
        return [transfer for transfer in self._waiting if not transfer.stopped]

    def _serve(self, connection: Connection) -> None:
        """Give a ready connection, which nobody has, to who waits; or let it be idle."""
        ready = self._ready()
        if ready:
            transfer = min(ready, key=_level)  # the first of the most urgent
            self._waiting.remove(transfer)
            self._working.add(connection)
            connection.begin(transfer)
        else:
            self._rest(connection)

    def _rest(self, connection: Connection) -> None:
        self._idle.append(connection)
        self._dialer.idle[connection] = None
        if self._dialer.stopping:
            connection.quit()

    def _check_empty(self) -> None:
        if self._waiting or self._idle or self._openings or self._working:
            return
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
        self._empty(self)

    # --- client.Keeper ----------------------------------------------------------------------------------------------------------

    def free(self, connection: Connection) -> None:
        self._working.discard(connection)
        if self._waiting:
            self._serve(connection)
        else:
            self._rest(connection)

    def gone(self, connection: Connection) -> None:
        if connection in self._dialer.idle:
            del self._dialer.idle[connection]
            self._idle.remove(connection)
        else:
            self._working.discard(connection)
        self._dialer.session_ended(connection.peer)
        if connection.dialogue.unwilling:
            self._dialer.put_behind(connection.peer)
        if self._full:
            self._full = False
            if self._dialer.stopping:
                self._give_up(Fault(reasons.ABANDONED), "")
            else:
                self._open()
        self._check_empty()

    def held(self, connection: Connection) -> None:
        if self._full:
            self._press()

    def again(self, transfer: Transfer) -> None:
        self._take_back(transfer)
        self._open()

    def unfinished(self, connection: Connection, transfer: Transfer) -> None:
        self._take_back(transfer)
        self.free(connection)
        self._open()

    def _take_back(self, transfer: Transfer) -> None:
        transfer.holder = self
        transfer.pressed = False
        self._waiting.insert(0, transfer)  # before others of its level: it was begun

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
