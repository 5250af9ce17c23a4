"""Envelope ids grow, whatever the clock does."""

from __future__ import annotations

from smtpplus.mail.envelope import parse_queue_id, queue_id
from smtpplus.queue.entry import EnvelopeIds


def test_ids_only_grow() -> None:
    """A clock that stands still or is set back gives no id twice, and none smaller than the last."""
    times = iter([1_800_000_000.0, 1_800_000_000.0, 1_700_000_000.0, 1_800_000_001.0])
    new_id = EnvelopeIds(77, lambda: next(times))
    made = [new_id() for _ in range(4)]
    assert made == sorted(set(made))
    assert [parse_queue_id(queue_id(number)) for number in made] == made
    assert max(made) < 1 << 63


def test_ids_go_on_beyond_another_process() -> None:
    """An id of a process whose clock was ahead is not given again, nor is a smaller one."""
    before = EnvelopeIds(1, lambda: 1_800_000_000.0)()
    new_id = EnvelopeIds(1, lambda: 1_700_000_000.0)
    new_id.beyond(before)
    assert new_id() > before
