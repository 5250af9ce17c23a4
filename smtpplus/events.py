"""The facts the daemon states, one class per event, and the bus that carries them to those who watch.

An event is a frozen value; stating one costs a call per observer and nothing else. Observers must not raise: one that does is
reported and the others still hear. Times are seconds since the epoch. Texts from outside are printable (mail.reply.printable).
No event has a field for a secret.
"""

from __future__ import annotations

from typing import Callable

import msgspec
from twisted.logger import Logger


class Event(msgspec.Struct, frozen=True, tag=True, tag_field="event", gc=False):  # of plain values: no cycles
    """Base of all events; in JSON the field `event` has the class's name."""

    at: float


class Connected(Event, frozen=True):
    """A client's connection was taken."""

    session: str
    client: str  # address:port
    port: int  # ours


class Disconnected(Event, frozen=True):
    """A connection ended, whoever ended it."""

    session: str
    client: str
    messages: int
    why: str


class Authenticated(Event, frozen=True):
    """A user logged in."""

    session: str
    client: str
    user: str
    mechanism: str
    tls: str  # protocol and cipher, "" without TLS


class AuthenticationFailed(Event, frozen=True):
    """A login failed."""

    session: str
    client: str
    port: int
    user: str  # of a name that nobody has only a mark, "unknown:" and ten digits, the same for the same name: it may be a password
    mechanism: str
    reason: str  # the true one, a code of mail.reasons; the client is not told
    reference: str = ""  # see Refused


class Accepted(Event, frozen=True):
    """A message for which 250 is sent: it is committed."""

    id: str  # queue ID
    session: str
    client: str
    user: str
    sender: str
    recipients: tuple[str, ...]
    level: int
    size: int
    message_id: str  # this and the subject have at most mail.header.SHOWN_LIMIT characters
    subject: str
    list: str = "default"  # the user's
    campaign: str = ""


class Refused(Event, frozen=True):
    """A command or a message answered 4xx or 5xx for a reason of the closed list."""

    session: str
    client: str
    user: str
    sender: str
    recipient: str
    reason: str
    reply: str
    reference: str = ""  # what the reply tells the client to ask for; like a queue ID


class RefusedMore(Event, frozen=True):
    """So many refusals of a session were not stated one by one, as there were too many. Stated when it ends or sends mail."""

    session: str
    client: str
    user: str
    count: int


class WouldRefuse(Event, frozen=True):
    """A sender that is not authorized, let through by `unauthorized = "alert"`: what block mode would have answered (A19)."""

    session: str
    client: str
    user: str
    sender: str  # the address that is not authorized: of the envelope, or of a header field
    reason: str
    reply: str


class Started(Event, frozen=True):
    """An attempt to deliver began: some recipients of one message that share a destination."""

    id: str
    destination: str
    recipients: tuple[str, ...]
    attempt: int
    level: int


class Paused(Event, frozen=True):
    """A running transfer stopped writing. `cause` is the queue ID of the urgent message, or the rule."""

    id: str
    destination: str
    cause: str


class Resumed(Event, frozen=True):
    """A stopped transfer goes on."""

    id: str
    destination: str
    stopped: float  # seconds this stop lasted
    why: str  # "urgent mail is sent" | "max_pause reached" | "urgent mail waits for its slot" | …


class Delivered(Event, frozen=True):
    """The next hop took the message for a recipient, or it lies in its maildir."""

    id: str
    recipient: str
    destination: str
    peer: str
    reply: str
    attempt: int
    waited: float  # seconds since acceptance
    level: int = 3


class Deferred(Event, frozen=True):
    """A recipient could not be delivered now and is tried again."""

    id: str
    recipient: str
    destination: str
    peer: str
    reply: str
    reason: str
    attempt: int
    next_attempt: float
    level: int = 3


class Failed(Event, frozen=True):
    """A recipient that will not be tried again: a permanent reply, or expired."""

    id: str
    recipient: str
    destination: str
    peer: str
    reply: str
    reason: str
    attempt: int
    level: int = 3
    user: str = ""
    list: str = ""


class Bounced(Event, frozen=True):
    """A delivery status notification was spooled for `id`."""

    id: str
    dsn: str  # queue ID of the notification
    to: str
    kind: str  # "failed" | "delayed" | "delivered"; "copy": the postmaster's of a "failed" one
    user: str = ""
    list: str = ""


class Dropped(Event, frozen=True):
    """Nobody could be told: a message with the null reverse-path failed, or wanted no notification."""

    id: str
    recipient: str
    reason: str


class Lowered(Event, frozen=True):
    """A message goes at a lower level than it asked for, because of the user's ceiling, or as the budget of the hour is spent (D2)."""

    id: str
    user: str
    asked: int
    level: int
    budget: int  # messages an hour; 0: it is the ceiling


class Scheduled(Event, frozen=True):
    """A message is not to be sent before its time (A30)."""

    id: str
    release_at: float


class Cancelled(Event, frozen=True):
    """A recipient was taken out of the queue by hand; nobody is told but those who watch."""

    id: str
    recipient: str
    who: str
    reason: str


class Rescheduled(Event, frozen=True):
    """A recipient in the queue was put off until a time by hand, or let go at once."""

    id: str
    recipient: str
    who: str
    reason: str
    due: float  # seconds since the epoch; 0: at once


class Verified(Event, frozen=True):
    """A sender of a user was verified on the web; what the command line does is not stated by the daemon."""

    user: str
    sender: str
    provenance: str  # see accounts.verification
    by: str


class Trouble(Event, frozen=True):
    """Something about the server that will stop mail, or does: seen by observation.watchdog, once a minute at most."""

    kind: str  # see observation.problems
    what: str  # what it concerns: a path, a port
    why: str
    remedy: str


class Alerted(Event, frozen=True):
    """Somebody was told about a problem, or would have been if an address were set."""

    kind: str
    list: str
    what: str
    count: int  # since the last time
    to: tuple[str, ...]


class Fault(Event, frozen=True):
    """Something of ours went wrong and was survived; `what` names the place."""

    what: str


Observer = Callable[[Event], None]


class Events:
    """The bus. Not thread-safe: events are stated on the reactor's thread."""

    _log = Logger()

    def __init__(self) -> None:
        self._observers: list[tuple[Observer, frozenset[type[Event]]]] = []
        self._concerned: dict[type[Event], list[Observer]] = {}  # by kind, as of the last subscription

    def subscribe(self, observer: Observer, *kinds: type[Event]) -> None:
        """Call `observer` with every later event, or with those of `kinds` alone."""
        self._observers.append((observer, frozenset(kinds)))
        self._concerned.clear()

    def state(self, event: Event) -> None:
        """Tell every observer that it concerns; an observer that raises is logged."""
        concerned = self._concerned.get(type(event))
        if concerned is None:
            concerned = [observer for observer, kinds in self._observers if not kinds or type(event) in kinds]
            self._concerned[type(event)] = concerned
        for observer in concerned:
            try:
                observer(event)
            except Exception:
                self._log.failure("observer {observer} failed on {event}", observer=observer, event=event)
