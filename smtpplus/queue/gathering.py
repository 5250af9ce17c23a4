"""The start: what the database holds is found page by page, urgent mail first, while mail already flows.

A page is some milliseconds of work, and most of the time is left for the mail. What is due is parked, what is not goes into the
calendar, what a rule holds aside is put there without being read, and what was tried for the first time when the process before this one
ended is tried again at once: mostly it was only about to be. What is accepted meanwhile of users who have mail waiting in the
database stays behind until that is found, so that it does not overtake its like; what others send lines itself up at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from smtpplus.queue.rows import URGENT, Waiting, domain_of
from smtpplus.queue.rules import Facts
from smtpplus.queue.spool import Spool

if TYPE_CHECKING:
    from smtpplus.queue.window import Window

PAGE = 400  # recipients looked at by one query
REST = 3  # times as long as a page took is left for the mail


class Gathering:
    """Two passes through the queue, into `window`: urgent mail, and all other."""

    def __init__(self, window: Window, spool: Spool, clock: IReactorTime) -> None:
        self._window = window
        self._spool = spool
        self._clock = clock
        self._owners: dict[bool, frozenset[str] | None] = {True: None, False: None}  # by pass, whose mail it finds; None: perhaps anybody's
        self._behind: list[tuple[str, int, str, int]] = []  # destination, level, user and id of what waits for its like to be found

    @property
    def count(self) -> int:
        """How many stay behind."""
        return len(self._behind)

    def precedes(self, level: int, user: str) -> bool:
        """Whether older mail of that level and user may still be found."""
        owners = self._owners[level <= URGENT]
        return owners is None or user in owners

    def keep(self, destination: str, level: int, user: str, number: int) -> None:
        """Let `number` wait until what precedes it is found."""
        self._behind.append((destination, level, user, number))

    def _let_go(self) -> None:
        """Let those wait in their windows before whom nothing more will be found."""
        behind, self._behind = self._behind, []
        for each in behind:
            if self.precedes(each[1], each[2]):
                self._behind.append(each)
            else:
                self._window.parking.park(*each)
        for destination, level in {each[:2] for each in behind}:
            self._window.refill(destination, level)

    @inlineCallbacks
    def run(self, newest: int, now: float) -> Any:
        """Find what is older than id `newest`; what is due after `now` waits in the calendar. Fires with the number of recipients."""
        count = 0
        for urgent in (True, False):
            self._owners[urgent] = yield self._spool.owners(newest, urgent=urgent)
            self._let_go()
            count += yield self._pass(newest, now, urgent=urgent)
            self._owners[urgent] = frozenset()
            self._let_go()
        return count

    @inlineCallbacks
    def _pass(self, newest: int, now: float, *, urgent: bool) -> Any:
        count, after, last = 0, (0, 0), (0, "")
        while not self._window.closed:
            page: list[Waiting] = yield self._spool.scan(after, PAGE, urgent=urgent)
            begun = self._clock.seconds()
            cut_off: dict[int, None] = {}
            for row in page:
                after = row[:2]
                if row[0] < newest:
                    count += 1
                    if row[5] > now and row[8]:
                        cut_off[row[0]] = None
                    else:
                        last = self._found(row, last, now)
            if cut_off:
                yield self._spool.resume(cut_off)
                self._window.pick_up(cut_off)
            if len(page) < PAGE:
                break
            spent = self._clock.seconds() - begun
            if spent:
                yield deferLater(self._clock, REST * spent, lambda: None)
        return count

    def _found(self, row: Waiting, last: tuple[int, str], now: float) -> tuple[int, str]:
        """A recipient; `last` and what is returned: the message and destination of the one before, and of it."""
        window = self._window
        number, _, address, level, user, due, list_, sender_domain, _ = row
        if due > now:
            window.calendar.add(due, number)
            return last
        destination = window.destination_of(address)
        if (number, destination) == last:
            return last
        if window.aside.rules:
            rule = window.aside.holds(Facts(number, user, list_, sender_domain, level, destination, (domain_of(address),)))
            if rule is not None:
                window.aside.keep(rule, (destination, level, user), number)
                return last
        if window.parking.park(destination, level, user, number) == 1:  # behind others: their window is full, or being filled
            window.refill(destination, level)
        return number, destination
