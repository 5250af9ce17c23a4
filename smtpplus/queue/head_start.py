"""Urgent mail starts with its 250: its slot is taken and its first attempt recorded in the very transaction that accepts it.

While the commit is under way others are stopped already, so that the next hop's connection and the processor are free when it is done; no
second commit stands between the acceptance and the first octet to the next hop. Only a message that would be next, whatever
else waits, gets such a start: of a preempting level, for one open destination with room, within its rates, with no rule to be asked. All
others wait their turn in the usual way, and while one that has to is on its way in, so do those behind it. If the commit fails, the slot
is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smtpplus.mail.envelope import Content, Envelope
from smtpplus.queue import retry
from smtpplus.queue.entry import Entry
from smtpplus.queue.preemption import Preemption
from smtpplus.queue.ready import Ready
from smtpplus.queue.throttle import Throttle
from smtpplus.queue.window import Window

PATIENCE = 1.0  # seconds for which others are stopped before the commit is over: a disk that hangs is no reason to stop the house


class HeadStart:
    """The entries whose commit is under way. `free` says whether the house lets an entry start now. Times are seconds since the epoch."""

    def __init__(
        self,
        *,
        window: Window,
        ready: Ready,
        preemption: Preemption,
        throttle: Throttle,
        free: Callable[[Entry], bool],
        schedule: Sequence[float],
        now: Callable[[], float],
    ) -> None:
        self._window = window
        self._ready = ready
        self._preemption = preemption
        self._throttle = throttle
        self._free = free
        self._schedule = schedule
        self._now = now
        self._expected: dict[int, Entry] = {}
        self._others: set[int] = set()  # ids of urgent messages whose commit is under way, and that will wait their turn

    def expect(self, envelope: Envelope, content: Content) -> Entry | None:
        """The entry that has its slot from now on, its attempt counted and its next one due; None: the message waits its turn."""
        if envelope.release_at or not self._preemption.preempts(envelope.level):
            return None
        entry = self._window.alone(envelope, content) if not (envelope.by_mode or self._others) else None
        if entry is None or not (self._is_next(entry) and self._ready.admits(entry) and self._throttle.admits(entry)):
            self._others.add(envelope.id)
            return None
        self._ready.start(entry)
        entry.attempts = 1
        entry.due = self._now() + retry.delay(self._schedule, 1)
        self._expected[envelope.id] = entry
        self._window.begin(entry)
        self._preemption.demand(entry, PATIENCE)
        return entry

    def _is_next(self, entry: Entry) -> bool:
        """Whether there is a slot, and nobody who waits for one comes before `entry`."""
        best = self._ready.best()
        return (best is None or best.rank > entry.level) and self._free(entry)

    def take(self, envelope: Envelope) -> Entry | None:
        """What `expect` made for this message; its commit is over."""
        self._others.discard(envelope.id)
        return self._expected.pop(envelope.id, None) if self._expected else None
