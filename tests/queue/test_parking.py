"""What waits outside memory: in order, and fair between users."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smtpplus.queue.parking import Parking


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


def test_what_comes_back_waits_in_its_order() -> None:
    """A25: ids that were taken and come back, the later ones last or first, stand in order in front of those that were never taken."""
    parking = Parking()
    for number in range(60):
        parking.park("d", 3, "u", number)
    parts = [parking.take("d", 3, 10) for _ in range(4)]
    for part in (parts[1], parts[3], parts[0], parts[2]):
        parking.join("d", 3, "u", part)
    assert parking.take("d", 3, 99) == list(range(60))
    parking.join("d", 3, "u", [7, 8])
    parking.join("d", 3, "u", [5])
    parking.park("d", 3, "u", 60)
    assert parking.take("d", 3, 99) == [5, 7, 8, 60]


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=12), max_size=8), st.booleans(), st.integers(0, 9))
def test_an_id_waits_once_and_in_its_place(batches: list[list[int]], shut: bool, most: int) -> None:
    """A25: in whatever order ids come, one by one or together, and however often, each waits once, and the oldest goes first."""
    parking = Parking()
    if shut:
        parking.close({"u"})
    waiting: set[int] = set()
    for batch in batches:
        if len(batch) % 2:
            parking.join("d", 3, "u", batch)
        else:
            for number in batch:
                parking.park("d", 3, "u", number)
        waiting |= set(batch)
        assert parking.held + parking.count == len(waiting)
        taken = parking.take("d", 3, most)
        assert taken == ([] if shut else sorted(waiting)[:most])
        waiting -= set(taken)
    parking.open({"u"} if shut else set())
    assert parking.take("d", 3, 99) == sorted(waiting)


def test_users_are_shut_and_opened() -> None:
    """C7: nothing is taken of users who are shut, wherever they wait; opened again, their windows are known, those with the oldest mail of
    the highest level first."""
    parking = Parking()
    for number, (destination, level, user) in enumerate((("d", 3, "a"), ("e", 3, "b"), ("e", 2, "a"), ("d", 3, "c"), ("e", 3, "a"))):
        parking.park(destination, level, user, number)
    parking.close({"a", "b", "nobody"})
    assert (parking.count, parking.held) == (1, 4)
    parking.park("d", 3, "b", 5)
    assert parking.take("d", 3, 9) == [3]
    assert parking.take("e", 2, 9) == parking.take("e", 3, 9) == []
    assert parking.lines_of({"a", "b"}) == [("e", 2), ("d", 3), ("e", 3)]
    parking.open({"a", "b", "nobody"})
    assert (parking.count, parking.held, parking.shut) == (5, 0, set())
    assert parking.take("d", 3, 9) == [0, 5]
    assert parking.take("e", 3, 9) == [1, 4]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("park"), st.sampled_from("abc"), st.sampled_from("de")),
            st.tuples(st.just("take"), st.just(""), st.sampled_from("de")),
            st.tuples(st.just("back"), st.just(""), st.sampled_from("de")),
            st.tuples(st.sampled_from(("close", "open")), st.sampled_from("abc"), st.just("")),
        ),
        max_size=80,
    )
)
def test_users_come_and_go(steps: list[tuple[str, str, str]]) -> None:
    """C7, A25: whatever is parked, taken, put back, shut and opened: nothing is lost or doubled, nothing of shut users is taken, the
    ids of each user keep their order, and the counts are true."""
    parking, waits, taken = Parking(), dict[tuple[str, str], list[int]](), dict[int, tuple[str, str]]()
    shut: set[str] = set()
    for number, (what, user, place) in enumerate(steps):
        if what == "park":
            parking.park(place, 3, user, number)
            waits.setdefault((user, place), []).append(number)
        elif what == "take":
            for one in parking.take(place, 3, 3):
                (owner,) = [key for key, line in waits.items() if one in line]
                assert owner[0] not in shut
                assert waits[owner].pop(0) == one
                taken[one] = owner
        elif what == "back":
            for owner in {owner for owner in taken.values() if owner[1] == place}:
                back = sorted(each for each, its in taken.items() if its == owner)
                parking.join(place, 3, owner[0], back)
                waits[owner] = back + waits.get(owner, [])
                taken = {each: its for each, its in taken.items() if its != owner}
        elif (what == "close") is (user not in shut):
            shut ^= {user}
            (parking.close if what == "close" else parking.open)({user})
        assert parking.held == sum(len(line) for (user, _), line in waits.items() if user in shut)
        assert parking.count == sum(len(line) for (user, _), line in waits.items() if user not in shut)
        for each in "de":
            assert parking.waiting(each, 3) == sum(len(line) for key, line in waits.items() if key[1] == each and key[0] not in shut)
        assert sorted(parking.lines_of({"a", "b", "c"})) == sorted({(place, 3) for (_, place), line in waits.items() if line})
    parking.open(shut)
    assert sorted(parking.take("d", 3, 99) + parking.take("e", 3, 99)) == sorted(each for line in waits.values() for each in line)
    assert (parking.count, parking.held, parking.depth()) == (0, 0, {})
