"""Rates and quotas: how much mail of one user, or to one destination, goes in a minute, an hour or a day (C7). Pure arithmetic over times.

A limit is kept by a window that slides in SLOTS steps: in no span of the period that begins with a step does more go than the amount.
What is over it is not refused: it is told when it may go, and whoever asks again then is let through in turn. An amount larger than
the whole limit goes when nothing else has gone for a period. A clock that is set back forgets what lies in its future.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

SLOTS = 20  # steps of a period: a limit per minute is looked at in steps of 3 seconds
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0  # seconds
FORGET = 1024  # meters known before those that have counted nothing lately are dropped

Unit = Literal["recipients", "octets"]
Saved = dict[str, list[tuple[float, int]]]  # by meter: beginning of a step, and what went in it


class Limit(msgspec.Struct, frozen=True):
    """So much in a period of so many seconds."""

    amount: int
    period: float
    unit: Unit = "recipients"


class Load(msgspec.Struct, frozen=True):
    """What is to go: whose, where to, and how much."""

    user: str  # "": nobody's, which no limit of a user holds
    list: str
    destination: str
    recipients: int
    octets: int

    def amount(self, unit: Unit) -> int:
        """How much of a limit it takes."""
        return self.recipients if unit == "recipients" else self.octets


def limited(rate: int, quota: int) -> tuple[Limit, ...]:
    """The limits of so many recipients a minute and a day; 0 is none."""
    return tuple(Limit(amount, period) for amount, period in ((rate, MINUTE), (quota, DAY)) if amount)


class Meter:
    """What has gone under one limit. Times are seconds since the epoch."""

    __slots__ = ("_steps", "limit", "total")

    def __init__(self, limit: Limit, steps: Iterable[tuple[float, int]] = ()) -> None:
        self.limit = limit
        self._steps: deque[tuple[float, int]] = deque((begun, amount) for begun, amount in steps)
        self.total = sum(amount for _, amount in self._steps)

    def free_at(self, amount: int, now: float) -> float:
        """When so much may go: `now` or later."""
        self._slide(now)
        over = self.total + amount - self.limit.amount
        if over <= 0 or not self._steps:
            return now
        for begun, went in self._steps:
            over -= went
            if over <= 0:
                return begun + self.limit.period + self._step
        return self._steps[-1][0] + self.limit.period + self._step

    def count(self, amount: int, now: float) -> None:
        """So much goes now."""
        begun = now - now % self._step
        before = self._steps.pop()[1] if self._steps and self._steps[-1][0] == begun else 0
        self._steps.append((begun, before + amount))
        self.total += amount

    @property
    def _step(self) -> float:
        return self.limit.period / SLOTS

    def _slide(self, now: float) -> None:
        steps = self._steps
        while steps and steps[0][0] + self.limit.period + self._step <= now:
            self.total -= steps.popleft()[1]
        while steps and steps[-1][0] > now:
            self.total -= steps.pop()[1]

    def steps(self) -> list[tuple[float, int]]:
        """What went, step by step."""
        return list(self._steps)


class Rates:
    """All limits and their meters. Truth is whether there is any limit."""

    def __init__(self, everybody: Sequence[Limit] = (), destinations: Sequence[Limit] = ()) -> None:
        self._everybody = tuple(everybody)  # each user, unless told otherwise
        self._destinations = tuple(destinations)  # each destination
        self._users: Mapping[str, tuple[Limit, ...]] = {}
        self._lists: Mapping[str, tuple[Limit, ...]] = {}
        self._meters: dict[str, Meter] = {}
        self._saved: Saved = {}
        self._room = FORGET
        self._limited = bool(everybody or destinations)

    def __bool__(self) -> bool:
        return self._limited

    def settle(self, users: Mapping[str, tuple[Limit, ...]], lists: Mapping[str, tuple[Limit, ...]]) -> None:
        """From now on these limits are set for users, and for each user of lists; what has gone stays counted."""
        self._users, self._lists = users, lists
        self._limited = bool(self._everybody or self._destinations or any(users.values()) or any(lists.values()))

    def restore(self, saved: Saved) -> None:
        """What had gone before a restart; see `save`."""
        self._saved = saved

    def save(self) -> Saved:
        """What has gone, of limits of an hour or more; shorter ones are over before a restart is."""
        return {name: meter.steps() for name, meter in self._meters.items() if meter.limit.period >= HOUR and meter.total}

    def of_user(self, user: str, list_: str) -> tuple[Limit, ...]:
        """What is in force for a user."""
        if not user:
            return ()
        found = self._users.get(user)
        return self._lists.get(list_, self._everybody) if found is None else found

    def user_free_at(self, load: Load, now: float) -> float:
        """When it may go as to its user."""
        return self._free_at("user " + load.user, self.of_user(load.user, load.list), load, now)

    def destination_free_at(self, load: Load, now: float) -> float:
        """When it may go as to its destination."""
        return self._free_at("destination " + load.destination, self._destinations, load, now)

    def count(self, load: Load, now: float) -> None:
        """It goes now."""
        owners = (("user " + load.user, self.of_user(load.user, load.list)), ("destination " + load.destination, self._destinations))
        for owner, limits in owners:
            for limit in limits:
                self._meter(owner, limit).count(load.amount(limit.unit), now)
        if len(self._meters) > self._room:
            self._meters = {name: meter for name, meter in self._meters.items() if meter.free_at(meter.limit.amount, now) > now}
            self._room = max(FORGET, 2 * len(self._meters))

    def _free_at(self, owner: str, limits: tuple[Limit, ...], load: Load, now: float) -> float:
        free = now
        for limit in limits:
            free = max(free, self._meter(owner, limit).free_at(load.amount(limit.unit), now))
        return free

    def _meter(self, owner: str, limit: Limit) -> Meter:
        name = f"{owner} {limit.unit} {limit.period:.0f}"
        found = self._meters.get(name)
        if found is None or found.limit != limit:
            steps = found.steps() if found is not None else self._saved.pop(name, ())
            found = self._meters[name] = Meter(limit, steps)
        return found
