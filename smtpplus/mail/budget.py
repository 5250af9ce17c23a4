"""Priority budgets: so many messages an hour that a user may send at levels 1 and 2 (D2). Pure arithmetic over times.

The hour slides: whatever hour one looks at, no more than the budget went at a preempting level. What is over it goes at level 3, is
delivered all the same, and spends nothing. Counts live in memory, a time for each message within the hour; a restart begins anew.
"""

from __future__ import annotations

from collections import deque

from smtpplus.mail.priority import NORMAL

HOUR = 3600.0  # seconds
COSTLY = 2  # levels up to this one spend
FORGET = 1024  # users known before those with nothing spent are dropped


class Budgets:
    """What each user has spent. Times are seconds since the epoch; a clock that is set back forgets what lies in its future."""

    __slots__ = ("_spent",)

    def __init__(self) -> None:
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
        return asked

    def _forget(self, now: float) -> None:
        self._spent = {user: spent for user, spent in self._spent.items() if spent and spent[-1] > now - HOUR}
