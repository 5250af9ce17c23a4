"""Rates and quotas: how much mail of one user, of one list, or to one destination, goes in a minute, hour or day (C7). Pure arithmetic.

A limit is kept by a window that slides in SLOTS steps: in no span of the period that begins with a step does more go than the amount.
What is over it is not refused: it is told when it may go, and whoever asks again then is let through in turn. An amount larger than
the whole limit goes when nothing else has gone for a period. A clock that is set back forgets what lies in its future.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

SLOTS = 20  # steps of a period: a limit per minute is looked at in steps of 3 seconds
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0  # seconds
FORGET = 1024  # meters known before those that have counted nothing lately are dropped

Unit = Literal["recipients", "octets"]
Owner = Literal["user", "list", "destination"]
Saved = dict[str, list[tuple[float, int]]]  # by meter: beginning of a step, and what went in it


class Limit(msgspec.Struct, frozen=True):
    """So much in a period of so many seconds."""

    amount: int
    period: float
    unit: Unit = "recipients"

    def __str__(self) -> str:
        """For people: "60 recipients a minute"."""
        return f"{self.amount} {self.unit} {_PERIODS.get(self.period) or f'in {self.period:.0f} seconds'}"


_PERIODS = {MINUTE: "a minute", HOUR: "an hour", DAY: "a day"}
Limits = tuple[Limit, ...]  # all of them hold; at most one for a period and unit


class Terms(msgspec.Struct, frozen=True):
    """The limits that are set. The more special one counts: a user's own, else that of the list's users, else everybody's."""

    everybody: Limits = ()  # each user
    users: Mapping[str, Limits] = {}
    lists: Mapping[str, Limits] = {}  # each user of a list
    every_list: Limits = ()  # all users of a list together
    sums: Mapping[str, Limits] = {}  # all users of these lists together

    def __bool__(self) -> bool:
        """Whether any is set."""
        kinds = (self.users, self.lists, self.sums)
        return bool(self.everybody or self.every_list or any(any(found.values()) for found in kinds))


NOTHING = Terms()


class Load(msgspec.Struct, frozen=True):
    """What is to go: whose, where to, and how much."""

    user: str  # "": nobody's, which no limit of a user or a list holds
    list: str
    destination: str
    recipients: int
    octets: int

    def amount(self, unit: Unit) -> int:
        """How much of a limit it takes."""
        return self.recipients if unit == "recipients" else self.octets


class OverRate(msgspec.Struct, frozen=True):
    """A user, a list or a destination whose mail waits because a rate or quota is used up."""

    kind: Owner
    name: str
    until: float  # seconds since the epoch
    limit: str = ""  # which one, for people


def limits(amounts: Iterable[tuple[int, float, Unit]]) -> Limits:
    """Limits from amounts, seconds and units: 0 is none, and of several for one period and unit the least counts."""
    least: dict[tuple[float, Unit], int] = {}
    for amount, period, unit in amounts:
        if amount:
            least[period, unit] = min(amount, least.get((period, unit), amount))
    return tuple(Limit(amount, period, unit) for (period, unit), amount in least.items())


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

    def give_back(self, amount: int) -> None:
        """So much of what was counted last did not go."""
        while amount and self._steps:
            begun, went = self._steps.pop()
            back = min(amount, went)
            amount -= back
            self.total -= back
            if back < went:
                self._steps.append((begun, went - back))

    @property
    def _step(self) -> float:
        return self.limit.period / SLOTS

    def _slide(self, now: float) -> None:
        steps = self._steps
        while steps and steps[0][0] + self.limit.period + self._step <= now:
            self.total -= steps.popleft()[1]
        while steps and steps[-1][0] > now:
            self.total -= steps.pop()[1]

    def steps(self, now: float) -> list[tuple[float, int]]:
        """What went, step by step."""
        self._slide(now)
        return list(self._steps)


class Rates:
    """All limits and their meters. Truth is whether there is any limit."""

    def __init__(self, terms: Terms = NOTHING, destinations: Sequence[Limit] = ()) -> None:
        self._terms = terms
        self._destinations = tuple(destinations)  # each destination
        self._meters: dict[str, Meter] = {}
        self.touched: set[str] = set()  # meters that have counted, and are saved: emptied by who saves
        self._room = FORGET
        self._limited = bool(terms or destinations)

    def __bool__(self) -> bool:
        return self._limited

    def settle(self, terms: Terms) -> None:
        """From now on these limits are set; what has gone stays counted."""
        self._terms = terms
        self._limited = bool(terms or self._destinations)

    def save(self, now: float, names: Collection[str] | None = None) -> Saved:
        """What has gone, of limits of an hour or more; shorter ones are over before a restart is. Of all, or of these meters alone."""
        if names is not None:
            return {name: self._meters[name].steps(now) if name in self._meters else [] for name in names}
        long = ((name, meter.steps(now)) for name, meter in self._meters.items() if meter.limit.period >= HOUR)
        return {name: steps for name, steps in long if steps}

    def restore(self, saved: Saved, now: float) -> None:
        """What had gone before a restart; see `save`. What is not asked for is kept for the next restart."""
        for name, steps in saved.items():
            _, unit, period = name.rsplit(" ", 2)
            meter = Meter(Limit(0, float(period), "octets" if unit == "octets" else "recipients"), steps)
            if meter.steps(now):
                self._meters.setdefault(name, meter)

    def of_user(self, user: str, list_: str) -> Limits:
        """What is in force for a user."""
        if not user:
            return ()
        found = self._terms.users.get(user)
        return self._terms.lists.get(list_, self._terms.everybody) if found is None else found

    def of_list(self, user: str, list_: str) -> Limits:
        """What is in force for all users of a list together, of whom `user` is one."""
        return self._terms.sums.get(list_, self._terms.every_list) if user else ()

    def over(self, load: Load, now: float) -> OverRate | None:
        """What it has to wait for: of the limits of its user, its list and its destination the first that is used up; None: it may go."""
        for kind, name, some in self._held(load):
            free, used_up = now, ""
            for limit in some:
                until = self._meter(kind, name, limit, now).free_at(load.amount(limit.unit), now)
                if until > free:
                    free, used_up = until, str(limit)
            if used_up:
                return OverRate(kind, name, free, used_up)
        return None

    def count(self, load: Load, now: float) -> None:
        """It goes now."""
        for kind, name, some in self._held(load):
            for limit in some:
                self._meter(kind, name, limit, now, touch=True).count(load.amount(limit.unit), now)
        if len(self._meters) > self._room:
            self._meters = {name: meter for name, meter in self._meters.items() if meter.free_at(meter.limit.amount, now) > now}
            self._room = max(FORGET, 2 * len(self._meters))

    def give_back(self, load: Load, now: float) -> None:
        """What was counted as `load` did not go."""
        for kind, name, some in self._held(load):
            for limit in some:
                self._meter(kind, name, limit, now, touch=True).give_back(load.amount(limit.unit))

    def _held(self, load: Load) -> tuple[tuple[Owner, str, Limits], ...]:
        """The limits that hold it, with their owners."""
        return (
            ("user", load.user, self.of_user(load.user, load.list)),
            ("list", load.list, self.of_list(load.user, load.list)),
            ("destination", load.destination, self._destinations),
        )

    def _meter(self, kind: Owner, owner: str, limit: Limit, now: float, *, touch: bool = False) -> Meter:
        name = f"{kind} {owner} {limit.unit} {limit.period:.0f}"
        if touch and limit.period >= HOUR:
            self.touched.add(name)
        found = self._meters.get(name)
        if found is None or found.limit != limit:
            found = self._meters[name] = Meter(limit, found.steps(now) if found is not None else ())
        return found
