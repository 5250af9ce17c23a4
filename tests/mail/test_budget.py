"""Priority budgets: the sliding hour."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.budget import FORGET, GRAIN, HOUR, Budgets, Saved


def test_over_the_budget_goes_at_normal() -> None:
    """D2: of three urgent messages two are within a budget of two; the third is lowered to 3, and an hour after the first one more goes."""
    budgets = Budgets()
    times = (0.0, 10.0, 20.0, HOUR - 0.1, HOUR, HOUR + 1, HOUR + 10)
    assert [budgets.level("app", 2, 1, at) for at in times] == [1, 1, 3, 3, 1, 3, 1]


def test_what_spends_nothing() -> None:
    """D2: levels from 3 on cost nothing, a budget of 0 is none, and each user has their own."""
    budgets = Budgets()
    assert [budgets.level("app", 1, level, 0.0) for level in (3, 4, 5, 2, 2)] == [3, 4, 5, 2, 3]
    assert [budgets.level("other", 1, 1, 0.0), budgets.level("free", 0, 1, 0.0), budgets.level("free", 0, 1, 0.0)] == [1, 1, 1]


def test_a_clock_that_is_set_back() -> None:
    """D2: what was spent in a future that is no more does not lock a user out until it comes again."""
    budgets = Budgets()
    assert [budgets.level("app", 1, 1, at) for at in (10_000.0, 5_000.0, 5_001.0)] == [1, 1, 3]


def test_users_are_forgotten() -> None:
    """Memory: users with nothing spent in the last hour are dropped when many are known; those with something are not."""
    budgets = Budgets()
    for number in range(FORGET - 1):
        budgets.level(f"u{number}", 1, 1, 0.0)
    budgets.level("late", 1, 1, HOUR)
    budgets.level("new", 1, 1, HOUR + 1)
    assert budgets.level("late", 1, 1, HOUR + 1) == 3
    assert len(budgets._spent) == 2


@given(st.lists(st.floats(0, 1000), max_size=60), st.integers(1, 5))
def test_no_hour_has_more(steps: list[float], budget: int) -> None:
    """D2: whatever the arrivals, no sliding hour has more urgent messages than the budget, and none is lowered without need."""
    budgets, now, urgent = Budgets(), 0.0, list[float]()
    for step in steps:
        now += step
        within = [at for at in urgent if at > now - HOUR]
        level = budgets.level("app", budget, 2, now)
        assert (level == 2) is (len(within) < budget)
        if level == 2:
            urgent.append(now)


@given(st.lists(st.floats(0, 600), min_size=1, max_size=80), st.integers(1, 5), st.integers(0, 79))
def test_no_hour_over_a_restart_has_more(steps: list[float], budget: int, restart: int) -> None:
    """D2: budgets are not given anew by a restart, wherever it falls; what was spent then comes free at most a minute late."""
    budgets, now, urgent = Budgets(), 10_000.0, list[float]()
    for number, step in enumerate(steps):
        now += step
        if number == restart:
            after = Budgets()
            after.restore(msgspec.json.decode(msgspec.json.encode(budgets.save(now)), type=Saved), now)
            budgets = after
        within = [at for at in urgent if at > now - HOUR]
        level = budgets.level("app", budget, 2, now)
        assert level == 3 or len(within) < budget
        assert level == 2 or len([at for at in urgent if at > now - HOUR - GRAIN]) >= budget
        if level == 2:
            urgent.append(now)


def test_a_restart_forgets_nothing_that_came_before_it_was_read() -> None:
    """D2: mail that comes while the database is still being read is counted with what was spent before."""
    before, after = Budgets(), Budgets()
    for at in (1.0, 2.0, 70.0):
        before.level("app", 9, 1, at)
    saved = before.save(80.0)
    assert saved == {"app": [(2.0, 2), (70.0, 1)]}
    after.level("app", 9, 1, 75.0)
    after.restore(saved, 80.0)
    assert [after.level("app", 5, 1, at) for at in (81.0, 82.0)] == [1, 3]
    assert before.save(HOUR + 60.0) == {"app": [(70.0, 1)]}
    assert before.save(HOUR + 70.0) == {}


def test_what_was_not_accepted_is_not_spent() -> None:
    """D2: a message that was broken off gives back what was spent for it, once, and no other's."""
    budgets = Budgets()
    for at in (1.0, 2.0):
        assert budgets.level("app", 2, 1, at) == 1
    for _ in range(2):
        budgets.give_back("app", 1.0)
    budgets.give_back("other", 2.0)
    assert [budgets.level("app", 2, 1, 3.0) for _ in range(2)] == [1, 3]


def test_what_changed_is_known_and_saved_alone() -> None:
    """D2: who has spent since the last look is known; their counts replace those that were saved before, also if all was given back."""
    budgets = Budgets()
    for user in ("app", "other", "third"):
        budgets.level(user, 1, 1, 1.0)
    before = budgets.save(1.0)
    budgets.touched.clear()
    budgets.level("app", 1, 1, 2.0)  # over the budget: it spends nothing
    budgets.give_back("other", 1.0)
    assert budgets.touched == {"other"}
    after = Budgets()
    after.restore({**before, **budgets.save(2.0, budgets.touched)}, 2.0)
    assert [after.level(user, 1, 1, 3.0) for user in ("app", "other", "third")] == [3, 1, 3]
