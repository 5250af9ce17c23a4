"""What is being read back into memory: one query at a time, for all windows together.

Whoever wants a message says for which window (destination and level), or that it is for whatever is due of it (ANY). A window that is
being filled says so until what was asked for has come, so that nothing overtakes it. A read that fails is tried again; what is wished
for stays wished for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.queue.spool import Spool, Stored

AT_ONCE = 200  # messages read by one query
FEW = 20  # messages read at once of users who were over a rate
AGAIN = 5.0  # seconds until a read that failed is tried again
ANY = ""  # destination of a read that is for whatever is due

Place = tuple[str, int]  # a window: destination and level
Wish = tuple[int, str, int]  # message id, and the window it is wanted for: destination and level, or ANY and 0


class Reading:
    """The wishes. `fill` wishes for up to so many of a window, `came` is given what was read, `read` is called after each query."""

    _log = Logger()

    def __init__(
        self,
        *,
        spool: Spool,
        clock: IReactorTime,
        fill: Callable[[str, int, int], None],
        came: Callable[[list[tuple[Stored, str]]], None],
        emptied: Callable[[str, int], None],
        read: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._fill = fill
        self._came = came
        self._emptied = emptied  # called for each window for which all has come
        self._read = read
        self._windows: dict[Place, set[int]] = {}  # windows being filled, and with which messages
        self._wishes: list[Wish] = []
        self._opened: OrderedDict[Place, None] = OrderedDict()  # windows where users wait who are not over a rate any more
        self._busy = False
        self.closed = False

    def wish(self, numbers: Iterable[int], destination: str = ANY, level: int = 0) -> None:
        """Read these messages."""
        numbers = list(numbers)
        self._wishes += [(number, destination, level) for number in numbers]
        if level:
            self._windows.setdefault((destination, level), set()).update(numbers)
        self.go_on()

    def open(self, places: Iterable[Place]) -> None:
        """Fill these windows little by little: those who wait there may soon be over a rate again."""
        self._opened.update(dict.fromkeys(places))
        self.go_on()

    def fills(self, place: Place) -> bool:
        """Whether that window is being filled."""
        return place in self._windows

    def filled_slowly(self, place: Place) -> bool:
        """Whether that window is filled little by little."""
        return place in self._opened

    def of(self, place: Place) -> set[int]:
        """The messages that are being read for that window."""
        return self._windows.get(place, set())

    @property
    def much(self) -> bool:
        """Whether the next query is full already."""
        return len(self._wishes) >= AT_ONCE

    def go_on(self) -> None:
        """Read what is wished for; and a little of users that were over a rate, who may be so again soon."""
        if self._busy or self.closed:
            return
        self._busy = True  # also for what is wished for here
        enough = min(len(self._wishes) + FEW, AT_ONCE)
        while self._opened and (count := len(self._wishes)) < enough:
            place = next(iter(self._opened))
            self._fill(*place, FEW)
            if len(self._wishes) == count:
                del self._opened[place]
        if not self._wishes:
            self._busy = False
            return
        wishes, self._wishes = self._wishes[:AT_ONCE], self._wishes[AT_ONCE:]
        fetched: Deferred[list[Stored]] = self._spool.fetch([number for number, _, _ in wishes])
        fetched.addCallbacks(self._arrived, self._not_read, callbackArgs=(wishes,), errbackArgs=(wishes,))

    def _arrived(self, found: list[Stored], wishes: list[Wish]) -> None:
        self._busy = False
        messages = {stored[0].id: stored for stored in found}
        for number, destination, level in wishes:
            if level:
                self.of((destination, level)).discard(number)
        self._came([(messages[number], destination) for number, destination, _ in wishes if number in messages])
        for _, destination, level in wishes:
            if level and not self._windows.get((destination, level), True):
                del self._windows[destination, level]
                self._emptied(destination, level)
        if self._wishes:
            self.go_on()
        elif self._opened:
            self._clock.callLater(0, self.go_on)  # after what has come had its turn, and may have used up a rate
        self._read()

    def _not_read(self, failure: Failure, wishes: list[Wish]) -> None:
        self._log.failure("{count} waiting messages cannot be read; trying again", failure, count=len(wishes))
        self._wishes = wishes + self._wishes
        self._busy = False
        self._clock.callLater(AGAIN, self.go_on)
