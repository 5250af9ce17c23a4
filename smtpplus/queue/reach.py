"""Which destinations take mail now: those that did not answer are left alone for a while, those that a rule or a rate holds wait.

A destination that nobody reached is closed, and tried by one attempt when its time has come; what it kept waiting demands nothing from
others meanwhile (see preemption). Nothing here looks at more than one destination, except when rules or rates change.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter

from twisted.internet.interfaces import IReactorTime

from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.reply import Outcome
from smtpplus.queue import retry
from smtpplus.queue.destination import Destination, strain
from smtpplus.queue.preemption import Preemption
from smtpplus.queue.ready import Ready
from smtpplus.queue.standing import SHOWN, BackingOff, Crowded

SILENT = frozenset({reasons.CONNECTION_TIMED_OUT.code})
OURS = frozenset(  # where nobody was asked: of the message or of us, and not of its destination
    reason.code for reason in (reasons.CONTENT_LOST, reasons.UNEXPECTED, reasons.ABANDONED, reasons.TOO_LATE, reasons.PEER_LACKS_REQUIRETLS)
)


class Reach:
    """Opens and closes destinations. `stopped` says whether nothing at all may start; `wake` is called when something may."""

    def __init__(
        self,
        *,
        ready: Ready,
        preemption: Preemption,
        schedule: Sequence[float],
        stopped: Callable[[], bool],
        wake: Callable[[], None],
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self._ready = ready
        self._preemption = preemption
        self._schedule = schedule
        self._stopped = stopped
        self._wake = wake
        self._clock = clock
        self._now = now

    def takes(self, destination: Destination) -> bool:
        """Whether mail to `destination` could start if there is a slot."""
        return not (destination.closed or destination.held or self._stopped())

    def learn(self, destination: Destination, dispositions: list[Disposition], *, ending: bool) -> None:
        """An attempt has ended: one that nobody reached closes its destination. At the `ending` of the daemon nothing is closed.

        What ended before anybody was asked, for reasons of ours, says nothing either way.
        """
        telling = [each for each in dispositions if each.peer or each.reason not in OURS]
        if not telling or not destination.learn(ending or any(map(_answered, telling)), strain(telling)):
            return
        destination.closed = True
        self.demand(destination)
        wait = retry.delay(self._schedule, destination.closures)
        destination.until = self._now() + wait
        destination.reopening = self._clock.callLater(wait, self._try_again, destination)

    def retry(self, names: Collection[str]) -> None:
        """Try these destinations now, if they are closed."""
        for destination in filter(None, map(self._ready.known, names)):
            if destination.closed:
                self._reopen(destination)

    def hold(self, names: frozenset[str]) -> None:
        """From now on nothing starts at these destinations, and things start again at those held before."""
        changed = self._ready.held ^ names
        self._ready.hold(names)
        for destination in filter(None, map(self._ready.known, changed)):
            self.demand(destination)

    def demand_all(self) -> None:
        """What `stopped` says has changed."""
        for destination in self._ready.destinations():
            self.demand(destination)

    def demand(self, destination: Destination) -> None:
        """Let what waits there demand, or demand no more, as the destination stands now. What runs there is not concerned."""
        if self.takes(destination):
            for key, entry in destination.waiting:
                if entry.place == key[2]:
                    self._preemption.demand(entry)
        else:
            for urgent in self._preemption.demands(destination.name):
                if urgent.place:
                    self._preemption.withdraw(urgent)

    def backing_off(self) -> tuple[int, tuple[BackingOff, ...]]:
        """How many destinations are closed, and some of them."""
        closed = [each for each in self._ready.destinations() if each.closed]
        return len(closed), tuple(BackingOff(each.name, each.until, each.failures, sum(each.loaded)) for each in closed[:SHOWN])

    def crowded(self) -> tuple[Crowded, ...]:
        """The destinations at which attempts are under way and for which mail waits: some, those for which most does."""
        found = (each for each in self._ready.destinations() if each.running and each.waiting and not each.closed)
        told = (Crowded(each.name, each.running, each.window, each.full, each.reserved, sum(each.loaded)) for each in found)
        return tuple(heapq.nlargest(SHOWN, (each for each in told if each.waiting), key=attrgetter("waiting")))

    def _try_again(self, destination: Destination) -> None:
        if destination.top() is None and not destination.running:  # there is nothing to try it with: it is forgotten
            destination.failures = destination.closures = 0
        self._reopen(destination)

    def _reopen(self, destination: Destination) -> None:
        if destination.reopening is not None and destination.reopening.active():
            destination.reopening.cancel()
        destination.reopening = None
        destination.closed = False
        self._ready.offer(destination)
        self.demand(destination)
        self._wake()


def _answered(disposition: Disposition) -> bool:
    """Whether somebody spoke to us: a peer that lets us wait until we give up is as good as none."""
    return (bool(disposition.peer) and disposition.reason not in SILENT) or disposition.outcome is not Outcome.DEFERRED
