"""The order of what may be sent now: a heap of destinations, and in each destination a heap of entries.

Order is (rank, virtual finish time, sequence). The rank is the level, less one for each `aging` waited: aging changes the order, not
what the entry may stop. Time before it was to be sent, and time that a rule held it, is no waiting, as it is none of the lifetime.
Ranks are strict. Inside a rank users share by start-time fair queueing (Goyal, Vin, Cheng 1996): an entry's finish time is the rank's
virtual time, or its user's last finish time if that is later, plus its cost; so whoever sent little goes before whoever sent much, and
one user's entries stay in order of arrival. No operation scans: all are O(log n) in the entries of one destination and in the
destinations.

An entry may take the turn of another one of its user and rank if its destination was just served: the open connection is used again. One
user's mail to one destination stays in order, and so do the turns of users.

A destination that cannot take its best entry is not in the outer heap. Items of the outer heap that are out of date are
recognized by their key and skipped.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable

from smtpplus.queue.aside import facts_of
from smtpplus.queue.destination import Destination
from smtpplus.queue.entry import Entry
from smtpplus.queue.rules import Rules

Key = tuple[int, float, int]
GAIN = 3  # levels that an entry gains by waiting, at most
STREAK = 20  # entries of one destination that go before their turn, one after the other
WARM = 256  # destinations remembered as served lately
AGAIN = 1.0  # seconds after which the rank of one whose time stands still, as a rule holds it, is looked at again at the soonest
OLDER = 1024  # entries that left, and are still noted for their next gain


class Ready:
    """All entries that wait for a slot, and the destinations they wait for. Times are seconds since the epoch."""

    def __init__(
        self, limit: int, reserved: int, preempting: frozenset[int], *, initial: int, aging: float, now: Callable[[], float]
    ) -> None:
        self._limit = limit  # attempts at once at a destination
        self._initial = initial
        self._reserved = reserved
        self._preempting = preempting
        self._aging = aging  # seconds waited for each level gained; 0: none is
        self._now = now
        self._destinations: dict[str, Destination] = {}
        self._heap: list[tuple[Key, str]] = []
        self._older: list[tuple[float, int, Entry]] = []  # a heap: when an entry gains its next level
        self._sequence = 0
        self._count = 0  # entries that wait
        self._warm: list[str] = []  # destinations whose attempts have ended lately, the last one last
        self._chosen: Destination | None = None  # what `best` found there
        self._crowded = False  # the last slots are for destinations that have none
        self._passed: dict[str, None] = {}  # destinations that were not listed for that
        self.held: frozenset[str] = frozenset()  # destinations at which a rule lets nothing start
        self.rules = Rules()  # what they held did not wait in that time
        self._virtual: dict[int, float] = {}  # rank → virtual time
        self._finish: dict[tuple[int, str], float] = {}  # (rank, user) → finish time of the user's last entry

    def destination(self, name: str) -> Destination:
        """The destination's state, made at first use."""
        found = self._destinations.get(name)
        if found is None:
            found = self._destinations[name] = Destination(name, self._limit, self._initial, self._reserved, self._preempting)
            found.held = name in self.held
        return found

    def push(self, entry: Entry) -> Destination:
        """Let `entry` wait behind its peers, or where it waited before. Returns its destination."""
        destination = self.destination(entry.destination)
        destination.loaded[entry.level] += 1
        self._count += 1
        if entry.turn is None:
            self._put(destination, entry)
        else:
            entry.place = entry.turn[2]
            heapq.heappush(destination.waiting, (entry.turn, entry))
            self.offer(destination)
        return destination

    def _put(self, destination: Destination, entry: Entry) -> None:
        self._sequence += 1
        entry.place = self._sequence
        rank, gains = self._ranked(entry) if self._aging else (entry.level, math.inf)
        entry.rank = rank
        if gains < math.inf:
            heapq.heappush(self._older, (gains, entry.place, entry))
        owner = (rank, entry.user)
        finish = max(self._virtual.get(rank, 0.0), self._finish.get(owner, 0.0)) + entry.cost
        self._finish[owner] = finish
        if len(self._finish) > 1024:
            self._forget()
        heapq.heappush(destination.waiting, ((rank, finish, self._sequence), entry))
        self.offer(destination)

    def _ranked(self, entry: Entry) -> tuple[int, float]:
        """The level less one for each `aging` waited, at most GAIN (D1), and when it will be one less; infinity: never."""
        now, envelope = self._now(), entry.message.envelope
        begun = max(envelope.received_at, envelope.release_at)
        waited = now - begun
        if waited >= self._aging and self.rules.ever:
            waited -= self.rules.held(facts_of(entry), begun, now)
        gained = max(0, min(GAIN, int(waited / self._aging)))
        rank = max(1, entry.level - gained)
        more = gained < GAIN and rank > 1
        return rank, max(now - waited + (gained + 1) * self._aging, now + AGAIN) if more else math.inf

    def age(self) -> None:
        """Give their better place to those who have waited long enough; call it now and then."""
        now = self._now()
        while self._older and self._older[0][0] <= now:
            _, place, entry = heapq.heappop(self._older)
            if entry.place != place:
                continue
            rank, gains = self._ranked(entry)
            if rank < entry.rank:
                self._put(self._destinations[entry.destination], entry)
            elif gains < math.inf:  # a rule held it
                heapq.heappush(self._older, (gains, place, entry))
        if len(self._older) > 2 * self._count + OLDER:  # most of them have gone
            self._older = [item for item in self._older if item[2].place == item[1]]
            heapq.heapify(self._older)

    def offer(self, destination: Destination) -> None:
        """Put `destination` in the outer heap if it can take its best entry now; call it whenever that may have become so."""
        key = destination.top()
        if key is not None:
            if destination.listed != key and self._takes(destination):
                destination.listed = key
                heapq.heappush(self._heap, (key, destination.name))
        elif not destination.running and destination.idle():
            self._destinations.pop(destination.name, None)

    def crowd(self, crowded: bool) -> None:
        """Whether from now on slots are only for urgent mail and destinations that have none, so that a few slow ones do not take all."""
        if crowded is self._crowded:
            return
        self._crowded = crowded
        if not crowded:
            passed, self._passed = self._passed, {}
            for name in passed:
                if name in self._destinations:
                    self.offer(self._destinations[name])

    def _takes(self, destination: Destination) -> bool:
        """Whether its best entry may start."""
        if not destination.takes():
            return False
        if self._crowded and destination.running and destination.waiting[0][1].level not in self._preempting:
            self._passed[destination.name] = None
            return False
        return True

    def best(self) -> Entry | None:
        """The entry that goes next, left where it is; None if none can go."""
        while self._heap:
            key, name = self._heap[0]
            destination = self._destinations.get(name)
            if destination is not None and destination.listed == key and destination.top() == key and self._takes(destination):
                entry = destination.waiting[0][1]
                self._chosen = self._warm_one(key[0], entry.user) if self._warm else None
                return entry if self._chosen is None else self._chosen.waiting[0][1]
            heapq.heappop(self._heap)
            if destination is not None and destination.listed == key:
                destination.listed = None
                self.offer(destination)
        return None

    def _warm_one(self, rank: int, user: str) -> Destination | None:
        """A destination that was just served, and whose best entry is of the same rank and user as the best of all: it takes the turn
        of that user, so that a connection that is open is used again. STREAK bounds how often in a row."""
        while self._warm:
            destination = self._destinations.get(self._warm[-1])
            if destination is not None and destination.streak < STREAK and destination.top() is not None and self._takes(destination):
                key, entry = destination.waiting[0]
                if key[0] == rank and entry.user == user:
                    return destination
            self._warm.pop()
        return None

    def take(self) -> Entry:
        """Remove and return what `best` returned, counted as running at its destination."""
        destination, self._chosen = self._chosen, None
        if destination is None:
            key, name = heapq.heappop(self._heap)
            destination = self._destinations[name]
            destination.streak = 0
            turn, entry = heapq.heappop(destination.waiting)
            self._virtual[key[0]] = max(self._virtual.get(key[0], 0.0), key[1] - entry.cost)
        else:  # its item in the outer heap is out of date from now on
            destination.streak += 1
            turn, entry = heapq.heappop(destination.waiting)
            self._warm.pop()
        destination.listed = None
        entry.turn = turn
        entry.place = 0
        destination.running += 1
        destination.loaded[entry.level] -= 1
        self._count -= 1
        self.offer(destination)
        return entry

    def waits(self, name: str, level: int) -> bool:
        """Whether an entry of that level, which has waited for nothing yet, would wait behind others at that destination."""
        found = self._destinations.get(name)
        key = found.top() if found is not None else None
        return key is not None and key[0] <= level

    def admits(self, entry: Entry) -> bool:
        """Whether its destination has room for `entry`, which did not wait. One of which nothing is known has."""
        found = self._destinations.get(entry.destination)
        return found.admits(entry.level) if found is not None else entry.destination not in self.held

    def starves(self, name: str, stopped: int, ceiling: int) -> bool:
        """Whether preempting mail of a rank up to `ceiling` waits for a slot there, all of which are with the `stopped` attempts."""
        found = self._destinations.get(name)
        return found is not None and found.starves(stopped, ceiling)

    def start(self, entry: Entry) -> None:
        """Count `entry`, which did not wait, as running at its destination."""
        self.destination(entry.destination).running += 1

    def remove(self, entries: Iterable[Entry], *, whole: bool = False) -> None:
        """Let these entries, which wait, wait no longer. Costs as much as waits at their destinations. `whole`: they are all that their
        users have waiting, whose turns are then as if these had never come."""
        touched: dict[str, Destination] = {}
        gone: set[int] = set()
        for entry in entries:
            gone.add(entry.place)
            entry.place = 0
            destination = touched[entry.destination] = self._destinations[entry.destination]
            destination.loaded[entry.level] -= 1
            self._count -= 1
        for destination in touched.values():
            for (rank, finish, place), entry in destination.waiting if whole else ():
                if place in gone:
                    owner = (rank, entry.user)
                    self._finish[owner] = min(self._finish.get(owner, finish), finish - entry.cost)
            destination.waiting = [(key, entry) for key, entry in destination.waiting if entry.place == key[2]]
            heapq.heapify(destination.waiting)
            self.offer(destination)

    def hold(self, names: frozenset[str]) -> None:
        """From now on nothing starts at these destinations, and things start again at those held before."""
        changed, self.held = self.held ^ names, names
        for name in changed:
            found = self._destinations.get(name)
            if found is not None:
                found.held = name in names
                self.offer(found)

    def loaded(self, destination: str, level: int) -> int:
        """How many entries of that level wait for `destination`."""
        found = self._destinations.get(destination)
        return found.loaded[level] if found is not None else 0

    def spread(self) -> int:
        """How many destinations there are."""
        return len(self._destinations)

    def release(self, entry: Entry) -> None:
        """`entry` no longer runs; its slot is free."""
        destination = self.destination(entry.destination)
        destination.running -= 1
        if destination.waiting:
            self._warm.append(destination.name)
            if len(self._warm) > WARM:
                del self._warm[: WARM // 2]
        self.offer(destination)

    def __len__(self) -> int:
        return self._count

    def known(self, name: str) -> Destination | None:
        """The destination's state, if it has one."""
        return self._destinations.get(name)

    def destinations(self) -> list[Destination]:
        """Every destination that waits or runs."""
        return list(self._destinations.values())

    def _forget(self) -> None:
        """Drop users who have no claim left: their last finish time has passed."""
        self._finish = {owner: finish for owner, finish in self._finish.items() if finish > self._virtual.get(owner[0], 0.0)}
