"""What waits outside memory: in order, fair between users, and by the second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smtpplus.queue.parking import Calendar, Parking


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), max_size=80), st.integers(1, 9))
def test_all_come_back_in_each_users_order(arrivals: list[tuple[str, int]], most: int) -> None:
    """A25: whatever is parked is taken once, and each user's ids of a level in their order."""
    parking = Parking()
    for number, (user, level) in enumerate(arrivals):
        parking.park("d", level, user, number)
    assert parking.depth() == {level: sum(1 for _, each in arrivals if each == level) for level in {level for _, level in arrivals}}
    for level in range(1, 6):
        taken: list[int] = []
        while part := parking.take("d", level, most):
            assert len(part) <= most
            taken += part
        assert sorted(taken) == [number for number, (_, each) in enumerate(arrivals) if each == level]
        for user in "abc":
            own = [number for number in taken if arrivals[number][0] == user]
            assert own == sorted(own)
    assert parking.count == 0
    assert parking.depth() == {}


def test_users_take_turns() -> None:
    """A25: a user with one parked message waits for one of another user's hundred, not for all."""
    parking = Parking()
    for number in range(100):
        parking.park("d", 3, "bulk", number)
    parking.park("d", 3, "single", 100)
    assert 100 in parking.take("d", 3, 2)


def test_a_long_line_gives_its_memory_back() -> None:
    """A line of many ids is emptied in order while others are appended, without keeping what was taken."""
    parking = Parking()
    taken: list[int] = []
    for number in range(10_000):
        parking.park("d", 3, "u", number)
        if number % 2:
            taken += parking.take("d", 3, 1)
    while part := parking.take("d", 3, 500):
        taken += part
    assert taken == list(range(10_000))


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
