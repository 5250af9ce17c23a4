"""What the queue holds in memory: a message, and one entry for each destination its recipients share.

A recipient's number is its place among those the client named; it is the key of its
row and outlives restarts. A message leaves the queue when no recipient is left;
an entry is in memory only while it is ready or running (see window).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from smtpplus.mail.envelope import Content, Envelope, Recipient, queue_id
from smtpplus.queue.rows import Pending

RECIPIENT_COST = 1024  # octets: what one more recipient weighs among users who share a level


class Message:
    """One accepted message, and how many recipients of it that are in memory wait for what becomes of this attempt."""

    __slots__ = ("content", "envelope", "left", "name")

    def __init__(self, envelope: Envelope, content: Content, left: int) -> None:
        self.envelope = envelope
        self.content = content
        self.left = left
        self.name = queue_id(envelope.id)


class Entry:
    """Some recipients of one message, all of one destination, that are attempted together; `numbers` goes with `recipients`."""

    __slots__ = (
        "alone",
        "attempts",
        "cancelled",
        "cost",
        "destination",
        "due",
        "level",
        "message",
        "numbers",
        "over",
        "place",
        "rank",
        "recipients",
        "turn",
        "user",
        "warned",
    )

    def __init__(
        self,
        message: Message,
        destination: str,
        recipients: tuple[Recipient, ...],
        numbers: tuple[int, ...],
        *,
        alone: bool = True,
        attempts: int = 0,
        due: float = 0.0,
        warned: bool = False,
    ) -> None:
        self.message = message
        self.destination = destination
        self.recipients = recipients
        self.numbers = numbers
        self.alone = alone  # the message has no unsettled recipient elsewhere
        self.attempts = attempts
        self.due = due  # seconds since the epoch
        self.warned = warned  # a delay notification was sent
        self.cancelled = False  # all its recipients were taken out of the queue while an attempt was under way
        self.over = True  # no attempt is under way
        self.place = 0  # sequence under which it waits in `ready`; 0 if it does not
        self.turn: tuple[int, float, int] | None = None  # the key under which it waited in `ready` before it was taken
        self.level = message.envelope.level
        self.rank = self.level  # the level it waits at: aging makes it smaller
        self.user = message.envelope.user
        self.cost = message.envelope.size + RECIPIENT_COST * len(numbers)

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from all others in memory."""
        return self.message.envelope.id, self.destination


def entries_of(message: Message, pending: Iterable[Pending], destination_of: Callable[[str], str], now: float) -> list[Entry]:
    """The entries of a message: one for each destination of an address, and for each due time that is not over."""
    groups: dict[tuple[str, float], list[Pending]] = {}
    for each in pending:
        due = each.due if each.due > now else 0.0
        groups.setdefault((destination_of(each.recipient.address), due), []).append(each)
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


class EnvelopeIds:
    """Makes envelope ids: 43 bits of milliseconds since the epoch, 8 of the process, 12 of a counter. They only ever grow."""

    def __init__(self, process: int, now: Callable[[], float] = time.time) -> None:
        self._process = (process & 0xFF) << 12
        self._now = now
        self._last = 0

    def beyond(self, number: int) -> None:
        """Ids from now on are greater than `number`: one of a process before this, whose clock may have been ahead."""
        self._last = max(self._last, number)

    def __call__(self) -> int:
        fresh = int(self._now() * 1000) << 20 | self._process
        if fresh <= self._last:
            fresh = self._last + 1
        self._last = fresh
        return fresh
