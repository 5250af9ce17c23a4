"""The retry schedule, as a literal list."""

from __future__ import annotations

from smtpplus.config import Configuration
from smtpplus.queue import retry


def test_the_default_schedule() -> None:
    """C4: the defaults try again after these seconds; the last repeats."""
    schedule = Configuration().queue.retry
    assert [retry.delay(schedule, attempt) for attempt in range(1, 10)] == [60, 300, 900, 1800, 3600, 7200, 14400, 14400, 14400]


def test_lifetime() -> None:
    """C4, D7: a message is given up at the end of its lifetime, to which the time on hold is added."""
    assert retry.ends_at(1000.0, 50.0, 0.0) == 1050.0
    assert retry.ends_at(1000.0, 50.0, 7.0) == 1057.0
