"""Attempts: an entry from the moment it has a slot until what became of it is committed, and the count of the slots.

An attempt is recorded before it begins, those that begin together in one commit. What cannot be recorded is not begun: a fault of the
database delays mail, and rows that another process has changed are looked at again. What is recorded and not begun, as the daemon ends, is
taken back. An attempt that has ended frees its slot at
once. Invariant: `active` is the number of entries between `take` and `release`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.events import Events, Fault, Started
from smtpplus.mail import reasons
from smtpplus.mail.disposition import DeliveryAgent, Disposition, Request
from smtpplus.queue import retry
from smtpplus.queue.entry import Entry
from smtpplus.queue.preemption import LOWEST, Preemption
from smtpplus.queue.reach import Reach
from smtpplus.queue.ready import Ready
from smtpplus.queue.settlement import Settlement
from smtpplus.queue.window import Window
from smtpplus.storage import writes
from smtpplus.storage.database import Database
from smtpplus.storage.statement import RowsGone


class Attempts:
    """The entries that hold a slot. `wake` is called when one is free, `rest` when the database takes nothing, `unspent` with entries whose
    attempts are not begun after all, and not counted."""

    _log = Logger()

    def __init__(
        self,
        *,
        database: Database,
        agent: DeliveryAgent,
        window: Window,
        ready: Ready,
        reach: Reach,
        preemption: Preemption,
        settlement: Settlement,
        schedule: Sequence[float],
        crowd: int,
        unspent: Callable[[Sequence[Entry]], None],
        wake: Callable[[], None],
        rest: Callable[[], None],
        clock: IReactorTime,
        now: Callable[[], float],
        events: Events,
    ) -> None:
        self._database = database
        self._agent = agent
        self._window = window
        self._ready = ready
        self._reach = reach
        self._preemption = preemption
        self._settlement = settlement
        self._schedule = schedule
        self._crowd = crowd  # entries with a slot from which on the house is crowded; see Ready.crowd
        self._unspent = unspent
        self._wake = wake
        self._rest = rest
        self._clock = clock
        self._now = now
        self._events = events
        self.active = 0
        self._ending = False
        self._drained: Deferred[None] | None = None

    def take(self) -> None:
        """An entry has a slot."""
        self.active += 1
        self._ready.crowd(self.active >= self._crowd)

    def record(self, batch: list[Entry]) -> None:
        """Begin an attempt of each, once that is recorded. Each has its slot."""
        now = self._now()
        for entry in batch:
            entry.attempts += 1
            entry.due = now + retry.delay(self._schedule, entry.attempts)
        self._write(batch, now)

    def _write(self, batch: list[Entry], now: float) -> None:
        steps = [
            (writes.RECORD_ATTEMPT, (entry.attempts, entry.due, entry.message.envelope.id, number, now))
            for entry in batch
            for number in entry.numbers
        ]
        self._database.run(steps).addCallbacks(self.launch, self._not_recorded, callbackArgs=(batch,), errbackArgs=(batch, now))

    def _not_recorded(self, failure: Failure, batch: list[Entry], now: float) -> None:
        if not failure.check(RowsGone):
            self._log.failure("attempts cannot be recorded, and are not begun", failure)
            self._events.state(Fault(self._now(), "attempts cannot be recorded; trying again"))
            for entry in batch:
                entry.attempts -= 1
                self.release(entry)
            self._unspent(batch)
            self._window.restore(batch)
            self._rest()
        elif len(batch) > 1:  # another process changed some of these; the others go on
            for entry in batch:
                self._write([entry], now)
        else:
            batch[0].attempts -= 1
            self._unspent(batch)
            self.release(batch[0])
            self._window.read_anew(batch[0])

    def put_back(self, entry: Entry) -> None:
        """Do not begin an attempt that is recorded; `entry` is as it was before, and waits its turn in the usual way."""
        entry.attempts -= 1
        self._unspent([entry])
        steps = [(writes.RECORD_ATTEMPT, (entry.attempts, 0.0, entry.message.envelope.id, number, math.inf)) for number in entry.numbers]
        undone = self._database.run(steps).addErrback(lambda _: None)  # cancelled meanwhile, or it is tried when it is due
        undone.addCallback(lambda _: self._window.read_anew(entry))
        self.release(entry)  # the last, as it may be what the end of the process waits for

    def launch(self, _: Any, batch: list[Entry]) -> None:
        """Begin attempts that are recorded."""
        for entry in batch:
            if self._ending:
                self.put_back(entry)
                continue
            envelope = entry.message.envelope
            if envelope.by_mode and self._now() >= retry.returned_at(math.inf, envelope.deliver_by, envelope.by_mode):
                late = reasons.TOO_LATE
                entry.over = False
                self._over(entry, [Disposition(recipient, late.reply(), "", late.code) for recipient in entry.recipients])
                continue
            urgent = self._preemption.preempts(entry.level)
            request = Request(envelope, entry.recipients, entry.destination, entry.message.content, entry.attempts, urgent)
            addresses = tuple(recipient.address for recipient in entry.recipients)
            self._events.state(Started(self._now(), entry.message.name, entry.destination, addresses, entry.attempts, entry.level))
            entry.over = False
            transfer = self._agent.deliver(request, partial(self._over, entry), partial(self._settlement.settle_taken, entry))
            if not entry.over:
                self._preemption.began(entry, transfer)
        if self._preemption.ceiling < LOWEST:  # what was stopped as it began may have what urgent mail waits for
            self._wake()

    def _over(self, entry: Entry, dispositions: list[Disposition]) -> None:
        """An attempt has ended. Its slot is free at once; what became of it is written in the next group commit."""
        if entry.over:
            self._log.error("an attempt for {id} ended twice", id=entry.message.name)
            return
        entry.over = True
        self._preemption.ended(entry)
        self._settlement.settle(entry, dispositions, self._settled)
        if not entry.cancelled:
            self._reach.learn(self._ready.destination(entry.destination), dispositions, ending=self._ending)
        self.release(entry)

    def _settled(self, entry: Entry, due: float | None) -> None:
        """What became of the attempt is committed; `due` is when the rest of it is tried again."""
        self._window.leave(entry)
        if due is not None:
            self._window.again(entry.message.envelope.id, due)

    def release(self, entry: Entry) -> None:
        """The slot of `entry` is free."""
        self.active -= 1
        self._ready.crowd(self.active >= self._crowd)
        self._preemption.withdraw(entry)
        self._ready.release(entry)
        self._wake()
        if self._drained is not None and not self.active:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def end(self, grace: float) -> Deferred[None]:
        """Begin nothing more; fires when no slot is taken. What still runs after `grace` seconds is abandoned."""
        self._ending = True
        drained: Deferred[None] = Deferred()
        if not self.active:
            drained.callback(None)
        else:
            self._drained = drained
            end = self._clock.callLater(grace, self._abandon)
            drained.addCallback(lambda _: end.cancel() if end.active() else None)
        return drained

    def _abandon(self) -> None:
        for running in self._preemption.running():
            running.transfer.abandon()
