"""What happened to a message, in words: one sentence for each event, and the remedy of each reason with the command that carries it out.

Pure functions over events and records; `explain` and the alerts speak with them. A kind of event that is not known here is told by its
fields, so that nothing that happened is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from smtpplus import events
from smtpplus.events import Event
from smtpplus.mail.command_line import quoted
from smtpplus.mail.reasons import PEER_DEFERRED, PEER_REFUSED, REASONS
from smtpplus.observation.record import Life
from smtpplus.observation.story import ordered

_SAID_BY_PEER = frozenset((PEER_DEFERRED.code, PEER_REFUSED.code))  # the only reasons whose replies are the peer's own
_ENDED = "its attempt has ended"  # see queue.preemption
_CODES = re.compile(r"(\d{3} \d\.\d{1,3}\.\d{1,3}) (.+)", re.DOTALL)


class Decision(msgspec.Struct, frozen=True):
    """One thing that was decided or happened; `at` is seconds since the epoch."""

    at: float
    what: str  # the event's class
    text: str


def completed(life: Life, noted: Sequence[Event]) -> Life:
    """With what was done to a message that the history does not have yet."""
    fresh = [event for event in noted if event not in life.events]
    return msgspec.structs.replace(life, events=ordered([*life.events, *fresh])) if fresh else life


def decisions(life: Life, date: Callable[[float], str]) -> list[Decision]:
    """Every decision in order."""
    told = [Decision(life.at, "Accepted", _accepted(life))] if life.accepted else []
    return told + [Decision(event.at, type(event).__name__, sentence(event, date)) for event in life.events]


def merged(told: Sequence[Decision], more: Iterable[Decision]) -> list[Decision]:
    """Decisions in their order, with some more of which the times are known, each behind the last that is not later."""
    found = list(told)
    for each in more:
        place = next((place for place in range(len(found), 0, -1) if found[place - 1].at <= each.at), min(1, len(found)))
        found.insert(place, each)
    return found


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
    went = "was stopped for" if event.why == _ENDED else "went on after"
    return f"{went} {event.stopped:.1f} s: {event.why}"


def _delivered(event: events.Delivered, _: Callable[[float], str]) -> str:
    return f"{event.recipient} delivered to {event.peer or event.destination} at attempt {event.attempt}: {event.reply}"


def _deferred(event: events.Deferred, date: Callable[[float], str]) -> str:
    return f"{event.recipient} put off at attempt {event.attempt} until {date(event.next_attempt)}: {_answer(event)}"


def _failed(event: events.Failed, _: Callable[[float], str]) -> str:
    return f"{event.recipient} failed for good at attempt {event.attempt}: {_answer(event)}"


def _answer(event: events.Deferred | events.Failed) -> str:
    """Why: the peer's own words as such, or ours, which quote the peer if it said anything."""
    if event.reason in _SAID_BY_PEER:
        return f"{event.peer} said {event.reply}" if event.peer else event.reply
    parts = _CODES.match(event.reply)
    return f"{parts[2]} (our own verdict, {parts[1]})" if parts is not None else event.reply


_WORDS: dict[type[Event], Callable[[Any, Callable[[float], str]], str]] = {
    events.Started: _started,
    events.Paused: _paused,
    events.Resumed: _resumed,
    events.Delivered: _delivered,
    events.Deferred: _deferred,
    events.Failed: _failed,
    events.WouldRefuse: lambda event, _: f"let through by alert mode; block mode would have answered {event.reply}",
    events.Lowered: lambda event, _: f"lowered from level {event.asked} to {event.level}: {_limit(event)}",
    events.Scheduled: lambda event, date: f"not to be sent before {date(event.release_at)}",
    events.Bounced: lambda event, _: f"{event.to} is told by the notification {event.dsn} ({event.kind})",
    events.Dropped: lambda event, _: f"{event.recipient} was dropped, as nobody is to be told ({event.reason})",
    events.Rescheduled: lambda event, date: (
        f"{event.recipient} was {f'put off until {date(event.due)}' if event.due else 'let go at once'} by {event.who}"
        + _because(event.reason)
    ),
    events.Cancelled: lambda event, _: f"{event.recipient} was taken out of the queue by {event.who}" + _because(event.reason),
}


def _limit(event: events.Lowered) -> str:
    if event.budget:
        return f"the budget of {event.budget} an hour is spent"
    told = f"mail of user {event.user} may have no higher one"
    return f"{told}; smtpplus user edit --ceiling {event.asked} {quoted(event.user)} allows it to later mail"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


class FirstWait(msgspec.Struct, frozen=True):
    """How long a message waited for its first attempt, or waits: `seconds` `since` it was accepted or, if it was `scheduled`, due."""

    since: float
    seconds: float
    attempted: bool
    scheduled: bool


def first_wait(life: Life, now: float | None) -> FirstWait | None:
    """See FirstWait; `now` if it waits still. None if it was never attempted, is not due yet, or its acceptance is not known. An attempt
    that took less than a second is told by its end alone, and begun then as far as anybody knows."""
    if not life.accepted:
        return None
    tried = (events.Started, events.Delivered, events.Deferred, events.Failed)
    begun = next((event.at for event in life.events if isinstance(event, tried) and event.attempt), now)
    if begun is None:
        return None
    due = [event for event in life.events if isinstance(event, (events.Scheduled, events.Rescheduled)) and event.at <= begun]
    last = due[-1] if due else None
    release = 0.0 if last is None else last.release_at if isinstance(last, events.Scheduled) else last.due
    since = max(life.at, release)
    attempted = any(isinstance(event, tried) and event.attempt for event in life.events)
    return FirstWait(since, begun - since, attempted, since > life.at) if begun >= since else None


class Pause(msgspec.Struct):
    """How long, and how often, a message was stopped by one cause; `since` is when a stop that lasts began, 0 if none does. Of those that
    the end of the daemon `cut` off nobody knows how long they lasted, and their seconds are not added up."""

    cause: str
    seconds: float = 0.0
    times: int = 0
    since: float = 0.0
    cut: int = 0


def pauses(told: Sequence[Event], now: float, since: float = 0.0) -> list[Pause]:
    """By whom the message was stopped. A stop that lasts counts up to `now`; one of before `since`, when the daemon began, is over."""
    totals: dict[str, Pause] = {}
    running: dict[str, events.Paused] = {}  # by destination
    for event in told:
        if isinstance(event, events.Paused):
            running[event.destination] = event
            totals.setdefault(event.cause, Pause(event.cause)).times += 1
        elif isinstance(event, events.Resumed):
            paused = running.pop(event.destination, None)
            if paused is not None:
                totals[paused.cause].seconds += event.stopped
        elif isinstance(event, (events.Started, *_OUTCOMES)):
            paused = running.pop(event.destination, None)
            if paused is not None:  # whose end nobody stated
                totals[paused.cause].cut += 1
    for paused in running.values():
        if paused.at < since:
            totals[paused.cause].cut += 1
            continue
        totals[paused.cause].seconds += max(0.0, now - paused.at)
        totals[paused.cause].since = paused.at
    return list(totals.values())


def stopped_until(told: Sequence[Event], max_pause: float) -> dict[str, float]:
    """By destination: by when a transfer that is stopped goes on at the latest, as it is stopped at most `max_pause` in all."""
    before: dict[str, float] = {}
    since: dict[str, float] = {}
    for event in told:
        if isinstance(event, events.Paused):
            since[event.destination] = event.at
        elif isinstance(event, events.Resumed):
            since.pop(event.destination, None)
            before[event.destination] = before.get(event.destination, 0.0) + event.stopped
        elif isinstance(event, (events.Started, *_OUTCOMES)):  # the next attempt has an account of its own
            since.pop(event.destination, None)
            before.pop(event.destination, None)
    return {place: at + max(0.0, max_pause - before.get(place, 0.0)) for place, at in since.items()}


def under_way(told: Sequence[Event], since: float) -> set[str]:
    """The recipients of attempts that began after `since`, and whose end nobody stated."""
    found: set[str] = set()
    for event in told:
        if isinstance(event, events.Started) and event.at >= since:
            found.update(event.recipients)
        elif isinstance(event, (*_OUTCOMES, events.Cancelled)):
            found.discard(event.recipient)
    return found


_OUTCOMES = (events.Delivered, events.Deferred, events.Failed)


def remedy(reason: str) -> tuple[str, str]:
    """Explanation and remedy of a code of the closed list; no remedy where it needs details, which the reply has."""
    known = REASONS.get(reason)
    if known is None:
        return "", ""
    return known.explanation, "" if "{" in known.remedy else known.remedy
