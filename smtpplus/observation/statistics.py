"""Sums over the history by list, user, sender, subject, its pattern, campaign, destination, day or level: exact, whatever is left out.

A message is counted under one key, and what became of its recipients with it (under the day of its acceptance, whenever it ended). By
`destination` each recipient's outcome is counted where it was tried, and a message once for each destination. Past `top` keys the
rest is one row, so that the rows always add up to what was counted. Pure; observation.tally counts.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Literal, get_args

import msgspec

By = Literal["list", "user", "sender", "subject", "subject-pattern", "campaign", "destination", "day", "level"]
DIMENSIONS: tuple[By, ...] = get_args(By)
OTHERS = "(others)"
_DIGITS = re.compile(r"\d+")
_QUEUE_ID = re.compile(r"\b1[0-9A-HJKMNP-TV-Z]{12}\b")  # mail.envelope.queue_id


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


FIELDS: tuple[str, ...] = Sums.__struct_fields__


def pattern(subject: str) -> str:
    """A subject with its numbers folded, so that "Ticket 17 solved" and "Ticket 4 solved" are one (C12); so are our queue IDs."""
    return _DIGITS.sub("[n]", _QUEUE_ID.sub("[id]", subject))


def day(at: float) -> str:
    """The local day of a time."""
    return time.strftime("%Y-%m-%d", time.localtime(at))


def ordered(by: By, found: Mapping[str, Sums], top: int) -> list[tuple[str, Sums]]:
    """The rows: days and levels in their order, all else by messages; past `top`, one row of the others."""
    if by in ("day", "level"):
        return sorted(found.items())
    rows = heapq.nsmallest(top, found.items(), key=lambda row: (-row[1].messages, -row[1].refused, row[0]))
    if len(rows) == len(found):
        return rows
    whole, shown = total(found.values()), total(sums for _, sums in rows)
    rest = Sums(*(getattr(whole, name) - getattr(shown, name) for name in FIELDS))
    return [*rows, (OTHERS, rest)]


def total(some: Iterable[Sums]) -> Sums:
    """All of them together."""
    some = list(some)
    return Sums(*(sum(map(attrgetter(name), some)) for name in FIELDS))
