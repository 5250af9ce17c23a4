"""What waits for its time: never early, never missed, and what was put off often takes no more room than what was not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smtpplus.queue import calendar as module
from smtpplus.queue.calendar import SHARE, SHORT, Calendar


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(1, 7))
def test_nothing_is_early_and_nothing_is_forgotten(dues: list[float], most: int) -> None:
    """A30: an id comes at its second or up to a second later, never before, however few are taken at a time."""
    calendar = Calendar()
    for number, due in enumerate(dues):
        calendar.add(due, number)
    taken: list[int] = []
    for second in range(102):
        while part := calendar.take(float(second), most):
            assert len(part) <= most
            taken += part
            assert all(second - 1 < dues[number] <= second for number in part)
    assert sorted(taken) == list(range(len(dues)))
    assert calendar.next() is None
    assert calendar.count == 0


def test_a_message_waits_once_for_each_of_its_times() -> None:
    """A30: a message of many recipients, read anew at each of their times, waits no more often than they have times left."""
    calendar, times = Calendar(), [float(second) for second in range(100)]
    for now in times:
        for due in times:
            if due >= now:
                calendar.add(due, 1)
        assert calendar.count == len(times) - int(now)
        assert calendar.take(now, 9) == [1]


def test_what_is_put_off_often_takes_no_more_room() -> None:
    """A30: of messages that are rescheduled again and again, in a short calendar and in a long one, only the last times stay, but for a
    small share; none comes before it, and none is missed."""
    for length, changed in ((100, 100), (2 * SHORT, SHORT)):
        calendar = Calendar()
        for number in range(length):
            calendar.add(1000.0, number)
        for step in range(2000):
            page = range(step * 50 % changed, step * 50 % changed + 50)
            calendar.forget(page)
            for number in page:
                calendar.add(2000.0 + step, number)
            assert length <= calendar.count <= length * (1 + 1 / SHARE) + 50
            assert len(calendar._due) == len(calendar._quarters) <= length / SHARE + 2 * length / 50
        calendar.forget(())
        assert set(calendar.take(1999.0, 10**6)) >= set(range(changed, length))
        assert set(calendar.take(5000.0, 10**6)) == set(range(changed))


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "add", "forget", "take"]), st.integers(0, 9), st.integers(0, 40)),
        max_size=60,
    ),
    st.sampled_from([0, 1000]),
)
def test_what_is_forgotten_may_come_and_what_is_not_must(steps: list[tuple[str, int, int]], short: int) -> None:
    """A30: whatever is added, forgotten and taken, and whether the calendar is long or short: each time that counts is told when it
    comes; in a short calendar no other is, and the count is that of those that count."""
    before, module.SHORT = module.SHORT, short
    try:
        calendar, counts, now = Calendar(), set[tuple[int, int]](), 0
        for what, number, time in steps:
            if what == "add":
                calendar.add(float(time), number)
                counts.add((time, number))
            elif what == "forget":
                calendar.forget([number])
                counts = {each for each in counts if each[1] != number}
            else:
                now = max(now, time)
                due = {each for each in counts if each[0] <= now}
                taken = calendar.take(float(now), 1000)
                assert {number for _, number in due} <= set(taken)
                assert not short or len(taken) == len(due)
                counts -= due
            assert not short or calendar.count == len(counts)
    finally:
        module.SHORT = before
