"""What is not yet due: the ids of messages by the quarter of a second in which they will be.

An id stands for those recipients of a message that are due then, once in a quarter; a million are some 10 MB. What was changed elsewhere
is forgotten and comes back with its new times. To look for it costs as much as there are ids, so in a long calendar it is done when
enough has been forgotten. Invariant: nothing comes early, and nothing that was added is missed; what was forgotten may come all the same,
and its message says then that nothing is due. Of a long calendar's `count`, one in SHARE or so was forgotten, of a short one's none.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from math import ceil

from smtpplus.queue.parking import Line

SHORT = 10_000  # ids that are looked through at any time: a millisecond
SHARE = 16  # of a longer calendar is looked through when one id of so many was forgotten


class Calendar:
    """Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._quarters: list[int] = []  # a heap
        self._due: dict[int, Line] = {}
        self._changed: dict[int, set[int]] = {}  # forgotten ids that are still to be found, with the quarters for which they came back
        self.count = 0

    def add(self, due: float, number: int) -> None:
        """`number` is due at `due`, never sooner."""
        quarter = ceil(due * 4)
        line = self._due.get(quarter)
        if line is None:
            line = self._due[quarter] = Line()
            heapq.heappush(self._quarters, quarter)
        self.count += line.add(number)
        if self._changed and number in self._changed:
            self._changed[number].add(quarter)

    def take(self, now: float, most: int) -> list[int]:
        """Up to `most` ids that are due at `now`, those due first in front."""
        taken: list[int] = []
        while self._quarters and self._quarters[0] <= now * 4 and len(taken) < most:
            line = self._due[self._quarters[0]]
            while line and len(taken) < most:
                taken.append(line.take())
            if not line:
                del self._due[heapq.heappop(self._quarters)]
        self.count -= len(taken)
        return taken

    def forget(self, numbers: Iterable[int]) -> None:
        """These messages have changed: their times up to now count no more."""
        for number in numbers:
            self._changed[number] = set()
        if self.count <= SHORT or len(self._changed) * SHARE >= self.count:
            self._look_through()

    def _look_through(self) -> None:
        changed, self._changed = self._changed, {}
        for quarter, line in list(self._due.items()):
            ids = line.ids
            if changed.keys().isdisjoint(ids):
                continue
            kept = [number for number in ids if number not in changed or quarter in changed[number]]
            self.count -= len(ids) - len(kept)
            del self._due[quarter]
            if kept:
                self._due[quarter] = Line()
                self._due[quarter].join(kept)
        if len(self._due) < len(self._quarters):
            self._quarters = sorted(self._due)

    def next(self) -> float | None:
        """When the next id is due."""
        return self._quarters[0] / 4 if self._quarters else None
