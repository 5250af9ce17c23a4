"""Mail over a rate waits in its line and goes by itself (C7): users that are shut for a while, and destinations that are slowed.

When the best entry is over a limit of its user, the user's lines are shut until there is room again: what is in memory of them goes
back where it came from, in its order, and nobody else is held up. If it is the sum of its list that is used up, the lines of all users
are shut that are known to be in the list, at once. A destination over its rate is held like one that a rule holds.
Only first attempts count; a retry is the same mail, and what did not begin after all is given back. Nothing here is asked while there
is no limit at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from smtpplus.queue.entry import Entry
from smtpplus.queue.preemption import Preemption
from smtpplus.queue.rates import Load, OverRate, Owner, Rates, Terms
from smtpplus.queue.window import Window


class Throttle:
    """Who waits for a limit, and until when. `hold` is called when the held destinations have changed."""

    def __init__(self, *, rates: Rates, window: Window, preemption: Preemption, hold: Callable[[], None], now: Callable[[], float]) -> None:
        self.rates = rates
        self._window = window
        self._preemption = preemption
        self._hold = hold
        self._now = now
        self._over: dict[Owner, dict[str, OverRate]] = {"user": {}, "list": {}, "destination": {}}
        self._members: dict[str, set[str]] = {}  # users known to be in a list whose sum was used up

    @property
    def slowed(self) -> frozenset[str]:
        """The destinations that wait for their rate."""
        return frozenset(self._over["destination"])

    @property
    def waits(self) -> tuple[OverRate, ...]:
        """Who waits for a limit, and until when."""
        return tuple(wait for found in self._over.values() for wait in found.values())

    def settle(self, terms: Terms) -> None:
        """From now on these limits are set; whoever waits may try again."""
        self.rates.settle(terms)
        self._let_go(self._now(), everybody=True)
        self._members.clear()  # users may have come into other lists

    def delays(self, entry: Entry) -> bool:
        """Whether `entry`, which is the best there is, must wait; if so it is not ready any more, else it is counted."""
        wait = self._counted(entry) if not entry.attempts else None
        if wait is None:
            return False
        self._over[wait.kind][wait.name] = wait
        if wait.kind == "destination":
            self._hold()
            return True
        if wait.kind == "list":
            self._members.setdefault(wait.name, set()).update(self._window.members(wait.name), (entry.user,))
        self._shut()
        return True

    def admits(self, entry: Entry) -> bool:
        """Whether `entry`, which is not ready yet, is within every limit; if so it is counted."""
        return not self.rates or self._counted(entry) is None

    def _counted(self, entry: Entry) -> OverRate | None:
        """The limit that a first attempt has to wait for; if there is none it is counted."""
        now, load = self._now(), _load(entry)
        wait = self.rates.over(load, now)
        if wait is None:
            self.rates.count(load, now)
        return wait

    def give_back(self, entries: Iterable[Entry]) -> None:
        """These have a slot, and will not be sent with it: first attempts among them are not counted any more, and others may ask anew."""
        if not self.rates:
            return
        now = self._now()
        for entry in entries:
            if not entry.attempts:
                self.rates.give_back(_load(entry), now)
        self._let_go(now, everybody=True)

    def look(self, *, again: bool = False) -> None:
        """Let those go on whose time has come; `again`: all may ask anew, as the clock was set back."""
        self._let_go(self._now(), everybody=again)

    def _let_go(self, now: float, *, everybody: bool = False) -> None:
        for kind, found in self._over.items():
            free = [name for name, wait in found.items() if everybody or wait.until <= now]
            for name in free:
                del found[name]
            if free and kind == "destination":
                self._hold()
            elif free:
                self._shut()

    def _shut(self) -> None:
        lists = (self._members[name] for name in self._over["list"])
        for entry in self._window.limit(frozenset(self._over["user"]).union(*lists)):
            self._preemption.withdraw(entry)


def _load(entry: Entry) -> Load:
    envelope = entry.message.envelope
    return Load(entry.user, envelope.list, entry.destination, len(entry.numbers), envelope.size)
