"""What waits outside memory: eight octets for each message, while its row stays in the database.

The queue in memory is a window. A destination has only so many entries loaded; of the others only the message ids are kept, by
destination, level and user, in order of arrival, and of what is not yet due by the second in which it will be. A million
queued messages are some 10 MB of ids. Taking from a destination goes round its users, so that the window is as fair as
the order it feeds. An id stands for the recipients of one message at one destination.
"""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from math import ceil


class Line:
    """Ids in order of arrival: an array with a read position. Appending and taking cost O(1)."""

    __slots__ = ("_ids", "_taken")

    def __init__(self) -> None:
        self._ids = array("q")
        self._taken = 0

    def __len__(self) -> int:
        return len(self._ids) - self._taken

    def append(self, number: int) -> None:
        self._ids.append(number)

    def take(self) -> int:
        """The oldest id. The line must not be empty."""
        number = self._ids[self._taken]
        self._taken += 1
        if self._taken > 1024 and self._taken * 2 > len(self._ids):
            del self._ids[: self._taken]
            self._taken = 0
        return number


class Lines:
    """The ids of one destination and level: one line per user, taken in turn."""

    __slots__ = ("_turns", "_users", "count")

    def __init__(self) -> None:
        self._users: dict[str, Line] = {}
        self._turns: deque[str] = deque()
        self.count = 0

    def append(self, user: str, number: int) -> None:
        line = self._users.get(user)
        if line is None:
            line = self._users[user] = Line()
            self._turns.append(user)
        line.append(number)
        self.count += 1

    def take(self) -> int:
        """The next id of the user whose turn it is. There must be one."""
        user = self._turns.popleft()
        line = self._users[user]
        number = line.take()
        self.count -= 1
        if len(line):
            self._turns.append(user)
        else:
            del self._users[user]
        return number


class Parking:
    """Ids by destination and level."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], Lines] = {}
        self.count = 0

    def park(self, destination: str, level: int, user: str, number: int) -> None:
        """Let `number` wait behind those of its user."""
        lines = self._lines.get((destination, level))
        if lines is None:
            lines = self._lines[destination, level] = Lines()
        lines.append(user, number)
        self.count += 1

    def waiting(self, destination: str, level: int) -> int:
        """How many wait there."""
        lines = self._lines.get((destination, level))
        return lines.count if lines is not None else 0

    def take(self, destination: str, level: int, most: int) -> list[int]:
        """Up to `most` ids, the users in turn."""
        lines = self._lines.get((destination, level))
        if lines is None:
            return []
        taken = [lines.take() for _ in range(min(most, lines.count))]
        if not lines.count:
            del self._lines[destination, level]
        self.count -= len(taken)
        return taken

    def depth(self) -> dict[int, int]:
        """How many wait per level."""
        depth: dict[int, int] = {}
        for (_, level), lines in self._lines.items():
            depth[level] = depth.get(level, 0) + lines.count
        return depth


class Calendar:
    """Ids by the second in which they are due. Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._seconds: list[int] = []  # a heap
        self._due: dict[int, array[int]] = {}
        self.count = 0

    def add(self, due: float, number: int) -> None:
        """`number` is due at `due`, never sooner."""
        second = ceil(due)
        ids = self._due.get(second)
        if ids is None:
            ids = self._due[second] = array("q")
            heapq.heappush(self._seconds, second)
        ids.append(number)
        self.count += 1

    def take(self, now: float, most: int) -> list[int]:
        """Up to `most` ids that are due at `now`, those due first in front."""
        taken: list[int] = []
        while self._seconds and self._seconds[0] <= now and len(taken) < most:
            ids = self._due[self._seconds[0]]
            room = most - len(taken)
            if len(ids) > room:
                taken += ids[:room]
                del ids[:room]
            else:
                taken += ids
                del self._due[heapq.heappop(self._seconds)]
        self.count -= len(taken)
        return taken

    def next(self) -> float | None:
        """When the next id is due."""
        return float(self._seconds[0]) if self._seconds else None
