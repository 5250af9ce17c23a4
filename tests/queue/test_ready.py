"""The order of ready entries: strict between levels, fair between users, first in first out for one, per destination."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.queue.entry import Entry
from smtpplus.queue.ready import STREAK, Ready
from smtpplus.queue.rules import Rule, Rules
from tests.queue.fixtures import entry


def ready(limit: int = 1000, reserved: int = 2, now: Callable[[], float] = lambda: 0.0) -> Ready:
    return Ready(limit, reserved, frozenset({1, 2}), initial=limit, aging=1800.0, now=now)


def drained(queue: Ready) -> list[int]:
    """Envelope ids in the order in which entries go."""
    order = []
    while queue.best() is not None:
        taken = queue.take()
        order.append(taken.message.envelope.id)
        queue.release(taken)
    return order


def test_a_higher_level_goes_next() -> None:
    """A26: behind a thousand at level 3 that wait, one at level 2 is the next to go."""
    queue = ready()
    for number in range(1000):
        queue.push(entry(number, 3))
    queue.push(entry(1000, 2))
    order = drained(queue)
    assert order[0] == 1000
    assert order[1:] == list(range(1000))


def test_users_of_a_level_share() -> None:
    """A25: a user with one message does not wait behind another's hundred."""
    queue = ready()
    for number in range(100):
        queue.push(entry(number, 3, "bulk"))
    queue.push(entry(100, 3, "single"))
    assert drained(queue).index(100) <= 1


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from("ab"), st.sampled_from(["x.net", "y.net", "z.net"])), max_size=60))
def test_order_holds_for_all_arrivals(arrivals: list[tuple[int, str, str]]) -> None:
    """A25, A26: whatever arrives, levels never go backwards, and each user's messages of one level and destination keep their order."""
    queue = ready()
    for number, (level, user, destination) in enumerate(arrivals):
        queue.push(entry(number, level, user, destination))
    order = drained(queue)
    assert sorted(order) == list(range(len(arrivals)))
    assert [arrivals[number][0] for number in order] == sorted(level for level, _, _ in arrivals)
    for key in set(arrivals):
        own = [number for number in order if arrivals[number] == key]
        assert own == sorted(own)


def test_a_full_destination_stands_in_nobodys_way() -> None:
    """A destination with no slot left is passed over, and is back when a slot is free."""
    queue = ready(limit=1)
    for number in range(3):
        queue.push(entry(number, 3, destination="full.net"))
    queue.push(entry(3, 4, destination="free.net"))
    first = queue.take()
    assert (queue.best() or first).message.envelope.id == 3
    queue.take()
    assert queue.best() is None
    queue.release(first)
    best = queue.best()
    assert best is not None
    assert best.message.envelope.id == 1


def begun(queue: Ready) -> list[int]:
    """Envelope ids of the entries that start now."""
    taken = []
    while queue.best() is not None:
        taken.append(queue.take().message.envelope.id)
    return taken


def test_urgent_mail_has_slots_of_its_own() -> None:
    """A27 (c): where normal mail has all that it may have, a preempting entry still starts, up to the destination's limit."""
    queue = ready(limit=10, reserved=4)
    for number in range(10):
        queue.push(entry(number, 3))
    assert begun(queue) == list(range(8))
    for number in (10, 11, 12):
        queue.push(entry(number, 1))
    assert begun(queue) == [10, 11]


def test_to_ask_changes_nothing() -> None:
    """Whether a destination has room is a question: none is made, or forgotten, for it."""
    queue = ready(limit=1)
    assert queue.admits(entry(0, 1))
    assert queue.destinations() == []
    known = queue.destination("example.net")
    assert queue.admits(entry(0, 1))
    assert queue.destinations() == [known]
    queue.start(entry(0, 1))
    assert not queue.admits(entry(1, 1))
    queue.hold(frozenset({"held.net"}))
    assert not queue.admits(entry(2, 1, destination="held.net"))


def test_a_closed_destination_waits() -> None:
    """Nothing starts at a closed destination; what waits there goes when it opens."""
    queue = ready()
    destination = queue.push(entry(0))
    destination.closed = True
    assert queue.best() is None
    destination.closed = False
    queue.offer(destination)
    assert drained(queue) == [0]


def test_an_idle_destination_is_forgotten() -> None:
    """Memory: a destination with nothing waiting, running or remembered is dropped."""
    queue = ready()
    for number in range(50):
        queue.push(entry(number, destination=f"d{number}.net"))
    drained(queue)
    assert queue.destinations() == []
    assert len(queue) == 0


def test_waiting_gains_a_level_at_a_time() -> None:
    """D1: after each half hour a message goes one level higher, three at most, so that none waits for ever behind higher ones."""
    time = 0.0
    queue = ready(now=lambda: time)
    old = entry(0, 5)
    queue.push(old)
    ranks = []
    for half_hours in range(6):
        time = half_hours * 1800.0
        queue.age()
        ranks.append(old.rank)
    assert ranks == [5, 4, 3, 2, 2, 2]
    queue.push(entry(1, 3, at=time))
    queue.push(entry(2, 1, at=time))
    assert drained(queue) == [2, 0, 1]


def test_aging_does_not_preempt() -> None:
    """D1: a message that has aged to level 2 goes early, but takes no slot that is reserved for urgent mail."""
    time = 0.0
    queue = ready(limit=2, now=lambda: time)
    queue.push(entry(0, 3))
    queue.take()
    queue.push(entry(1, 3))
    time = 3600.0
    queue.age()
    assert queue.best() is None


def test_what_was_read_again_is_as_old_as_it_is() -> None:
    """D1: a message that comes back into memory has the rank of its age at once."""
    queue = ready(now=lambda: 1800.0)
    old = entry(0, 4)
    queue.push(old)
    assert old.rank == 3


def test_what_is_read_again_after_hours_has_gained_no_more() -> None:
    """D1: three levels are the most that waiting gains, also of what comes back into memory after hours."""
    queue = ready(now=lambda: 6 * 3600.0)
    old = entry(0, 5)
    queue.push(old)
    assert old.rank == 2


def scheduled(number: int, level: int, release_at: float) -> Entry:
    """An entry that was accepted at 0 and is not to be sent before `release_at`."""
    found = entry(number, level)
    found.message.envelope = msgspec.structs.replace(found.message.envelope, release_at=release_at)
    return found


def test_time_under_a_schedule_is_no_waiting() -> None:
    """D1: bulk mail that was scheduled for later stands behind normal mail when it is due, and begins to gain then."""
    time = 5400.0
    queue = ready(now=lambda: time)
    bulk = scheduled(0, 5, 5400.0)
    queue.push(bulk)
    queue.push(entry(1, 3, at=5400.0))
    assert bulk.rank == 5
    time += 1800.0
    queue.age()
    assert bulk.rank == 4


def test_time_on_hold_is_no_waiting() -> None:
    """D1, D7: what a rule holds gains nothing in that time, waits in its place, and gains as ever when the rule has ended."""
    time = 0.0
    queue = ready(now=lambda: time)
    held = entry(0, 4)
    queue.push(held)
    queue.push(entry(1, 4))
    hold = Rule(1, "destination", "example.net", created_at=900.0)
    queue.rules = Rules([hold], 900.0)
    for later in (1800.0, 3600.0, 7200.0):
        time = later
        queue.age()
        assert (held.rank, held.place) == (4, 1)
    queue.rules = Rules([msgspec.structs.replace(hold, lifted_at=7200.0)], 7200.0)
    for later, rank in ((8099.0, 4), (8100.0, 3)):
        time = later
        queue.age()
        assert held.rank == rank


def test_a_destination_just_served_is_served_again() -> None:
    """C3: a user's mail to many destinations goes on at one that is connected, so many times in a row at most, each destination's in
    order; another user's turn and a higher level come first."""
    queue = ready()
    for number in range(60):
        queue.push(entry(number, 3, "bulk", destination=f"d{number % 2}.net"))
    order = drained(queue)
    assert order[: STREAK + 1] == list(range(0, 2 * STREAK + 1, 2))
    assert [number for number in order if number % 2 and number < 60] == list(range(1, 60, 2))
    for number in range(20):
        queue.push(entry(number, 3, "bulk", destination=f"d{number % 2}.net"))
    queue.release(queue.take() if queue.best() else entry(0))
    queue.push(entry(50, 3, "single", destination="d5.net"))
    queue.push(entry(51, 2, "bulk", destination="d6.net"))
    assert drained(queue)[:2] == [51, 50]


@given(st.lists(st.sampled_from(["x.net", "y.net"]), min_size=1, max_size=12), st.integers(0, 5), st.integers(1, 8))
def test_a_turn_that_was_not_taken_is_not_paid(destinations: list[str], served: int, times: int) -> None:
    """A25, C7: a user whose entries are withdrawn together, because of a limit, and lined up again, however often, has the turns of a user
    to whom that did not happen."""
    orders = []
    for withdrawn in (0, times):
        queue = ready()
        queue.push(entry(1000, 3, "limited", "z.net"))
        for number in range(50):
            queue.push(entry(100 + number, 3, "other", "x.net"))
        for _ in range(served):
            assert queue.best() is not None
            queue.release(queue.take())
        for _ in range(withdrawn):
            some = [entry(number, 3, "limited", name) for number, name in enumerate(destinations)]
            for each in some:
                queue.push(each)
            queue.remove([each for each in some if each.place], whole=True)
        for number, name in enumerate(destinations):
            queue.push(entry(number, 3, "limited", name))
        orders.append(drained(queue))
    assert orders[0] == orders[1]
