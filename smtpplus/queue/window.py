"""Which waiting messages are in memory: a window for each destination and level; the rest are ids.

A message that arrives when its window is full, or when others of its destination and level already wait outside, is parked: its id is
kept, its row is in the database. When a window runs low, the next ids are taken and read (see reading). What is not yet due is in the
calendar, and read when it is. So the memory of a queue grows by ids, and its start does not wait for its length: the ids are gathered
page by page, urgent ones first, while mail already flows.

Invariant: what the database holds unsettled is in one of ready, running, parked, calendar, held aside by a rule, or being read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from smtpplus.mail.envelope import Content, Envelope
from smtpplus.queue.aside import Aside
from smtpplus.queue.calendar import Calendar
from smtpplus.queue.entry import Entry, Message, entries_of
from smtpplus.queue.gathering import Gathering
from smtpplus.queue.inside import Inside
from smtpplus.queue.parking import Parking
from smtpplus.queue.reading import ANY, Reading
from smtpplus.queue.ready import Ready
from smtpplus.queue.rows import Pending
from smtpplus.queue.rules import Rules
from smtpplus.queue.spool import Spool, Stored

LOADED = 20_000  # entries in memory that wait, over all destinations: some 30 MB
LEAST, MOST = 2, 200  # entries of one destination and level
PAGE = 2_000  # ids taken from the calendar at once


class Window:
    """The part of the queue that is in memory. `line_up` is called for each entry that comes into it."""

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
        self.aside = Aside(destination)
        self._inside = Inside()
        self._gathering: Gathering | None = Gathering(self, spool, clock)  # None once everything is found
        self._limited: frozenset[str] = frozenset()  # users over a rate
        self._reading = Reading(spool=spool, clock=clock, fill=self._fill, came=self._came, emptied=self.refill, read=self.look)

    # What comes in.

    def accept(self, envelope: Envelope, content: Content) -> None:
        """A message that was just committed."""
        recipients = envelope.recipients
        if len(recipients) == 1:
            message = Message(envelope, content, 1)
            self._place(Entry(message, self.destination_of(recipients[0].address), recipients, (0,), due=envelope.release_at))
            return
        pending = [Pending(index, recipient, 0, envelope.release_at, False) for index, recipient in enumerate(recipients)]
        for entry in entries_of(Message(envelope, content, len(pending)), pending, self.destination_of, self._now()):
            self._place(entry)

    def alone(self, envelope: Envelope, content: Content) -> Entry | None:
        """The one entry of a message that is about to be committed; None if it has several, or waits behind others or for a rule."""
        recipients = envelope.recipients
        destination, *others = {self.destination_of(recipient.address) for recipient in recipients}
        barred = envelope.user in self.parking.shut or bool(self.aside.rules)
        if others or barred or self._ready.waits(destination, envelope.level):
            return None
        if self._gathering is not None and self._gathering.precedes(envelope.level, envelope.user):
            return None
        window = (destination, envelope.level)
        if self._reading.fills(window) or (self.parking.count and self.parking.waiting(*window)):
            return None
        return Entry(Message(envelope, content, len(recipients)), destination, recipients, tuple(range(len(recipients))))

    def begin(self, entry: Entry) -> None:
        """`entry` is under way without having waited."""
        self._inside.add(entry)

    def pick_up(self, numbers: Iterable[int]) -> None:
        """Messages that came, or came due, without passing through here."""
        self._reading.wish(numbers)

    def again(self, number: int, due: float) -> None:
        """A message that is to be read again when it is due."""
        self.calendar.add(due, number)

    def leave(self, entry: Entry) -> None:
        """`entry` is neither ready nor running any more."""
        if self._inside.remove(entry):
            self.pick_up((entry.message.envelope.id,))

    def read_anew(self, entry: Entry) -> None:
        """`entry`, which was under way, is not as the database has it."""
        self._spool.forget(entry.message.content)
        self.leave(entry)
        self.pick_up((entry.message.envelope.id,))

    def restore(self, entries: list[Entry]) -> None:
        """Entries that were to go, and could not, wait again in the places they had, unless they are held now."""
        barred: list[Entry] = []
        for entry in entries:
            if self._barred(entry):
                self.leave(entry)
                self._spool.forget(entry.message.content)
                barred.append(entry)
            elif self.aside.rules:
                self.leave(entry)
                self._enter(entry)
            else:
                self._line_up(entry)
        self._put_back(barred)

    def look(self) -> None:
        """Read what has come due, unless much is being read already."""
        if not self._reading.much:
            numbers = self.calendar.take(self._now(), PAGE)
            if numbers:
                self.pick_up(dict.fromkeys(numbers))

    def refill(self, destination: str, level: int) -> None:
        """An entry has left that window: read more if it runs low."""
        if not self._reading.filled_slowly((destination, level)):
            self._fill(destination, level, MOST)

    def _fill(self, destination: str, level: int, most: int) -> None:
        """Ask for up to `most` messages if the window runs low."""
        if not self.parking.count or level in self.aside.levels or not self.parking.waiting(destination, level):
            return
        size = self.size()
        loaded = self._ready.loaded(destination, level) + len(self._reading.of((destination, level)))
        if loaded * 2 > size:
            return
        self._reading.wish(self.parking.take(destination, level, min(size - loaded, most)), destination, level)

    def obey(self, rules: Rules) -> list[Entry]:
        """From now on these rules are in force. Returns the entries that have left memory for it; what was held by others comes back."""
        released = self.aside.obey(rules)
        self._shut(self.aside.users | self._limited)
        gone = [entry for entry in self._inside.waiting() if self._barred(entry)]
        self._let_go(gone)
        self._put_back(gone)
        if rules:
            gone += self._sift_again()
        for place, line in released:
            self.parking.join(*place, line.ids)
        for destination, level in self.parking.windows():
            self.refill(destination, level)
        return gone

    def limit(self, users: frozenset[str]) -> list[Entry]:
        """From now on nothing of these users is taken, and of others that were limited again. Returns the entries that have left memory."""
        opened = self._limited - users
        self._limited = users
        self._shut(self.aside.users | users)
        gone = self._inside.waiting(users)
        self._let_go(gone, whole=True)
        self._put_back(gone)
        for destination, level in {(entry.destination, entry.level) for entry in gone}:
            self.refill(destination, level)
        if opened:
            self._reading.open(self.parking.lines_of(opened - self.parking.shut))
        return gone

    def members(self, list_: str) -> set[str]:
        """The users of that list of whom something is in memory."""
        return self._inside.members(list_)

    def _shut(self, users: frozenset[str]) -> None:
        self.parking.close(users - self.parking.shut)
        self.parking.open(self.parking.shut - users)

    def forget(self, numbers: Collection[int]) -> tuple[list[Entry], list[Entry]]:
        """These messages have changed in the database: let go of their entries that wait, and read them again, in their order. Returns
        those that waited and those that run."""
        self.calendar.forget(numbers)
        found = self._inside.of(numbers)
        waiting, running = [entry for entry in found if entry.place], [entry for entry in found if not entry.place]
        self._let_go(waiting)
        self._put_back(waiting)
        whole = {entry.message.envelope.id for entry in waiting if entry.alone}
        self.pick_up(number for number in numbers if number not in whole)
        for destination, level in {(entry.destination, entry.level) for entry in waiting}:
            self.refill(destination, level)
        return waiting, running

    def size(self) -> int:
        """How many entries one window holds now."""
        return max(LEAST, min(MOST, LOADED // max(1, self._ready.spread())))

    def waiting(self) -> int:
        """How many wait for their turn, in memory or outside, or for the end of a rule."""
        behind = self._gathering.count if self._gathering is not None else 0
        return len(self._ready) + self.parking.count + self.parking.held + self.aside.count + behind

    def close(self) -> None:
        """Read nothing more."""
        self._reading.closed = True

    @property
    def closed(self) -> bool:
        """Whether nothing more is read."""
        return self._reading.closed

    def gather(self, newest: int) -> Deferred[int]:
        """Find what the database holds of messages older than id `newest`. Fires with the number of recipients."""

        def over(result: Any) -> Any:
            self._gathering = None
            return result

        gathering = self._gathering or Gathering(self, self._spool, self._clock)
        return gathering.run(newest, self._now()).addBoth(over)

    # Inside.

    def _place(self, entry: Entry) -> None:
        """Into the window, or out to where it waits."""
        envelope = entry.message.envelope
        if entry.due > self._now():
            self.calendar.add(entry.due, envelope.id)
            self._spool.forget(entry.message.content)
            return
        destination, level = entry.destination, entry.level
        if self._gathering is not None and self._gathering.precedes(level, entry.user):
            self._gathering.keep(destination, level, entry.user, envelope.id)
            self._spool.forget(entry.message.content)
            return
        window = (destination, level)
        crowded = self._ready.loaded(destination, level) >= self.size()
        others = self.parking.count and self.parking.waiting(destination, level)
        if crowded or self._reading.fills(window) or others or self._barred(entry):
            self.parking.park(destination, level, entry.user, envelope.id)
            self._spool.forget(entry.message.content)
            self.refill(destination, level)
            return
        self._enter(entry)

    def _enter(self, entry: Entry) -> None:
        """Into memory, unless a rule keeps it out."""
        if self.aside.rules:
            rest = self.aside.sift(entry)
            if rest is not entry:
                self._spool.forget(entry.message.content)
            if rest is None:
                return
            entry = rest
        self._inside.add(entry)
        self._line_up(entry)

    def _barred(self, entry: Entry) -> bool:
        """Whether nothing of its user or level is to be in memory."""
        return entry.user in self.parking.shut or entry.level in self.aside.levels

    def _let_go(self, entries: list[Entry], *, whole: bool = False) -> list[int]:
        """Take entries that wait out of memory; `whole`: all that wait of their users. Returns those messages that were missed: who does
        not park them reads them again."""
        self._ready.remove(entries, whole=whole)
        for entry in entries:
            self._spool.forget(entry.message.content)
        return [entry.message.envelope.id for entry in entries if self._inside.remove(entry)]

    def _put_back(self, entries: list[Entry]) -> None:
        """Park entries, in their order."""
        lines: dict[tuple[str, int, str], list[int]] = {}
        for entry in entries:
            lines.setdefault((entry.destination, entry.level, entry.user), []).append(entry.message.envelope.id)
        for (destination, level, user), numbers in lines.items():
            self.parking.join(destination, level, user, numbers)

    def _sift_again(self) -> list[Entry]:
        """Set aside what the rules hold message by message; returns what left."""
        sifted = [(entry, self.aside.sift(entry)) for entry in self._inside.waiting()]
        changed = [(entry, rest) for entry, rest in sifted if rest is not entry]
        gone = [entry for entry, _ in changed]
        missed = self._let_go(gone)
        for _, rest in changed:
            if rest is not None:
                self._inside.add(rest)
                self._line_up(rest)
        self.pick_up(missed)
        return gone

    def _came(self, found: list[tuple[Stored, str]]) -> None:
        """Messages that were asked for, each with the destination it was asked for."""
        barred: list[Entry] = []
        for stored, destination in found:
            self._into(stored, destination, barred)
        self._put_back(barred)

    def _into(self, stored: Stored, destination: str, barred: list[Entry]) -> None:
        envelope, content, pending = stored
        found = entries_of(Message(envelope, content, len(pending)), pending, self.destination_of, self._now())
        taken = [entry for entry in found if destination in (ANY, entry.destination) and self._takes(entry)]
        if len(taken) != 1:
            self._spool.forget(content)  # nobody wants it; or several do, and nobody would know when to let go of it
        for entry in taken:
            if destination != ANY and self._barred(entry):  # since it was asked for
                self._spool.forget(content)
                barred.append(entry)
            elif destination != ANY:
                self._enter(entry)
            elif entry.message.envelope.id in self._reading.of((entry.destination, entry.level)):  # it will be read again
                self._spool.forget(content)
            else:
                self._place(entry)

    def _takes(self, entry: Entry) -> bool:
        """Whether an entry that was read is to wait for its turn, and does not yet."""
        if entry.due > self._now():  # also one that was due when it was parked, if the clock was set back
            self.calendar.add(entry.due, entry.message.envelope.id)
            return False
        return not self._inside.misses(entry)

    def destination_of(self, address: str) -> str:
        """What groups mail to `address`."""
        return self._destination(address.rpartition("@")[2])
