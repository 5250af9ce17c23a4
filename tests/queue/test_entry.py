"""Envelope ids grow, whatever the clock does; a message is an entry for each destination."""

from __future__ import annotations

from smtpplus.mail.envelope import Recipient, WholeContent, parse_queue_id, queue_id
from smtpplus.queue.entry import EnvelopeIds, Message, entries_of
from smtpplus.queue.rows import Pending
from tests.queue.fixtures import envelope


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


def test_a_message_is_an_entry_for_each_destination_and_time() -> None:
    """A30, C3: recipients of one destination that are due go together, whatever their times were; who is not due yet waits apart."""
    dues = (("a@x.net", 0.0), ("b@y.net", 5.0), ("c@x.net", 9.0), ("d@x.net", 20.0))
    pending = [Pending(number, Recipient(address), number, due, False) for number, (address, due) in enumerate(dues)]
    made = entries_of(Message(envelope(1), WholeContent(b""), 4), pending, lambda address: address[2:], now=9.0)
    assert [(each.destination, each.numbers, each.due, each.attempts, each.alone) for each in made] == [
        ("x.net", (0, 2), 0.0, 2, False),
        ("y.net", (1,), 0.0, 1, False),
        ("x.net", (3,), 20.0, 3, False),
    ]
    assert [each.alone for each in entries_of(made[0].message, pending[:1], lambda address: "z", now=9.0)] == [True]
