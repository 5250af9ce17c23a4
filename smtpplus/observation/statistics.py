"""Sums over the history by list, user, sender, subject, its pattern, campaign, destination, day or level: exact, whatever is left out.

A message is counted under one key, and what became of its recipients with it (under the day of its acceptance, whenever it ended). By
`destination` each recipient's outcome is counted where it was tried, and a message once for each destination. Past `top` keys the
rest is one row, so that the rows always add up to what was counted. Pure but for reading.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, get_args

import msgspec

from smtpplus import events
from smtpplus.observation.record import Life, Refusal

By = Literal["list", "user", "sender", "subject", "subject-pattern", "campaign", "destination", "day", "level"]
DIMENSIONS: tuple[By, ...] = get_args(By)
OTHERS = "(others)"
_DIGITS = re.compile(r"\d+")


class Sums(msgspec.Struct):
    """What was counted under one key. `deferred` counts each time a recipient was put off; the other outcomes are final."""

    messages: int = 0
    recipients: int = 0
    octets: int = 0
    delivered: int = 0
    deferred: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0

    def add(self, other: Sums) -> None:
        """Count `other` too."""
        for name in FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


FIELDS: tuple[str, ...] = Sums.__struct_fields__
_OUTCOMES: dict[type[events.Event], str] = {
    events.Delivered: "delivered",
    events.Deferred: "deferred",
    events.Failed: "failed",
    events.Cancelled: "cancelled",
}


def pattern(subject: str) -> str:
    """A subject with its numbers folded, so that "Ticket 17 solved" and "Ticket 4 solved" are one (C12)."""
    return _DIGITS.sub("[n]", subject)


def day(at: float) -> str:
    """The local day of a time."""
    return time.strftime("%Y-%m-%d", time.localtime(at))


_KEYS: dict[By, Callable[[Life], str]] = {
    "list": lambda life: life.list,
    "user": lambda life: life.user,
    "sender": lambda life: life.sender,
    "subject": lambda life: life.subject,
    "subject-pattern": lambda life: pattern(life.subject),
    "campaign": lambda life: life.campaign,
    "day": lambda life: day(life.at),
    "level": lambda life: str(life.level),
}


def count(by: By, lives: Iterable[Life], refusals: Iterable[Refusal], lists: Mapping[str, str]) -> dict[str, Sums]:
    """Sums by key; `lists` has the list of each user, for refusals. Refusals count where they have such a key: list, user, sender, day."""
    found: dict[str, Sums] = {}
    for life in lives:
        for key, sums in _counted(by, life):
            found.setdefault(key, Sums()).add(sums)
    for refusal in refusals:
        under = _refused_under(by, refusal, lists)
        if under is not None:
            found.setdefault(under, Sums()).refused += refusal.count
    return found


def _counted(by: By, life: Life) -> Iterator[tuple[str, Sums]]:
    if by == "destination":
        places: dict[str, Sums] = {}
        final: dict[str, set[str]] = {}
        for event in life.events:
            place = getattr(event, "destination", None)
            outcome = _OUTCOMES.get(type(event))
            if place is not None and outcome is not None:
                sums = places.setdefault(place, Sums(messages=1, octets=life.size))
                setattr(sums, outcome, getattr(sums, outcome) + 1)
                final.setdefault(place, set()).add(getattr(event, "recipient", ""))
        for place, sums in places.items():
            sums.recipients = len(final[place])
            yield place, sums
        return
    sums = Sums(messages=1, recipients=len(life.recipients), octets=life.size)
    for event in life.events:
        outcome = _OUTCOMES.get(type(event))
        if outcome is not None:
            setattr(sums, outcome, getattr(sums, outcome) + 1)
    yield _KEYS[by](life), sums


def _refused_under(by: By, refusal: Refusal, lists: Mapping[str, str]) -> str | None:
    if by == "list":
        return lists.get(refusal.user, "")
    if by == "user":
        return refusal.user
    if by == "sender":
        return refusal.sender
    return day(refusal.at) if by == "day" else None


def ordered(by: By, found: Mapping[str, Sums], top: int) -> list[tuple[str, Sums]]:
    """The rows: days and levels in their order, all else by messages; past `top`, one row of the others."""
    if by in ("day", "level"):
        return sorted(found.items())
    rows = sorted(found.items(), key=lambda row: (-row[1].messages, -row[1].refused, row[0]))
    if len(rows) <= top:
        return rows
    rest = Sums()
    for _, sums in rows[top:]:
        rest.add(sums)
    return [*rows[:top], (OTHERS, rest)]


def total(found: Mapping[str, Sums]) -> Sums:
    """All rows together."""
    whole = Sums()
    for sums in found.values():
        whole.add(sums)
    return whole
