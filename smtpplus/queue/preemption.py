"""Urgent mail stops running bulk transfers: who is stopped, by whom, for how long (A27, D1).

From the moment an urgent entry is ready (or its commit begins, see head_start) until it has run, it is a *demand*: nothing of
a lower level starts, and running transfers of a lower level stop writing. When no demand is left they go on. Both sides are bounded by
`max_pause` (default 30 s, well under the 3 minutes that a peer waits for data, RFC 5321 §4.5.3.2.5):

* a transfer is stopped at most `max_pause` in all; then it goes on for good;
* a demand stops others for at most `max_pause`; an urgent message whose own next hop is slow does not stop the house;
* who waits for a slot that none but stopped transfers have gets one: the most urgent of these goes on to its end;
* all demands together have a credit of `max_pause`, which stopping spends and free flow gives back second for second: over a long time
  urgent mail stops others at most half of it, whoever sends how much of it, to however slow a next hop.

Whoever waits for a retry, or for a destination that is closed, is no demand; the scheduler withdraws it. Nothing is stopped after its
final dot: the transfer says so itself. A rule that stops what runs (queue.rules) does it by the same account and the same bound. Where
what stops a transfer is over and something else stops it on, its account is closed and a new one begun under that name, and the
transfer notices nothing; from one urgent message to the next this is done once in HANDOVER seconds, however fast they pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from smtpplus.events import Events, Paused, Resumed
from smtpplus.mail.disposition import Transfer
from smtpplus.queue.entry import Entry
from smtpplus.queue.standing import StoppedTransfer
from smtpplus.queue.under_way import FEW, LISTED, RunningTransfer

URGENT_MAIL_SENT = "urgent mail is sent"
RULE_ENDED = "the rule has ended"
MAX_PAUSE_REACHED = "max_pause reached"
SLOT_WANTED = "urgent mail waits for its slot"
TRANSFER_ENDED = "its attempt has ended"
LOWEST = 6  # below every level: nothing is held back
BACK = 0.5  # of the whole credit must be back before urgent mail stops others again
HANDOVER = 1.0  # seconds
INSTANT = 1e-6  # seconds; sums of floats that differ by less are equal


class Running:
    """A transfer under way and the account of its stops. Times are the clock's seconds."""

    __slots__ = ("by", "cause", "entry", "pressed", "rule", "stopped_at", "stopped_for", "transfer")

    def __init__(self, entry: Entry, transfer: Transfer) -> None:
        self.entry = entry
        self.transfer = transfer
        self.rule = ""  # name of the rule that stops it
        self.cause = ""  # of its present or last stop
        self.by: Entry | None = None  # the demand that is its cause; None: a rule is
        self.pressed = False  # urgent mail waits for its slot: only a rule stops it
        self.stopped_at: float | None = None
        self.stopped_for = 0.0


class Preemption:
    """Demands on one side, running transfers on the other. Nothing here scans the demands; transfers are at most as many as connections."""

    def __init__(self, *, levels: frozenset[int], max_pause: float, clock: IReactorTime, now: Callable[[], float], events: Events) -> None:
        self._max_pause = max_pause
        self._clock = clock
        self._now = now
        self._events = events
        # For each preempting level its demands, oldest first, with the time until which each stops others.
        self._demands: dict[int, dict[Entry, float]] = {level: {} for level in sorted(levels)}
        self._running: dict[Entry, Running] = {}
        self._named: set[Entry] = set()  # demands that are the cause of a stop
        self._timer: IDelayedCall | None = None
        self._rule: Callable[[Entry], str] | None = None
        self._ended = False
        self.ceiling = LOWEST  # levels greater than this are held back
        self._credit = max_pause  # seconds for which demands may still stop others
        self._counted = clock.seconds()  # when the credit was last brought up to date
        self.spent = False  # the credit is used up; nobody is stopped before some of it is back

    def demand(self, entry: Entry, lasting: float = math.inf) -> None:
        """`entry` is ready at an open destination. Without effect for levels that do not preempt, and for one that demands already.

        It stops others for `lasting` seconds, `max_pause` at most.
        """
        demands = self._demands.get(entry.level)
        if demands is not None and entry not in demands and not self._ended:
            demands[entry] = self._clock.seconds() + min(lasting, self._max_pause)
            if entry.level < self.ceiling:
                self._settle()

    def renew(self, entry: Entry) -> None:
        """`entry` demands as if it did from now on."""
        demands = self._demands.get(entry.level)
        if demands is None or self._ended:
            return
        demands.pop(entry, None)
        demands[entry] = self._clock.seconds() + self._max_pause
        self._settle()

    def withdraw(self, entry: Entry) -> None:
        """`entry` was attempted, or cannot be now."""
        demands = self._demands.get(entry.level)
        if demands is None or demands.pop(entry, None) is None:
            return
        if not demands:
            self._settle()
        elif entry in self._named and self._timer is not None and self._timer.getTime() > self._clock.seconds() + HANDOVER:
            self._timer.reset(HANDOVER)  # the next one is named

    def preempts(self, level: int) -> bool:
        """Whether entries of that level stop others."""
        return level in self._demands

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels that stop others, highest first."""
        return tuple(self._demands)

    def demands(self, destination: str) -> list[Entry]:
        """Those that demand and go to `destination`."""
        return [entry for demands in self._demands.values() for entry in demands if entry.destination == destination]

    def began(self, entry: Entry, transfer: Transfer) -> None:
        """`transfer` runs for `entry`; it is stopped at once if urgent mail came while it was being prepared."""
        running = self._running[entry] = Running(entry, transfer)
        if self._rule is not None:
            self._apply(self._rule, running)
        if entry.level > self.ceiling or running.rule:
            self._settle()

    def ended(self, entry: Entry) -> None:
        """The transfer for `entry` is over."""
        running = self._running.pop(entry, None)
        if running is not None and running.stopped_at is not None:
            self._close(running, TRANSFER_ENDED)

    def relieve(self, starves: Callable[[str, int, int], bool], taken: int) -> None:
        """Nothing more can start. Where urgent mail waits for a slot, and all who have one are stopped, one of them goes on to its end.

        `starves` says so of a destination, the number of transfers that are stopped there, and the ceiling; `taken` is the number of
        slots in the house if they are what urgent mail waits for, else 0.
        """
        stopped = [running for running in self._running.values() if running.stopped_at is not None and not running.rule]
        by_destination: dict[str, list[Running]] = {}
        for running in stopped:
            by_destination.setdefault(running.entry.destination, []).append(running)
        starved = [those for destination, those in by_destination.items() if starves(destination, len(those), self.ceiling)]
        if not starved and 0 < taken <= len(stopped):
            starved = [stopped]
        for those in starved:
            first = min(those, key=lambda each: each.entry.level)
            first.pressed = True
            self._go(first, SLOT_WANTED)

    def obey(self, rule: Callable[[Entry], str] | None) -> None:
        """Stop the transfers for which `rule` gives the name of a rule, and let others go on. None: there are no such rules."""
        if rule is None and self._rule is None:
            return
        self._rule = rule
        for running in self._running.values():
            self._apply(rule, running)
        self._settle()

    def _apply(self, rule: Callable[[Entry], str] | None, running: Running) -> None:
        """Who is stopped by a rule stops nobody."""
        before, running.rule = running.rule, rule(running.entry) if rule is not None else ""
        if running.rule:
            self._demands.get(running.entry.level, {}).pop(running.entry, None)
        elif before:
            self.demand(running.entry)

    def running(self) -> list[Running]:
        """Every transfer under way."""
        return list(self._running.values())

    def transfers(self) -> tuple[RunningTransfer, ...]:
        """What is under way, for those who ask the database; the oldest LISTED of it."""
        return tuple(
            RunningTransfer(entry.message.name, entry.destination, entry.numbers if len(entry.numbers) <= FEW else ())
            for entry in islice(self._running, LISTED)
        )

    def stopped(self) -> list[StoppedTransfer]:
        """Every transfer that is stopped now, with what stops it."""
        return [
            StoppedTransfer(each.entry.message.name, each.entry.destination, each.entry.level, each.cause)
            for each in self._running.values()
            if each.stopped_at is not None
        ]

    def end(self) -> None:
        """Hold back nothing from now on and let every stopped transfer go on: the daemon is ending."""
        self._ended = True
        for demands in self._demands.values():
            demands.clear()
        self._rule = None
        for running in self._running.values():
            running.rule = ""
        self._settle()

    def _settle(self) -> None:
        """Make transfers agree with the demands, and wake up when the next bound is reached."""
        now = self._clock.seconds()
        bounds: list[float] = [self._account(now)]
        self.ceiling = LOWEST
        for level, demands in self._demands.items():
            while demands:
                oldest, until = next(iter(demands.items()))
                if until > now + INSTANT:
                    if not self.spent:
                        self.ceiling = min(self.ceiling, level)
                    bounds.append(until)
                    break
                del demands[oldest]
        self._named.clear()
        for running in list(self._running.values()):
            held = bool(running.rule) or (running.entry.level > self.ceiling and not running.pressed)
            if running.stopped_at is not None and running.stopped_for + now - running.stopped_at >= self._max_pause - INSTANT:
                self._go(running, MAX_PAUSE_REACHED)
            elif running.stopped_at is not None and not held:
                self._go(running, self._over(running))
            elif running.stopped_at is not None and not self._lasts(running):
                self._close(running, self._over(running))
                self._open(running)
            elif running.stopped_at is None and held:
                self._stop(running)
            if running.stopped_at is not None:
                bounds.append(running.stopped_at + self._max_pause - running.stopped_for)
                if running.by is not None:
                    self._named.add(running.by)
        if self._timer is not None:
            self._timer.cancel()
        due = min(bounds) if self.ceiling < LOWEST or len(bounds) > 1 else math.inf
        self._timer = self._clock.callLater(max(0.0, due - now), self._bound_reached) if due < math.inf else None

    def _account(self, now: float) -> float:
        """Bring the credit up to date: stopping others spends it, second for second, and every second of free flow gives one back. Returns
        when it is spent, or when enough is back."""
        passed = now - self._counted
        self._counted = now
        self._credit = min(self._max_pause, self._credit + (passed if self.ceiling == LOWEST else -passed))
        if self._credit <= INSTANT:
            self.spent = True
        elif self._credit >= self._max_pause * BACK - INSTANT:
            self.spent = False
        return now + (self._max_pause * BACK - self._credit if self.spent else self._credit)

    def _bound_reached(self) -> None:
        self._timer = None
        self._settle()

    def _stop(self, running: Running) -> None:
        if running.stopped_for < self._max_pause and running.transfer.stop():
            self._open(running)

    def _lasts(self, running: Running) -> bool:
        """Whether what stops it is there still."""
        return running.by in self._demands[running.by.level] if running.by is not None else running.rule == running.cause

    def _over(self, running: Running) -> str:
        return URGENT_MAIL_SENT if running.by is not None else RULE_ENDED

    def _open(self, running: Running) -> None:
        """Begin the account of a stop."""
        running.stopped_at = self._clock.seconds()
        running.by = None if running.rule else next(entry for demands in self._demands.values() for entry in demands)
        running.cause = running.rule if running.by is None else running.by.message.name
        self._events.state(Paused(self._now(), running.entry.message.name, running.entry.destination, running.cause))

    def _go(self, running: Running, why: str) -> None:
        self._close(running, why)
        running.transfer.go()

    def _close(self, running: Running, why: str) -> None:
        """End the account of a stop."""
        assert running.stopped_at is not None
        stopped = self._clock.seconds() - running.stopped_at
        running.stopped_at = None
        running.stopped_for = self._max_pause if why == MAX_PAUSE_REACHED else min(self._max_pause, running.stopped_for + stopped)
        self._events.state(Resumed(self._now(), running.entry.message.name, running.entry.destination, stopped, why))
