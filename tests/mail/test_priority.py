"""mail.priority: the table of requirements.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.priority import PRIORITY_FIELDS, display_fields, effective, message_level, mt_level, mt_priority

_TABLE = [
    ("x-priority", "1", 1),
    ("x-priority", "2", 2),
    ("x-priority", "3", 3),
    ("x-priority", "4", 4),
    ("x-priority", "5", 5),
    ("x-priority", "1 (Highest)", 1),
    ("x-priority", " 3 (Normal) ", 3),
    ("x-priority", "5(Lowest)", 5),
    ("importance", "high", 2),
    ("importance", "Normal", 3),
    ("importance", "LOW", 4),
    ("priority", "urgent", 2),
    ("priority", "normal", 3),
    ("priority", "Non-Urgent", 4),
    ("x-msmail-priority", "High", 2),
    ("x-msmail-priority", "Normal", 3),
    ("x-msmail-priority", "Low", 4),
]


@pytest.mark.parametrize(("name", "value", "level"), _TABLE)
def test_each_field_says_its_level(name: str, value: str, level: int) -> None:
    """A21: what mail clients write is understood, in any case."""
    assert message_level({name: [value]}) == level


@pytest.mark.parametrize("value", ["", "0", "6", "11", "1.5", "-1", "high", "1 Highest", "(1)", "١", "urgent, high"])  # noqa: RUF001 (a digit that is not ASCII)
@pytest.mark.parametrize("name", ["x-priority"])
def test_nonsense_says_nothing(name: str, value: str) -> None:
    """A21: nonsense and what is out of range is no opinion, never an error."""
    assert message_level({name: [value]}) is None
    assert message_level({name: [value], "importance": ["low"]}) == 4


def test_a_field_twice_says_nothing() -> None:
    """A field that occurs twice has no opinion, even if both agree; the next field is asked."""
    assert message_level({"x-priority": ["1", "1"]}) is None
    assert message_level({"x-priority": ["1", "5"], "importance": ["high", "high"], "priority": ["non-urgent"]}) == 4


def test_the_first_field_that_speaks_wins() -> None:
    """The order is X-Priority, Importance, Priority, X-MSMail-Priority."""
    everything = {"x-msmail-priority": ["Low"], "priority": ["urgent"], "importance": ["normal"], "x-priority": ["5"]}
    assert message_level(everything) == 5
    assert message_level({**everything, "x-priority": ["?"]}) == 3
    assert message_level({**everything, "x-priority": ["?"], "importance": ["urgent"]}) == 2
    assert message_level({"x-msmail-priority": ["Low"]}) == 4
    assert message_level({}) is None


def test_words_never_reach_the_outer_levels() -> None:
    """Scales of three words reach only 2 and 4: nobody's mail client gets to level 1 by accident."""
    words = ("high", "urgent", "highest", "low", "non-urgent", "lowest", "normal", "1", "5")
    said = {message_level({name: [word]}) for name in PRIORITY_FIELDS - {"x-priority"} for word in words}
    assert said == {None, 2, 3, 4}


@given(st.text(max_size=20))
def test_no_value_is_an_error(value: str) -> None:
    """Reading never raises, and says a level or nothing."""
    for name in PRIORITY_FIELDS:
        assert message_level({name: [value]}) in {None, 1, 2, 3, 4, 5}


def test_the_higher_priority_counts() -> None:
    """A23, A24: all 25 pairs give the smaller number; a message that says nothing has the user's."""
    for user in range(1, 6):
        assert effective(user, None) == user
        for message in range(1, 6):
            assert effective(user, message) == min(user, message)


def test_mt_priority_maps_to_levels() -> None:
    """RFC 6710 §3: -9..9 in the five levels of the table; what is sent comes back as the same level."""
    levels = {priority: mt_level(priority) for priority in range(-9, 10)}
    assert [levels[priority] for priority in (9, 6, 5, 1, 0, -1, -5, -6, -9)] == [1, 1, 2, 2, 3, 4, 4, 5, 5]
    assert [mt_priority(level) for level in range(1, 6)] == [6, 4, 0, -4, -6]
    assert all(mt_level(mt_priority(level)) == level for level in range(1, 6))
    for outside in (-10, 10):
        with pytest.raises(ValueError, match="between -9 and 9"):
            mt_level(outside)


@pytest.mark.parametrize("level", [1, 2, 4, 5])
def test_display_is_one_consistent_set(level: int) -> None:
    """A28: all four fields, once each, saying the level whichever a client reads."""
    fields = display_fields(level)
    assert {name.lower() for name, _ in fields} == PRIORITY_FIELDS
    assert len(fields) == 4
    values = {name.lower(): [value] for name, value in fields}
    assert message_level(values) == level
    for name in PRIORITY_FIELDS - {"x-priority"}:
        assert message_level({name: values[name]}) == (2 if level < 3 else 4)


def test_normal_adds_nothing() -> None:
    """A28: nothing is added for level 3."""
    assert display_fields(3) == []
