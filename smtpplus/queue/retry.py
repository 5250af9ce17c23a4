"""When a deferred recipient is tried again, and when it is given up: pure arithmetic.

RFC 5321 §4.5.4.1 asks for at least 30 minutes between tries and 4 to 5 days in all; the first tries may come sooner, because
most failures are short (greylisting, a restart of the next hop).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def delay(schedule: Sequence[float], attempt: int) -> float:
    """Seconds from the start of attempt `attempt` (1 for the first) to the next one; the last of `schedule` repeats."""
    return schedule[min(attempt, len(schedule)) - 1]


def ends_at(begun_at: float, lifetime: float, held: float) -> float:
    """When a message is given up that was accepted, or was to go, at `begun_at`: time on hold does not count."""
    return begun_at + lifetime + held


def returned_at(end: float, deliver_by: float, by_mode: str) -> float:
    """When a message that would be given up at `end` is: sooner if its sender wants it back by then (by-mode R, RFC 2852 §4.1.2)."""
    return min(end, deliver_by) if by_mode[:1] == "R" else end


def warned_at(received_at: float, warn_after: float, deliver_by: float, by_mode: str) -> float:
    """When the sender of a message that waits hears of it: at the time asked for (by-mode N, RFC 2852 §4.1.2), else `warn_after` seconds
    from its acceptance, never for 0."""
    if by_mode[:1] == "N":
        return deliver_by
    return received_at + warn_after if warn_after else math.inf
