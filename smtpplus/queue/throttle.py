"""Mail over a rate waits in its line and goes by itself (C7): users that are shut for a while, and destinations that are slowed.

When the best entry is over a limit of its user, the user's lines are shut until there is room again: what is in memory of them goes
back where it came from, in its order, and nobody else is held up. A destination over its rate is held like one that a rule holds.
Only first attempts count; a retry is the same mail. Nothing here is asked while there is no limit at all.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpplus.queue.entry import Entry
from smtpplus.queue.preemption import Preemption
from smtpplus.queue.rates import Load, Rates
from smtpplus.queue.standing import OverRate
from smtpplus.queue.window import Window


class Throttle:
    """Who waits for a limit, and until when. `hold` is called when the held destinations have changed."""

    def __init__(self, *, rates: Rates, window: Window, preemption: Preemption, hold: Callable[[], None], now: Callable[[], float]) -> None:
        self.rates = rates
        self._window = window
        self._preemption = preemption
        self._hold = hold
        self._now = now
        self._users: dict[str, float] = {}  # shut until, seconds since the epoch
        self._destinations: dict[str, float] = {}

    @property
    def slowed(self) -> frozenset[str]:
        """The destinations that wait for their rate."""
        return frozenset(self._destinations)

    @property
    def waits(self) -> tuple[OverRate, ...]:
        """Who waits for a limit, and until when."""
        users = [OverRate("user", name, until) for name, until in self._users.items()]
        return (*users, *(OverRate("destination", name, until) for name, until in self._destinations.items()))

    def delays(self, entry: Entry) -> bool:
        """Whether `entry`, which is the best there is, must wait; if so it is not ready any more, else it is counted."""
        if entry.attempts:
            return False
        now = self._now()
        envelope = entry.message.envelope
        load = Load(entry.user, envelope.list, entry.destination, len(entry.numbers), envelope.size)
        free = self.rates.user_free_at(load, now)
        if free > now:
            self._users[entry.user] = free
            self._shut()
            return True
        free = self.rates.destination_free_at(load, now)
        if free > now:
            self._destinations[entry.destination] = free
            self._hold()
            return True
        self.rates.count(load, now)
        return False

    def look(self, *, again: bool = False) -> None:
        """Let those go on whose time has come; all of them if limits have changed or the clock was set (`again`)."""
        now = self._now()
        users = [user for user, until in self._users.items() if again or until <= now]
        destinations = [name for name, until in self._destinations.items() if again or until <= now]
        for user in users:
            del self._users[user]
        for name in destinations:
            del self._destinations[name]
        if users:
            self._shut()
        if destinations:
            self._hold()

    def _shut(self) -> None:
        for entry in self._window.limit(frozenset(self._users)):
            self._preemption.withdraw(entry)
