"""Which waiting messages are in memory: a window for each destination and level; the rest are ids.

A message that arrives when its window is full, or when others of its destination and level already wait outside, is parked: its id is
kept, its row is in the database. When a window runs low, the next ids are taken and read, those of all destinations together. What
is not yet due is in the calendar, and read when it is. So the memory of a queue grows by ids, and its start does not wait for
its length: the ids are gathered page by page, urgent ones first, while mail already flows.

Invariant: what the database holds unsettled is in exactly one of ready, running, parked, calendar, or being read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.mail.envelope import Content, Envelope
from smtpplus.queue.entry import Entry, Message
from smtpplus.queue.parking import Calendar, Parking
from smtpplus.queue.ready import Ready
from smtpplus.queue.rows import Pending, Waiting
from smtpplus.queue.spool import Spool, Stored

LOADED = 20_000  # entries in memory that wait, over all destinations: some 30 MB
LEAST, MOST = 2, 200  # entries of one destination and level
AT_ONCE = 200  # messages read by one query
PAGE = 2_000  # recipients looked at by one query at start
AGAIN = 5.0  # seconds until a read that failed is tried again
ANY = ""  # destination of a read that is for whatever is due

Wish = tuple[int, str, int]  # message id, and the window it is wanted for: destination and level, or ANY and 0


class Window:
    """The part of the queue that is in memory. `line_up` is called for each entry that comes into it."""

    _log = Logger()

    def __init__(
        self,
        *,
        spool: Spool,
        ready: Ready,
        destination: Callable[[str], str],
        line_up: Callable[[Entry], None],
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._ready = ready
        self._destination = destination
        self._line_up = line_up
        self._clock = clock
        self._now = now
        self.parking = Parking()
        self.calendar = Calendar()
        self._inside: set[tuple[int, str]] = set()  # keys of entries that are ready or running
        self._reading: Counter[tuple[str, int]] = Counter()  # windows being filled, and by how many
        self._wishes: list[Wish] = []
        self._busy = False
        self._closed = False

    # What comes in.

    def accept(self, envelope: Envelope, content: Content) -> None:
        """A message that was just committed."""
        recipients = envelope.recipients
        if len(recipients) == 1:
            message = Message(envelope, content, 1)
            self._place(Entry(message, self._destination_of(recipients[0].address), recipients, (0,), due=envelope.release_at))
            return
        pending = [Pending(index, recipient, 0, envelope.release_at, False) for index, recipient in enumerate(recipients)]
        for entry in self._entries((envelope, content, pending)):
            self._place(entry)

    def pick_up(self, numbers: Iterable[int]) -> None:
        """Messages that came, or came due, without passing through here."""
        self._wishes += [(number, ANY, 0) for number in numbers]
        self._read()

    def again(self, number: int, due: float) -> None:
        """A message that is to be read again when it is due."""
        self.calendar.add(due, number)

    def leave(self, entry: Entry) -> None:
        """`entry` is neither ready nor running any more."""
        self._inside.discard(entry.key)

    def look(self) -> None:
        """Read what has come due."""
        numbers = self.calendar.take(self._now(), PAGE)
        if numbers:
            self.pick_up(set(numbers))

    def refill(self, destination: str, level: int) -> None:
        """An entry has left that window: read more if it runs low."""
        if not self.parking.count:
            return
        waiting = self.parking.waiting(destination, level)
        if not waiting:
            return
        size = self.size()
        loaded = self._ready.loaded(destination, level) + self._reading[destination, level]
        if loaded * 2 > size:
            return
        numbers = self.parking.take(destination, level, size - loaded)
        self._reading[destination, level] += len(numbers)
        self._wishes += [(number, destination, level) for number in numbers]
        self._read()

    def size(self) -> int:
        """How many entries one window holds now."""
        return max(LEAST, min(MOST, LOADED // max(1, self._ready.spread())))

    def close(self) -> None:
        """Read nothing more."""
        self._closed = True

    # Start.

    @inlineCallbacks
    def gather(self, newest: int) -> Any:
        """Find what the database holds of messages older than id `newest`: urgent ones first. Fires with the number of recipients."""
        count = 0
        for urgent in (True, False):
            after, last = (0, 0), (0, "")
            while not self._closed:
                page: list[Waiting] = yield self._spool.scan(after, PAGE, urgent=urgent)
                for number, index, address, level, user, due, _, _ in page:
                    after = (number, index)
                    if number >= newest:
                        continue
                    count += 1
                    destination = self._destination_of(address)
                    if due > self._now():
                        self.calendar.add(due, number)
                    elif (number, destination) != last:
                        last = (number, destination)
                        self.parking.park(destination, level, user, number)
                        self.refill(destination, level)
                if len(page) < PAGE:
                    break
        return count

    # Inside.

    def _place(self, entry: Entry) -> None:
        """Into the window, or out to where it waits."""
        envelope = entry.message.envelope
        if entry.due > self._now():
            self.calendar.add(entry.due, envelope.id)
            self._spool.forget(entry.message.content)
            return
        destination, level = entry.destination, entry.level
        window = (destination, level)
        crowded = self._ready.loaded(destination, level) >= self.size()
        if crowded or self._reading[window] or (self.parking.count and self.parking.waiting(destination, level)):
            self.parking.park(destination, level, entry.user, envelope.id)
            self._spool.forget(entry.message.content)
            self.refill(destination, level)
            return
        self._inside.add(entry.key)
        self._line_up(entry)

    def _entries(self, stored: Stored) -> list[Entry]:
        """The entries of a message: one for each destination and due time of its unsettled recipients."""
        envelope, content, pending = stored
        groups: dict[tuple[str, float], list[Pending]] = {}
        for each in pending:
            groups.setdefault((self._destination_of(each.recipient.address), each.due), []).append(each)
        message = Message(envelope, content, len(pending))
        return [
            Entry(
                message,
                destination,
                tuple(member.recipient for member in members),
                tuple(member.number for member in members),
                alone=len(groups) == 1,
                attempts=max(member.attempts for member in members),
                due=due,
                warned=any(member.warned for member in members),
            )
            for (destination, due), members in groups.items()
        ]

    def _read(self) -> None:
        """Read what is wished for, one query at a time."""
        if self._busy or self._closed or not self._wishes:
            return
        self._busy = True
        wishes, self._wishes = self._wishes[:AT_ONCE], self._wishes[AT_ONCE:]
        fetched: Deferred[list[Stored]] = self._spool.fetch([number for number, _, _ in wishes])
        fetched.addCallbacks(self._arrived, self._not_read, callbackArgs=(wishes,), errbackArgs=(wishes,))

    def _arrived(self, found: list[Stored], wishes: list[Wish]) -> None:
        self._busy = False
        messages = {stored[0].id: stored for stored in found}
        for number, destination, level in wishes:
            if level:
                self._reading[destination, level] -= 1
            if number in messages:
                self._into(messages[number], destination)
        for _, destination, level in wishes:
            if level and self._reading[destination, level] == 0:
                del self._reading[destination, level]
                self.refill(destination, level)
        self._read()

    def _into(self, stored: Stored, destination: str) -> None:
        now = self._now()
        entries = self._entries(stored)
        if len(entries) > 1:
            self._spool.forget(stored[1])  # its destinations may be read apart: nobody would know when to let go of it
        for entry in entries:
            if destination not in (ANY, entry.destination) or entry.key in self._inside:
                continue
            if entry.due > now:
                if destination == ANY:
                    self.calendar.add(entry.due, entry.message.envelope.id)
                continue
            self._inside.add(entry.key)
            self._line_up(entry)

    def _not_read(self, failure: Failure, wishes: list[Wish]) -> None:
        self._log.failure("{count} waiting messages cannot be read; trying again", failure, count=len(wishes))
        self._wishes = wishes + self._wishes
        self._busy = False
        self._clock.callLater(AGAIN, self._read)

    def _destination_of(self, address: str) -> str:
        return self._destination(address.rpartition("@")[2])
