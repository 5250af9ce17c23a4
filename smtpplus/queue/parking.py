"""What waits outside memory: eight octets for each message, while its row stays in the database.

The queue in memory is a window. A destination has only so many entries loaded; of the others only the message ids are kept: by
destination, level and user in the order of acceptance (ids only grow), whenever and however often they come here. A million queued
messages are some 10 MB of ids. Taking from a destination goes round its users, so that the window is as fair as the order it feeds; a
user may be shut, and then nothing of that user's is taken. An id stands for the recipients of one message at one destination.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Sequence, Set
from operator import lt

Window = tuple[str, int]  # destination and level


class Line:
    """Ids in their order, each once: an array with a read position. Adding the largest and taking the smallest cost O(1)."""

    __slots__ = ("_ids", "_taken", "turn")

    def __init__(self) -> None:
        self._ids = array("q")
        self._taken = 0
        self.turn = False  # whether its user stands among those whose turn comes

    def __len__(self) -> int:
        return len(self._ids) - self._taken

    @property
    def ids(self) -> array[int]:
        """All of them."""
        return self._ids[self._taken :]

    def add(self, number: int) -> int:
        """Let `number` wait in its place. Returns how many more wait now: 0 if it did already."""
        ids = self._ids
        if not len(self) or number > ids[-1]:
            ids.append(number)
            return 1
        place = bisect_left(ids, number, self._taken)
        if ids[place] == number:
            return 0
        ids.insert(place, number)
        return 1

    def join(self, numbers: Sequence[int]) -> int:
        """Let all of `numbers`, of which there is one at least, wait in their places. Returns how many more wait now."""
        if not all(map(lt, numbers, numbers[1:])):
            numbers = sorted(set(numbers))
        begin, end = (bisect_left(self._ids, number, self._taken) for number in (numbers[0], numbers[-1] + 1))
        among = self._ids[begin:end]
        fresh = sorted({*numbers, *among}) if among else numbers
        if begin == self._taken:  # what was taken makes room
            begin = self._taken = 0
        self._ids[begin:end] = array("q", fresh)
        return len(fresh) - len(among)

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

    __slots__ = ("_shut", "_turns", "count", "users")

    def __init__(self, shut: Collection[str]) -> None:
        self._shut = shut
        self._turns: deque[str] = deque()  # of users who have a line; one who was shut stays until the turn comes
        self.users: dict[str, Line] = {}
        self.count = 0  # of those that may be taken

    def add(self, user: str, number: int) -> int:
        """Let an id of `user` wait. Returns how many more wait now."""
        return self._counted(user, self._line(user).add(number))

    def join(self, user: str, numbers: Sequence[int]) -> int:
        """Let ids of `user` wait. Returns how many more wait now."""
        return self._counted(user, self._line(user).join(numbers))

    def _line(self, user: str) -> Line:
        line = self.users.get(user)
        if line is None:
            line = self.users[user] = Line()
        if user not in self._shut:
            self._line_up(user, line)
        return line

    def _counted(self, user: str, more: int) -> int:
        if user not in self._shut:
            self.count += more
        return more

    def _line_up(self, user: str, line: Line) -> None:
        if not line.turn:
            line.turn = True
            self._turns.append(user)

    def take(self, most: int) -> tuple[list[int], list[str]]:
        """Up to `most` ids, the users in turn; and the users who have nothing left."""
        taken: list[int] = []
        ended: list[str] = []
        for _ in range(min(most, self.count)):
            while (user := self._turns.popleft()) in self._shut:
                self.users[user].turn = False
            line = self.users[user]
            taken.append(line.take())
            if len(line):
                self._turns.append(user)
            else:
                del self.users[user]
                ended.append(user)
        self.count -= len(taken)
        return taken, ended

    def close(self, user: str) -> int:
        """Take nothing more of `user`, who has a line and was just shut; how many ids wait there."""
        self.count -= len(self.users[user])
        return len(self.users[user])

    def open(self, user: str) -> int:
        """Give `user`, who has a line and is not shut any more, turns again; how many ids wait there."""
        line = self.users[user]
        self.count += len(line)
        self._line_up(user, line)
        return len(line)

    def total(self) -> int:
        """How many ids wait, those of shut users included."""
        return sum(len(line) for line in self.users.values())


class Parking:
    """Ids by destination and level."""

    def __init__(self) -> None:
        self._lines: dict[Window, Lines] = {}
        self._where: dict[str, set[Window]] | None = None  # where each user has a line; not kept before the first is shut
        self.shut: set[str] = set()  # users from whom nothing is taken
        self.count = 0  # of those that may be taken
        self.held = 0  # of those of shut users

    def park(self, destination: str, level: int, user: str, number: int) -> int:
        """Let `number` wait behind the older ones of its user. Returns how many may be taken there now."""
        lines = self._lines_at((destination, level), user)
        self._counted(user, lines.add(user, number))
        return lines.count

    def join(self, destination: str, level: int, user: str, numbers: Sequence[int]) -> None:
        """Let `numbers`, of which there is one at least, wait among those of their user."""
        self._counted(user, self._lines_at((destination, level), user).join(user, numbers))

    def _lines_at(self, window: Window, user: str) -> Lines:
        """The lines there, to which ids of `user` are going to be added."""
        lines = self._lines.get(window)
        if lines is None:
            lines = self._lines[window] = Lines(self.shut)
        if self._where is not None and user not in lines.users:
            self._where.setdefault(user, set()).add(window)
        return lines

    def _counted(self, user: str, more: int) -> None:
        if user in self.shut:
            self.held += more
        else:
            self.count += more

    def waiting(self, destination: str, level: int) -> int:
        """How many may be taken there."""
        lines = self._lines.get((destination, level))
        return lines.count if lines is not None else 0

    def take(self, destination: str, level: int, most: int) -> list[int]:
        """Up to `most` ids, the users in turn."""
        window = (destination, level)
        lines = self._lines.get(window)
        if lines is None:
            return []
        taken, ended = lines.take(most)
        if self._where is not None:
            for user in ended:
                self._where[user].discard(window)
                if not self._where[user]:
                    del self._where[user]
        if not lines.users:
            del self._lines[window]
        self.count -= len(taken)
        return taken

    def close(self, users: Set[str]) -> None:
        """Take nothing of `users`, who are not shut, until `open`. Costs as much as they have lines."""
        moved = sum(self._lines[window].close(user) for user in users for window in self._windows_of(user))
        self.shut.update(users)
        self.count -= moved
        self.held += moved

    def open(self, users: Set[str]) -> None:
        """What `users`, who are shut, have waiting may be taken again. Costs as much as they have lines."""
        self.shut.difference_update(users)
        moved = sum(self._lines[window].open(user) for user in sorted(users) for window in self._windows_of(user))
        self.count += moved
        self.held -= moved

    def lines_of(self, users: Set[str]) -> list[Window]:
        """The destinations and levels where `users` have something waiting, the highest levels first, and of these the oldest mail."""
        oldest: dict[Window, int] = {}
        for user in users:
            for window in self._windows_of(user):
                first = self._lines[window].users[user].first
                oldest[window] = min(first, oldest.get(window, first))
        return sorted(oldest, key=lambda window: (window[1], oldest[window]))

    def _windows_of(self, user: str) -> Collection[Window]:
        if self._where is None:
            self._where = {}
            for window, lines in self._lines.items():
                for each in lines.users:
                    self._where.setdefault(each, set()).add(window)
        return self._where.get(user, ())

    def windows(self) -> list[tuple[str, int]]:
        """The destinations and levels where ids may be taken, the highest levels first."""
        return sorted((window for window, lines in self._lines.items() if lines.count), key=lambda window: window[1])

    def depth(self) -> dict[int, int]:
        """How many wait per level."""
        depth: dict[int, int] = {}
        for (_, level), lines in self._lines.items():
            depth[level] = depth.get(level, 0) + lines.total()
        return depth
