"""One destination as the scheduler sees it: what waits for it, how much of it runs, and whether it is open.

Concurrency and death are apart: `running` against `window` says how much may go at once; `closed` says that the destination did
not answer, or wants to be left alone, and is; `held`, that a rule wants so. A blocked destination stands in nobody's way: it is not in the
outer heap of `Ready`.

Invariant: no more than the limit runs at once, whatever its level. Some of the slots are reserved: only preempting levels have them.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Sequence

from twisted.internet.interfaces import IDelayedCall

from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition
from smtpplus.queue.entry import Entry

ALIVE = 3  # attempts in a row that may fail while others run
SHARE = 5  # one slot of so many is reserved at most, but one where there are two


class Strain(enum.Enum):
    """What a destination that answers says about how much we send."""

    NONE = "none"
    SLOW = "slow"  # 4xx to every recipient, for reasons that are not theirs
    ENOUGH = "enough"  # 421: it closes the session


def strain(dispositions: Sequence[Disposition]) -> Strain:
    """What an attempt says. Address and mailbox (X.1, X.2 of RFC 3463 §3) are the recipient's business, anything else is the host's."""
    for each in dispositions:
        if each.reason != reasons.PEER_DEFERRED.code or each.reply.enhanced.startswith(("4.1.", "4.2.")):
            return Strain.NONE
    if not dispositions:
        return Strain.NONE
    return Strain.ENOUGH if any(each.reply.code == 421 for each in dispositions) else Strain.SLOW


class Destination:
    """The state of one destination; `waiting` is a heap owned by `Ready`."""

    __slots__ = (
        "_preempting",
        "closed",
        "closures",
        "failures",
        "full",
        "held",
        "listed",
        "loaded",
        "name",
        "reopening",
        "reserved",
        "running",
        "streak",
        "until",
        "waiting",
        "window",
    )

    def __init__(self, name: str, limit: int, initial: int, reserved: int, preempting: frozenset[int]) -> None:
        self.name = name
        self.reserved = min(reserved, max(1, limit // SHARE), limit - 1) if preempting else 0
        self.full = limit - self.reserved  # `limit` is what may run at once, of all levels
        self.window = min(self.full, initial)  # attempts at once, but for the reserved slots; 1 while it is tried again
        self._preempting = preempting
        self.waiting: list[tuple[tuple[int, float, int], Entry]] = []
        self.listed: tuple[int, float, int] | None = None  # key under which it is in the outer heap
        self.loaded = [0] * 6  # how many of `waiting` have the level that is the index
        self.running = 0
        self.streak = 0  # entries that went before their turn, as the one before them had just ended here
        self.closed = False  # backing off: it did not answer
        self.until = 0.0  # seconds since the epoch: when it is tried again, while it is closed
        self.reopening: IDelayedCall | None = None
        self.held = False  # a rule lets nothing start
        self.failures = 0  # attempts in a row that nobody answered
        self.closures = 0  # times in a row that it was closed for that

    def takes(self) -> bool:
        """Whether its best waiting entry may start here."""
        return self.admits(self.waiting[0][1].level)

    def admits(self, level: int) -> bool:
        """Whether an entry of that level may start here."""
        if self.closed or self.held:
            return False
        return self.running < self.window + (self.reserved if level in self._preempting else 0)

    def starves(self, stopped: int, ceiling: int) -> bool:
        """Whether preempting mail of a rank up to `ceiling` waits for a slot here, and as many attempts are `stopped` as there run."""
        if self.closed or self.held or self.running > stopped or self.top() is None:
            return False
        entry = self.waiting[0][1]
        return entry.rank <= ceiling and entry.level in self._preempting and not self.admits(entry.level)

    def top(self) -> tuple[int, float, int] | None:
        """The key of the best waiting entry; items that an entry has left behind for a better place are dropped on the way."""
        waiting = self.waiting
        while waiting:
            key, entry = waiting[0]
            if entry.place == key[2]:
                return key
            heapq.heappop(waiting)
        return None

    def idle(self) -> bool:
        """Whether nothing is known about it that is worth keeping."""
        return not self.closed and not self.failures and not self.closures

    def learn(self, reached: bool, strained: Strain = Strain.NONE) -> bool:
        """An attempt has ended; whether somebody was reached, and what was said. True if the destination is to be left alone now.

        Success widens the window by one, failure and strain halve it. One failure closes a destination where nothing else runs, ALIVE
        in a row any; 421 closes one that gets no more than one message at a time already.
        """
        if reached and strained is Strain.NONE:
            self.failures = self.closures = 0
            self.window = min(self.full, self.window + 1)
            return False
        if self.closed:
            return False
        narrow = self.window == 1
        self.window = max(1, self.window // 2)
        if reached:
            self.failures = 0
            if not (narrow and strained is Strain.ENOUGH):
                return False
        else:
            self.failures += 1
            if self.running > 1 and self.failures < ALIVE:
                return False
        self.window = 1
        self.closures += 1
        return True
