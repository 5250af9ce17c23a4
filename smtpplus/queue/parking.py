"""What waits outside memory: eight octets for each message, while its row stays in the database.

The queue in memory is a window. A destination has only so many entries loaded; of the others only the message ids are kept, by
destination, level and user, in order of arrival, and of what is not yet due by the quarter of a second in which it will be. A million
queued messages are some 10 MB of ids. Taking from a destination goes round its users, so that the window is as fair as the order it
feeds; a user may be shut, and then nothing of that user's is taken. An id stands for the recipients of one message at one destination.
"""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Collection, Sequence, Set
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

    def prepend(self, numbers: Sequence[int]) -> None:
        """Put ids in front that were taken before, and left memory again: among others that came back sooner, in the order of ids."""
        last, end = max(numbers), self._taken
        while end < len(self._ids) and self._ids[end] < last:
            end += 1
        self._ids[:end] = array("q", sorted([*numbers, *self._ids[self._taken : end]]) if end > self._taken else numbers)
        self._taken = 0

    @property
    def first(self) -> int:
        """The oldest id. The line must not be empty."""
        return self._ids[self._taken]

    def take(self) -> int:
        """The oldest id. The line must not be empty."""
        number = self._ids[self._taken]
        self._taken += 1
        if self._taken > 1024 and self._taken * 2 > len(self._ids):
            del self._ids[: self._taken]
            self._taken = 0
        return number


class Lines:
    """The ids of one destination and level: one line per user, taken in turn. The lines of users in `shut` are not taken from."""

    __slots__ = ("_shut", "_turns", "_users", "count")

    def __init__(self, shut: Collection[str]) -> None:
        self._shut = shut
        self._users: dict[str, Line] = {}
        self._turns: deque[str] = deque()
        self.count = 0  # of those that may be taken

    def line(self, user: str, added: int) -> Line:
        """The line of a user to which `added` ids are going to be added."""
        line = self._users.get(user)
        if line is None:
            line = self._users[user] = Line()
            if user not in self._shut:
                self._turns.append(user)
        if user not in self._shut:
            self.count += added
        return line

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

    def close(self, users: Set[str]) -> int:
        """Take nothing more of `users`, who were just shut; how many ids of theirs wait there."""
        found = self._users.keys() & users
        if found:
            self._turns = deque(user for user in self._turns if user not in found)
        moved = sum(len(self._users[user]) for user in found)
        self.count -= moved
        return moved

    def open(self, users: Set[str]) -> int:
        """Give `users`, who are not shut any more, turns again, those first whose mail is the oldest; how many ids of theirs wait there."""
        found = sorted(self._users.keys() & users, key=lambda user: self._users[user].first)
        self._turns.extend(found)
        moved = sum(len(self._users[user]) for user in found)
        self.count += moved
        return moved

    def oldest(self, users: Set[str]) -> int | None:
        """The oldest id of `users`."""
        return min((self._users[user].first for user in self._users.keys() & users), default=None)

    def total(self) -> int:
        """How many ids wait, those of shut users included."""
        return sum(len(line) for line in self._users.values())


class Parking:
    """Ids by destination and level."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], Lines] = {}
        self.shut: set[str] = set()  # users from whom nothing is taken
        self.count = 0  # of those that may be taken
        self.held = 0  # of those of shut users

    def park(self, destination: str, level: int, user: str, number: int) -> int:
        """Let `number` wait behind those of its user. Returns how many may be taken there now."""
        lines = self._lines.get((destination, level))
        if lines is None:
            lines = self._lines[destination, level] = Lines(self.shut)
        if user in self.shut:
            self.held += 1
        else:
            self.count += 1
        lines.line(user, 1).append(number)
        return lines.count

    def put_back(self, destination: str, level: int, user: str, numbers: Sequence[int]) -> None:
        """Let `numbers`, which were taken in this order, wait in front of the others of their user."""
        lines = self._lines.get((destination, level))
        if lines is None:
            lines = self._lines[destination, level] = Lines(self.shut)
        if user in self.shut:
            self.held += len(numbers)
        else:
            self.count += len(numbers)
        lines.line(user, len(numbers)).prepend(numbers)

    def waiting(self, destination: str, level: int) -> int:
        """How many may be taken there."""
        lines = self._lines.get((destination, level))
        return lines.count if lines is not None else 0

    def take(self, destination: str, level: int, most: int) -> list[int]:
        """Up to `most` ids, the users in turn."""
        lines = self._lines.get((destination, level))
        if lines is None:
            return []
        taken = [lines.take() for _ in range(min(most, lines.count))]
        if not lines.count and not lines.total():
            del self._lines[destination, level]
        self.count -= len(taken)
        return taken

    def close(self, users: Set[str]) -> None:
        """Take nothing of `users`, who are not shut, until `open`. One look at every destination."""
        if users:
            self.shut.update(users)
            moved = sum(lines.close(users) for lines in self._lines.values())
            self.count -= moved
            self.held += moved

    def open(self, users: Set[str]) -> None:
        """What `users`, who are shut, have waiting may be taken again. One look at every destination."""
        if users:
            self.shut.difference_update(users)
            moved = sum(lines.open(users) for lines in self._lines.values())
            self.count += moved
            self.held -= moved

    def lines_of(self, users: Set[str]) -> list[tuple[str, int]]:
        """The destinations and levels where `users` have something waiting, the highest levels first, and of these the oldest mail."""
        found = ((window[1], lines.oldest(users), window) for window, lines in self._lines.items())
        return [window for _, _, window in sorted((level, oldest, window) for level, oldest, window in found if oldest is not None)]

    def windows(self) -> list[tuple[str, int]]:
        """The destinations and levels where ids may be taken, the highest levels first."""
        return sorted((window for window, lines in self._lines.items() if lines.count), key=lambda window: window[1])

    def depth(self) -> dict[int, int]:
        """How many wait per level."""
        depth: dict[int, int] = {}
        for (_, level), lines in self._lines.items():
            depth[level] = depth.get(level, 0) + lines.total()
        return depth


class Calendar:
    """Ids by the quarter of a second in which they are due. Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._quarters: list[int] = []  # a heap
        self._due: dict[int, array[int]] = {}
        self.count = 0

    def add(self, due: float, number: int) -> None:
        """`number` is due at `due`, never sooner."""
        quarter = ceil(due * 4)
        ids = self._due.get(quarter)
        if ids is None:
            ids = self._due[quarter] = array("q")
            heapq.heappush(self._quarters, quarter)
        ids.append(number)
        self.count += 1

    def take(self, now: float, most: int) -> list[int]:
        """Up to `most` ids that are due at `now`, those due first in front."""
        taken: list[int] = []
        while self._quarters and self._quarters[0] <= now * 4 and len(taken) < most:
            ids = self._due[self._quarters[0]]
            room = most - len(taken)
            if len(ids) > room:
                taken += ids[:room]
                del ids[:room]
            else:
                taken += ids
                del self._due[heapq.heappop(self._quarters)]
        self.count -= len(taken)
        return taken

    def next(self) -> float | None:
        """When the next id is due."""
        return self._quarters[0] / 4 if self._quarters else None
