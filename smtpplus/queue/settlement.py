"""What an attempt's dispositions mean for the queue: delivered, tried again, or told to the sender.

A final failure and the notification about it are one transaction; so are a delay and its warning. A recipient that is settled is
deleted, and the message with its last recipient. If the database cannot write now, the same write is tried again until it can:
a delivery that is not recorded would be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress

import msgspec
from twisted.internet.defer import Deferred as Waiting
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.events import Bounced, Deferred, Delivered, Dropped, Events, Failed, Fault
from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import Envelope, queue_id
from smtpplus.mail.reply import Outcome
from smtpplus.queue import retry
from smtpplus.queue.aside import facts_of
from smtpplus.queue.bounce import Kind, Notifier, traced, wanted
from smtpplus.queue.entry import Entry, Message
from smtpplus.queue.rules import Rules
from smtpplus.queue.shelf import Steps
from smtpplus.queue.spool import Spool
from smtpplus.storage import writes
from smtpplus.storage.database import Database

AGAIN = 5.0  # seconds until a failed write is tried again

Settled = list[tuple[int, Disposition]]
Committed = Callable[[Entry, float | None], None]


class Notice(msgspec.Struct, frozen=True):
    """One notification to be composed; `until` is when a delayed message is given up, `to` who has a copy in the sender's place."""

    kind: Kind
    dispositions: list[Disposition]
    until: float | None = None
    to: str = ""


Composed = tuple[Envelope, bytes, Notice]


class Settlement:
    """Turns dispositions into rows, events and notifications. Times are seconds since the epoch."""

    _log = Logger()

    def __init__(
        self,
        *,
        database: Database,
        spool: Spool,
        notifier: Notifier,
        warn_after: float,
        lifetime: float,
        new_id: Callable[[], int],
        clock: IReactorTime,
        now: Callable[[], float],
        events: Events,
    ) -> None:
        self._database = database
        self._spool = spool
        self._notifier = notifier
        self._warn_after = warn_after  # 0: never
        self._lifetime = lifetime
        self.new_id = new_id
        self.rules = Rules()  # the time that they held a message is added to its lifetime
        self._clock = clock
        self._now = now
        self._events = events
        self._unwritten = 0  # attempts whose record is not yet committed
        self._finishing: Waiting[None] | None = None

    def finish(self) -> Waiting[None]:
        """Fires when everything settled so far is committed; a write that fails from now on is not tried again."""
        self._finishing = Waiting()
        if not self._unwritten:
            self._finishing.callback(None)
        return self._finishing

    def settle(self, entry: Entry, dispositions: Sequence[Disposition], committed: Committed) -> None:
        """Record an attempt that has ended, then call `committed` with the entry and when its rest is due, None without one."""
        now = self._now()
        envelope = entry.message.envelope
        done: Settled = []
        failed: Settled = []
        later: Settled = []
        begun = max(envelope.received_at, envelope.release_at)
        held = self.rules.held(facts_of(entry), begun, now) if self.rules.ever else 0.0
        end = retry.ends_at(begun, self._lifetime, held)
        if envelope.by_mode:
            end = retry.returned_at(end, envelope.deliver_by, envelope.by_mode)
        for number, disposition in _matched(entry, dispositions):
            outcome = disposition.outcome
            if outcome is Outcome.DONE:
                done.append((number, disposition))
            elif entry.cancelled:
                entry.message.left -= 1
            elif outcome is Outcome.FAILED:
                failed.append((number, disposition))
            elif disposition.reason != reasons.ABANDONED.code and now >= end:
                failed.append((number, _given_up(disposition)))
            else:
                later.append((number, disposition))
        steps: Steps = []
        notices: list[Notice] = []
        if done:
            self._delivered(entry, done, notices, now)
        if failed:
            self._failed(entry, failed, notices, now)
        due = self._later(entry, later, notices, steps, now=now, end=end) if later else None
        message = entry.message
        message.left -= len(done) + len(failed) + len(later)
        if entry.alone and due is None:
            steps += _removal(message)
        else:
            steps += [(writes.DELETE_RECIPIENT, (envelope.id, number)) for number, _ in done + failed]
            if not entry.alone and due is None:
                steps += _removal_if_last(message)
        self._unwritten += 1
        self._compose(message, notices, steps, [], lambda: committed(entry, due))

    def settle_taken(self, entry: Entry, dispositions: Sequence[Disposition]) -> None:
        """Record who has the message already, while the attempt goes on for the others: a crash then does not send it to them again."""
        found = _found(entry, dispositions)
        unsettled = [disposition is None for _, disposition in found]
        done = [(number, disposition) for number, disposition in found if disposition is not None]
        entry.recipients = tuple(compress(entry.recipients, unsettled))
        entry.numbers = tuple(compress(entry.numbers, unsettled))
        notices: list[Notice] = []
        self._delivered(entry, done, notices, self._now())
        entry.message.left -= len(done)
        self._unwritten += 1
        steps: Steps = [(writes.DELETE_RECIPIENT, (entry.message.envelope.id, number)) for number, _ in done]
        steps += _removal_if_last(entry.message)  # the others may have been cancelled
        self._compose(entry.message, notices, steps, [], lambda: None)

    def _delivered(self, entry: Entry, done: Settled, notices: list[Notice], now: float) -> None:
        envelope = entry.message.envelope
        for _, disposition in done:
            address, waited = disposition.recipient.address, now - envelope.received_at
            name, reply = entry.message.name, str(disposition.reply)
            facts = (now, name, address, entry.destination, disposition.peer, reply, entry.attempts, waited, entry.level)
            self._events.state(Delivered(*facts))
        asked = [
            disposition
            for _, disposition in done
            if (not disposition.passed_on and wanted("delivered", envelope.sender, disposition.recipient)) or traced(envelope, disposition)
        ]
        if asked:
            notices.append(Notice("delivered", asked))

    def _failed(self, entry: Entry, failed: Settled, notices: list[Notice], now: float) -> None:
        envelope, name = entry.message.envelope, entry.message.name
        told: list[Disposition] = []
        for _, disposition in failed:
            address, reply = disposition.recipient.address, str(disposition.reply)
            facts = (now, name, address, entry.destination, disposition.peer, reply, disposition.reason, entry.attempts, entry.level)
            self._events.state(Failed(*facts, envelope.user, envelope.list))
            if wanted("failed", envelope.sender, disposition.recipient):
                told.append(disposition)
            else:
                self._events.state(Dropped(now, name, address, disposition.reason))
        if told:
            notices.append(Notice("failed", told))
            if self._notifier.postmaster not in ("", envelope.sender):
                notices.append(Notice("failed", told, to=self._notifier.postmaster))

    def _later(self, entry: Entry, later: Settled, notices: list[Notice], steps: Steps, *, now: float, end: float) -> float:
        """What is tried again; `end` is when it will be given up. Returns when it is due."""
        envelope = entry.message.envelope
        abandoned = all(disposition.reason == reasons.ABANDONED.code for _, disposition in later)
        due = now if abandoned else max(now, min(entry.due, end))
        warned: list[Disposition] = []
        warned_at = retry.warned_at(max(envelope.received_at, envelope.release_at), self._warn_after, envelope.deliver_by, envelope.by_mode)
        if envelope.by_mode and now < warned_at < due:
            due = warned_at
        if not entry.warned and now >= warned_at:
            entry.warned = True
            warned = [disposition for _, disposition in later if wanted("delayed", envelope.sender, disposition.recipient)]
        for number, disposition in later:
            reply = str(disposition.reply)
            steps.append((writes.RECORD_DEFERRAL, (due, reply, entry.warned, envelope.id, number)))
            self._events.state(
                Deferred(
                    now,
                    entry.message.name,
                    disposition.recipient.address,
                    entry.destination,
                    disposition.peer,
                    reply,
                    disposition.reason,
                    entry.attempts,
                    due,
                    entry.level,
                )
            )
        if warned:
            notices.append(Notice("delayed", warned, end))
        return due

    def _compose(
        self, message: Message, notices: list[Notice], steps: Steps, composed: list[Composed], committed: Callable[[], None]
    ) -> None:
        """Compose what is to be told, one after the other, and write everything at once."""
        if len(composed) < len(notices):
            notice = notices[len(composed)]

            def add(envelope: Envelope, octets: bytes) -> None:
                self._compose(message, notices, steps, [*composed, (envelope, octets, notice)], committed)

            envelope = message.envelope
            self._notifier.compose(notice.kind, envelope, message.content, notice.dispositions, add, until=notice.until, to=notice.to)
            return
        for envelope, octets, _ in composed:
            steps = self._spool.steps(envelope, octets) + steps

        def written() -> None:
            if not message.left:
                self._spool.forget(message.content)
            if message.content.chunks > 1:
                self._spool.gone((message.envelope.id,))
            committed()
            for envelope, octets, notice in composed:
                to = envelope.recipients[0].address
                about, kind = message.envelope, "copy" if notice.to else notice.kind
                self._events.state(Bounced(self._now(), message.name, queue_id(envelope.id), to, kind, about.user, about.list))
                self._spool.committed(envelope, octets)

        self._write(steps, written)

    def _write(self, steps: Steps, written: Callable[[], None]) -> None:
        def failed(failure: Failure) -> None:
            self._log.failure("what became of a message cannot be recorded", failure)
            self._events.state(Fault(self._now(), "what became of a message cannot be recorded; trying again"))
            if self._finishing is None:
                self._clock.callLater(AGAIN, self._write, steps, written)
            else:
                self._count()

        def done(_: object) -> None:
            written()
            self._count()

        self._database.run(steps).addCallbacks(done, failed)

    def _count(self) -> None:
        self._unwritten -= 1
        if self._finishing is not None and not self._unwritten and not self._finishing.called:
            self._finishing.callback(None)


def _removal(message: Message) -> Steps:
    key = (message.envelope.id,)
    steps: Steps = [(writes.DELETE_RECIPIENTS, key), (writes.DELETE_MESSAGE, key)]
    if message.content.chunks > 1:
        steps.append((writes.DELETE_CHUNKS, key))
    return steps


def _removal_if_last(message: Message) -> Steps:
    """Other recipients of the message may be unsettled; whether they are is known in the database alone."""
    key = (message.envelope.id,)
    steps: Steps = [(writes.REMOVE_IF_SETTLED, key)]
    if message.content.chunks > 1:
        steps.append((writes.REMOVE_CHUNKS_IF_SETTLED, key))
    return steps


def _matched(entry: Entry, dispositions: Sequence[Disposition]) -> Settled:
    """Each recipient's number with its disposition; a recipient that the agent forgot is tried again."""
    if len(entry.numbers) == 1 and len(dispositions) == 1:
        return [(entry.numbers[0], dispositions[0])]
    missing = reasons.UNEXPECTED
    return [
        (number, disposition or Disposition(recipient, missing.reply(), "", missing.code))
        for (number, disposition), recipient in zip(_found(entry, dispositions), entry.recipients, strict=True)
    ]


def _found(entry: Entry, dispositions: Sequence[Disposition]) -> list[tuple[int, Disposition | None]]:
    """Each recipient's number with its disposition, if there is one among these."""
    left = list(dispositions)
    found: list[tuple[int, Disposition | None]] = []
    for number, recipient in zip(entry.numbers, entry.recipients, strict=True):
        index = next((index for index, each in enumerate(left) if each.recipient == recipient), None)
        found.append((number, None if index is None else left.pop(index)))
    return found


def _given_up(disposition: Disposition) -> Disposition:
    """The last temporary failure, made final because the message is too old."""
    expired = reasons.EXPIRED
    reply, told = (expired.reply(cause=str(each)) for each in (disposition.reply, disposition.said))
    return Disposition(disposition.recipient, reply, disposition.peer, expired.code, told=told)
