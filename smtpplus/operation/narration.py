"""What happened to a message, in words: one sentence for each event, and the remedy of each reason with the command that carries it out.

Pure functions over events and records; `explain` and the alerts speak with them. A kind of event that is not known here is told by its
fields, so that nothing that happened is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from smtpplus import events
from smtpplus.events import Event
from smtpplus.mail.reasons import REASONS
from smtpplus.observation.record import Life


class Decision(msgspec.Struct, frozen=True):
    """One thing that was decided or happened; `at` is seconds since the epoch."""

    at: float
    what: str  # the event's class
    text: str


def decisions(life: Life, date: Callable[[float], str]) -> list[Decision]:
    """Every decision in order."""
    told = [Decision(life.at, "Accepted", _accepted(life))] if life.accepted else []
    return told + [Decision(event.at, type(event).__name__, sentence(event, date)) for event in life.events]


def sentence(event: Event, date: Callable[[float], str]) -> str:
    """What an event says."""
    words = _WORDS.get(type(event))
    if words is not None:
        return words(event, date)
    facts = msgspec.structs.asdict(event)
    return f"{type(event).__name__}: " + ", ".join(f"{name} {value}" for name, value in facts.items() if name not in ("at", "id"))


def _accepted(life: Life) -> str:
    if not life.client and not life.user:
        return f"made here at level {life.level}, for {', '.join(life.recipients)}"
    count = len(life.recipients)
    whom = life.recipients[0] if count == 1 else f"{count} recipients"
    sender = life.sender or "the null sender"
    return f"accepted from user {life.user or '(none)'} at {life.client}: from {sender} to {whom}, level {life.level}, {life.size} octets"


def _started(event: events.Started, _: Callable[[float], str]) -> str:
    whom = event.recipients[0] if len(event.recipients) == 1 else f"{len(event.recipients)} recipients"
    return f"attempt {event.attempt} began: {whom} at {event.destination}"


def _paused(event: events.Paused, _: Callable[[float], str]) -> str:
    return f"stopped by {event.cause if event.cause.startswith('rule') else f'urgent message {event.cause}'}"


def _resumed(event: events.Resumed, _: Callable[[float], str]) -> str:
    return f"went on after {event.stopped:.1f} s: {event.why}"


def _delivered(event: events.Delivered, _: Callable[[float], str]) -> str:
    return f"{event.recipient} delivered to {event.peer or event.destination} at attempt {event.attempt}: {event.reply}"


def _deferred(event: events.Deferred, date: Callable[[float], str]) -> str:
    said = f"{event.peer} said {event.reply}" if event.peer else event.reply
    return f"{event.recipient} put off at attempt {event.attempt} until {date(event.next_attempt)}: {said}"


def _failed(event: events.Failed, _: Callable[[float], str]) -> str:
    said = f"{event.peer} said {event.reply}" if event.peer else event.reply
    return f"{event.recipient} failed for good at attempt {event.attempt}: {said}"


_WORDS: dict[type[Event], Callable[[Any, Callable[[float], str]], str]] = {
    events.Started: _started,
    events.Paused: _paused,
    events.Resumed: _resumed,
    events.Delivered: _delivered,
    events.Deferred: _deferred,
    events.Failed: _failed,
    events.WouldRefuse: lambda event, _: f"let through by alert mode; block mode would have answered {event.reply}",
    events.Lowered: lambda event, _: f"lowered from level {event.asked} to {event.level}: the budget of {event.budget} an hour is spent",
    events.Scheduled: lambda event, date: f"not to be sent before {date(event.release_at)}",
    events.Bounced: lambda event, _: f"{event.to} is told by the notification {event.dsn} ({event.kind})",
    events.Dropped: lambda event, _: f"{event.recipient} was dropped, as nobody is to be told ({event.reason})",
    events.Cancelled: lambda event, _: f"{event.recipient} was taken out of the queue by {event.who}" + _because(event.reason),
}


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def pauses(told: Sequence[Event]) -> list[tuple[str, float, int]]:
    """By whom the message was stopped: cause, seconds in all, how often. A stop that lasts counts as none yet."""
    totals: dict[str, tuple[float, int]] = {}
    running: dict[str, str] = {}  # destination: cause
    for event in told:
        if isinstance(event, events.Paused):
            running[event.destination] = event.cause
            seconds, times = totals.get(event.cause, (0.0, 0))
            totals[event.cause] = (seconds, times + 1)
        elif isinstance(event, events.Resumed):
            cause = running.pop(event.destination, "")
            seconds, times = totals.get(cause, (0.0, 1))
            totals[cause] = (seconds + event.stopped, times)
    return [(cause, seconds, times) for cause, (seconds, times) in totals.items()]


def remedy(reason: str) -> tuple[str, str]:
    """Explanation and remedy of a code of the closed list; no remedy where it needs details, which the reply has."""
    known = REASONS.get(reason)
    if known is None:
        return "", ""
    return known.explanation, "" if "{" in known.remedy else known.remedy
