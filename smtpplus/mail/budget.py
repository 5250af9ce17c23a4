"""Priority budgets: so many messages an hour that a user may send at levels 1 and 2 (D2). Pure arithmetic over times.

The hour slides: whatever hour one looks at, no more than the budget went at a preempting level. What is over it goes at level 3, is
delivered all the same, and spends nothing. Counts live in memory, a time for each message within the hour; `save` and `restore` carry
them over a restart, a little too late within their minute, so that an hour over a restart has no more than the budget either. Over a
crash it has no more than that and what was spent since the last `save`: queue.standing asks for it every second.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection

from smtpplus.mail.priority import NORMAL

HOUR = 3600.0  # seconds
COSTLY = 2  # levels up to this one spend
GRAIN = 60.0  # seconds: messages of one such step are kept over a restart as so many at the time of the last
FORGET = 1024  # users known before those with nothing spent are dropped

Saved = dict[str, list[tuple[float, int]]]  # by user: a time, seconds since the epoch, and how many messages


class Budgets:
    """What each user has spent. Times are seconds since the epoch; a clock that is set back forgets what lies in its future."""

    __slots__ = ("_spent", "touched")

    def __init__(self) -> None:
        self.touched: set[str] = set()  # users who have spent, or were given back: emptied by who saves
        self._spent: dict[str, deque[float]] = {}

    def level(self, user: str, budget: int, asked: int, now: float) -> int:
        """The level that a message of `user` gets, who asks for `asked` and may send `budget` costly ones an hour (0: any number)."""
        if asked > COSTLY or not budget:
            return asked
        spent = self._spent.get(user)
        if spent is None:
            if len(self._spent) >= FORGET:
                self._forget(now)
            spent = self._spent[user] = deque()
        while spent and spent[-1] > now:
            spent.pop()
        while spent and spent[0] <= now - HOUR:
            spent.popleft()
        if len(spent) >= budget:
            return NORMAL
        spent.append(now)
        self.touched.add(user)
        return asked

    def give_back(self, user: str, at: float) -> None:
        """A message for which one was spent at that time was not accepted after all."""
        spent = self._spent.get(user)
        if spent is not None and at in spent:
            spent.remove(at)
            self.touched.add(user)

    def save(self, now: float, names: Collection[str] | None = None) -> Saved:
        """What has been spent in the last hour: by all users, or by these alone."""
        if names is None:
            self._forget(now)
        saved: Saved = {}
        for user, spent in self._spent.items() if names is None else ((user, self._spent.get(user, ())) for user in names):
            recent = (at for at in spent if now - HOUR < at <= now)
            steps = (list(step) for _, step in itertools.groupby(recent, lambda at: at // GRAIN))
            saved[user] = [(step[-1], len(step)) for step in steps]
        return saved

    def restore(self, saved: Saved, now: float) -> None:
        """What had been spent before a restart; what was spent since then stays."""
        for user, steps in saved.items():
            before = [at for at, count in steps if now - HOUR < at <= now for _ in range(count)]
            self._spent[user] = deque(sorted([*before, *self._spent.get(user, ())]))

    def _forget(self, now: float) -> None:
        self._spent = {user: spent for user, spent in self._spent.items() if spent and spent[-1] > now - HOUR}
