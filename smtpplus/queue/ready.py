"""The order of what may be sent now: a heap of destinations, and in each destination a heap of entries.

Order is (level, virtual finish time, sequence). Levels are strict. Inside a level users share by start-time fair queueing (Goyal,
Vin, Cheng 1996): an entry's finish time is the level's virtual time, or its user's last finish time if that is later, plus its cost;
so whoever sent little goes before whoever sent much, and one user's entries stay in order of arrival. No operation scans: all are
O(log n) in the entries of one destination and in the destinations.

A destination that cannot take its best entry is not in the outer heap. Items of the outer heap that are out of date are
recognized by their key and skipped.
"""

from __future__ import annotations

import heapq

from smtpplus.queue.destination import Destination
from smtpplus.queue.entry import Entry

Key = tuple[int, float, int]


class Ready:
    """All entries that wait for a slot, and the destinations they wait for."""

    def __init__(self, window: int, reserved: int, preempting: frozenset[int]) -> None:
        self._window = window
        self._reserved = reserved
        self._preempting = preempting
        self._destinations: dict[str, Destination] = {}
        self._heap: list[tuple[Key, str]] = []
        self._sequence = 0
        self._virtual: dict[int, float] = {}  # level → virtual time
        self._finish: dict[tuple[int, str], float] = {}  # (level, user) → finish time of the user's last entry

    def destination(self, name: str) -> Destination:
        """The destination's state, made at first use."""
        found = self._destinations.get(name)
        if found is None:
            found = self._destinations[name] = Destination(name, self._window, self._reserved, self._preempting)
        return found

    def push(self, entry: Entry) -> Destination:
        """Let `entry` wait behind its peers. Returns its destination."""
        level, owner = entry.level, (entry.level, entry.user)
        virtual = self._virtual.get(level, 0.0)
        finish = max(virtual, self._finish.get(owner, 0.0)) + entry.cost
        self._finish[owner] = finish
        if len(self._finish) > 1024:
            self._forget()
        self._sequence += 1
        destination = self.destination(entry.destination)
        heapq.heappush(destination.waiting, ((level, finish, self._sequence), entry))
        destination.loaded[level] += 1
        self.offer(destination)
        return destination

    def offer(self, destination: Destination) -> None:
        """Put `destination` in the outer heap if it can take its best entry now; call it whenever that may have become so."""
        if destination.waiting and destination.takes():
            key = destination.waiting[0][0]
            if destination.listed != key:
                destination.listed = key
                heapq.heappush(self._heap, (key, destination.name))
        elif not destination.waiting and not destination.running and destination.idle():
            self._destinations.pop(destination.name, None)

    def best(self) -> Entry | None:
        """The entry that goes next, left where it is; None if none can go."""
        while self._heap:
            key, name = self._heap[0]
            destination = self._destinations.get(name)
            if destination is not None and destination.listed == key and destination.waiting[0][0] == key and destination.takes():
                return destination.waiting[0][1]
            heapq.heappop(self._heap)
            if destination is not None and destination.listed == key:
                destination.listed = None
                self.offer(destination)
        return None

    def take(self) -> Entry:
        """Remove and return what `best` returned, counted as running at its destination."""
        key, name = heapq.heappop(self._heap)
        destination = self._destinations[name]
        destination.listed = None
        entry = heapq.heappop(destination.waiting)[1]
        self._virtual[key[0]] = max(self._virtual.get(key[0], 0.0), key[1] - entry.cost)
        destination.running += 1
        destination.loaded[key[0]] -= 1
        self.offer(destination)
        return entry

    def loaded(self, destination: str, level: int) -> int:
        """How many entries of that level wait for `destination`."""
        found = self._destinations.get(destination)
        return found.loaded[level] if found is not None else 0

    def __contains__(self, destination: str) -> bool:
        return destination in self._destinations

    def spread(self) -> int:
        """How many destinations there are."""
        return len(self._destinations)

    def release(self, entry: Entry) -> None:
        """`entry` no longer runs; its slot is free."""
        destination = self.destination(entry.destination)
        destination.running -= 1
        self.offer(destination)

    def __len__(self) -> int:
        return sum(len(destination.waiting) for destination in self._destinations.values())

    def destinations(self) -> list[Destination]:
        """Every destination that waits or runs."""
        return list(self._destinations.values())

    def _forget(self) -> None:
        """Drop users who have no claim left: their last finish time has passed."""
        self._finish = {owner: finish for owner, finish in self._finish.items() if finish > self._virtual.get(owner[0], 0.0)}
