"""When a deferred recipient is tried again, and when it is given up: pure arithmetic.

RFC 5321 §4.5.4.1 asks for at least 30 minutes between tries and 4 to 5 days in all; the first tries may come sooner, because
most failures are short (greylisting, a restart of the next hop).
"""

from __future__ import annotations

from collections.abc import Sequence


def delay(schedule: Sequence[float], attempt: int) -> float:
    """Seconds from the start of attempt `attempt` (1 for the first) to the next one; the last of `schedule` repeats."""
    return schedule[min(attempt, len(schedule)) - 1]


def ends_at(received_at: float, lifetime: float, held: float) -> float:
    """When a message accepted at `received_at` is given up: time on hold does not count."""
    return received_at + lifetime + held
