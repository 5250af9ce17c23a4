"""What goes next: entries from acceptance to their last disposition.

Ready entries wait in `ready` (by level, fairly between users, first in first out for one), deferred ones in a heap by due time. An
attempt is recorded, with the next one already in the future, before it begins, so that a message that brings the process down
does not do so again at once; attempts that begin together share one commit. `settlement` writes what became of them.

A fault of the database delays mail and loses none: an attempt that cannot be recorded is not begun.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.events import Events, Fault, Started
from smtpplus.mail import reasons
from smtpplus.mail.disposition import DeliveryAgent, Disposition, Request
from smtpplus.mail.envelope import Content, Envelope, Recipient
from smtpplus.mail.reply import Outcome
from smtpplus.queue import retry
from smtpplus.queue.destination import Destination
from smtpplus.queue.entry import Entry, Message
from smtpplus.queue.preemption import Preemption
from smtpplus.queue.ready import Ready
from smtpplus.queue.settlement import Settlement
from smtpplus.queue.spool import Pending, Spool
from smtpplus.storage import schema
from smtpplus.storage.database import Database

PAGE = 500  # messages loaded at once at start
LOOK = 1.0  # seconds: the clock on the wall is looked at this often, as it may be set
AGAIN = 5.0  # seconds until a fault of the database is tried again


class Scheduler:
    """Decides which entry starts when. All times but the clock's are seconds since the epoch."""

    _log = Logger()

    def __init__(
        self,
        *,
        database: Database,
        agent: DeliveryAgent,
        destination: Callable[[str], str],
        ready: Ready,
        preemption: Preemption,
        settlement: Settlement,
        schedule: Sequence[float],
        connections: int,
        reserved: int,
        clock: IReactorTime,
        now: Callable[[], float],
        events: Events,
    ) -> None:
        self._database = database
        self._agent = agent
        self._destination = destination
        self._ready = ready
        self._preemption = preemption
        self._settlement = settlement
        self._schedule = schedule
        self._connections = connections
        self._reserved = reserved
        self._clock = clock
        self._now = now
        self._events = events
        self._delayed: list[tuple[float, int, Entry]] = []
        self._sequence = 0
        self._active = 0  # entries whose attempt is being recorded or under way
        self._pumping: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None
        self._stopping = False
        self._drained: Deferred[None] | None = None

    # What comes in.

    def accepted(self, envelope: Envelope, content: Content) -> None:
        """A message is committed: line up its recipients. They start after whoever waits for the commit was told."""
        message = Message(envelope, content, len(envelope.recipients))
        recipients = envelope.recipients
        if len(recipients) == 1:
            self._line_up(Entry(message, self._destination_of(recipients[0]), recipients, (0,), due=envelope.received_at))
            return
        pending = [Pending(index, recipient, 0, envelope.received_at, False) for index, recipient in enumerate(recipients)]
        self._group(message, pending)

    @inlineCallbacks
    def load(self, spool: Spool) -> Any:
        """Line up what the database holds, page by page, oldest first; mail flows meanwhile. Fires with the number of messages."""
        after, count = 0, 0
        newest = self._settlement.new_id()  # what is accepted from now on lines itself up
        while not self._stopping:
            page = yield spool.load(after, PAGE)
            for envelope, content, pending in page:
                if envelope.id >= newest:
                    return count
                message = Message(envelope, content, len(pending))
                if pending:
                    self._group(message, pending)
                else:
                    self._settlement.retire(message)
                after, count = envelope.id, count + 1
            if len(page) < PAGE:
                break
        return count

    def _group(self, message: Message, pending: list[Pending]) -> None:
        """One entry for each destination and due time."""
        groups: dict[tuple[str, float], list[Pending]] = {}
        for each in pending:
            groups.setdefault((self._destination_of(each.recipient), each.due), []).append(each)
        for (destination, due), members in groups.items():
            recipients = tuple(member.recipient for member in members)
            numbers = tuple(member.number for member in members)
            attempts = max(member.attempts for member in members)
            warned = any(member.warned for member in members)
            self._line_up(Entry(message, destination, recipients, numbers, attempts=attempts, due=due, warned=warned))

    def _destination_of(self, recipient: Recipient) -> str:
        return self._destination(recipient.address.rpartition("@")[2])

    def _line_up(self, entry: Entry) -> None:
        if entry.due > self._now():
            self._delay(entry)
            return
        destination = self._ready.push(entry)
        if not destination.closed:
            self._preemption.demand(entry)
        self._wake()

    def _delay(self, entry: Entry) -> None:
        self._sequence += 1
        heapq.heappush(self._delayed, (entry.due, self._sequence, entry))
        if self._looking is None and not self._stopping:
            self._looking = self._clock.callLater(LOOK, self._look)

    def _look(self) -> None:
        """Line up what is due."""
        self._looking = None
        now = self._now()
        while self._delayed and self._delayed[0][0] <= now:
            self._line_up(heapq.heappop(self._delayed)[2])
        if self._delayed and not self._stopping:
            self._looking = self._clock.callLater(LOOK, self._look)

    # What goes out.

    def _wake(self) -> None:
        if self._pumping is None and not self._stopping:
            self._pumping = self._clock.callLater(0, self._pump)

    def _pump(self) -> None:
        """Start what may start."""
        self._pumping = None
        batch: list[Entry] = []
        while (entry := self._ready.best()) is not None and self._fits(entry):
            self._ready.take()
            self._active += 1
            batch.append(entry)
        if batch:
            self._record(batch)

    def _fits(self, entry: Entry) -> bool:
        """Whether the house has a slot for it: the last few are reserved for urgent mail, and nothing starts below a demand."""
        if entry.level > self._preemption.ceiling:
            return False
        return self._active < self._connections - (0 if self._preemption.preempts(entry) else self._reserved)

    def _record(self, batch: list[Entry]) -> None:
        now = self._now()
        steps = []
        for entry in batch:
            entry.attempts += 1
            entry.due = now + retry.delay(self._schedule, entry.attempts)
            for number in entry.numbers:
                steps.append((schema.RECORD_ATTEMPT, (entry.attempts, entry.due, entry.message.envelope.id, number)))
        self._database.run(steps).addCallbacks(self._launch, self._not_recorded, callbackArgs=(batch,), errbackArgs=(batch,))

    def _not_recorded(self, failure: Failure, batch: list[Entry]) -> None:
        self._log.failure("attempts cannot be recorded, and are not begun", failure)
        self._events.state(Fault(self._now(), "attempts cannot be recorded; trying again"))
        for entry in batch:
            entry.attempts -= 1
            entry.due = self._now() + AGAIN
            self._release(entry)
            self._delay(entry)

    def _launch(self, _: Any, batch: list[Entry]) -> None:
        for entry in batch:
            if self._stopping:
                entry.over = False
                reply, reason = reasons.ABANDONED.reply(), reasons.ABANDONED.code
                self._over(entry, [Disposition(recipient, reply, "", reason) for recipient in entry.recipients])
                continue
            envelope = entry.message.envelope
            request = Request(envelope, entry.recipients, entry.destination, entry.message.content, entry.attempts)
            addresses = tuple(recipient.address for recipient in entry.recipients)
            self._events.state(Started(self._now(), entry.message.name, entry.destination, addresses, entry.attempts, entry.level))
            entry.over = False
            transfer = self._agent.deliver(request, partial(self._over, entry))
            if not entry.over:
                self._preemption.began(entry, transfer)

    def _over(self, entry: Entry, dispositions: list[Disposition]) -> None:
        """An attempt has ended. Its slot is free at once; what became of it is written in the next group commit."""
        if entry.over:
            self._log.error("an attempt for {id} ended twice", id=entry.message.name)
            return
        entry.over = True
        self._preemption.ended(entry)
        remaining = self._settlement.settle(entry, dispositions)
        self._reached(self._ready.destination(entry.destination), dispositions)
        self._release(entry)
        if remaining is not None:
            self._delay(remaining)

    def _release(self, entry: Entry) -> None:
        self._active -= 1
        self._preemption.withdraw(entry)
        self._ready.release(entry)
        self._wake()
        if self._drained is not None and not self._active:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _reached(self, destination: Destination, dispositions: list[Disposition]) -> None:
        """Learn from an attempt whether the destination is alive: one that nobody reached is left alone for a while, then tried by one."""
        if not destination.learn(self._stopping or any(each.peer or each.outcome is not Outcome.DEFERRED for each in dispositions)):
            return
        destination.closed = True
        for urgent in self._preemption.demands(destination.name):
            self._preemption.withdraw(urgent)
        self._clock.callLater(retry.delay(self._schedule, destination.failures), self._reopen, destination)

    def _reopen(self, destination: Destination) -> None:
        destination.closed = False
        self._ready.offer(destination)
        if destination.waiting:
            self._preemption.demand(destination.waiting[0][1])
            self._wake()

    # The end.

    def stop(self, grace: float) -> Deferred[None]:
        """Begin nothing more; fires when what runs is over and recorded. After `grace` seconds it is abandoned and deferred."""
        self._stopping = True
        for call in (self._pumping, self._looking):
            if call is not None:
                call.cancel()
        self._pumping = self._looking = None
        self._preemption.end()
        drained: Deferred[None] = Deferred()
        if not self._active:
            drained.callback(None)
        else:
            self._drained = drained
            end = self._clock.callLater(grace, self._abandon)
            drained.addCallback(lambda _: end.cancel() if end.active() else None)
        return drained.addCallback(lambda _: self._settlement.finish())

    def _abandon(self) -> None:
        for running in self._preemption.running():
            running.transfer.abandon()

    def waiting(self) -> tuple[int, int, int]:
        """How many entries are ready, delayed, and under way."""
        return len(self._ready), len(self._delayed), self._active
