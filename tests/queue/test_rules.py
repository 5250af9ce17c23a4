"""Rules as values: which of them a message meets, and for how long it was held."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.envelope import queue_id
from smtpplus.queue.rules import KINDS, Facts, Kind, Rule, Rules, normalized

FACTS = Facts(77, "app", "news", "example.com", 3, "smtp://smart:25", ("a.net", "b.net"))
VALUES: dict[Kind, str] = {
    "everything": "",
    "level": "3",
    "destination": "b.net",
    "user": "app",
    "list": "news",
    "sender-domain": "example.com",
    "message": queue_id(77),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_selects_by_its_value(kind: Kind) -> None:
    """A31: a rule of each kind meets the message with its value, and no message with another."""
    rule = Rule(1, kind, VALUES[kind])
    assert Rules([rule]).find(FACTS) == rule
    other = Rule(1, "user" if kind == "everything" else kind, "5")
    assert Rules([other]).find(FACTS) is None


def test_a_destination_is_a_domain_or_a_route() -> None:
    """A31: the destination of a rule is the domain of a recipient, or what the route of several says."""
    assert Rules([Rule(1, "destination", "smtp://smart:25")]).find(FACTS) is not None
    assert Rules([Rule(1, "destination", "c.net")]).find(FACTS) is None


def test_a_rule_ends() -> None:
    """D7: a rule is in force until it expires or is lifted, and the next end is known. Once lifted it stays so, whatever the clock says."""
    rules = [Rule(1, "user", "app", expires_at=100.0), Rule(2, "level", "3", expires_at=50.0), Rule(3, "list", "news", lifted_at=20.0)]
    ends = [(bool(Rules(rules, now)), Rules(rules, now).next_end) for now in (0.0, 50.0, 100.0)]
    assert ends == [(True, 50.0), (True, 100.0), (False, None)]
    assert 3 not in Rules(rules, 0.0).by_id


def test_of_equal_rules_the_strictest_counts() -> None:
    """A31: two rules with one selector hold until both have ended, and stop what runs if one of them does."""
    rules = [Rule(1, "user", "app"), Rule(2, "user", "app", "stop", expires_at=10.0)]
    assert [(found.id if found else 0) for found in (Rules(rules, now).find(FACTS) for now in (0.0, 10.0))] == [2, 1]
    assert [(found.id if found else 0) for found in (Rules(rules, now).stops(FACTS) for now in (0.0, 10.0))] == [2, 0]


def test_time_on_hold() -> None:
    """D7: overlapping rules count once, time before the message came does not count, nor that of a rule that keeps the expiry."""
    rules = Rules(
        [
            Rule(1, "user", "app", created_at=0.0, lifted_at=20.0),
            Rule(2, "everything", "", created_at=15.0, expires_at=30.0),
            Rule(3, "list", "news", created_at=0.0, keep_expiry=True),
            Rule(4, "user", "other", created_at=0.0),
            Rule(5, "level", "3", created_at=90.0),
        ],
        100.0,
    )
    assert rules.held(FACTS, 10.0, 100.0) == (30.0 - 10.0) + (100.0 - 90.0)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8), st.integers(0, 40))
def test_time_on_hold_is_the_length_of_the_union(spells: list[tuple[int, int]], since: int) -> None:
    """D7: whatever the rules, the time is that of the seconds in which at least one of them held."""
    rules = [
        Rule(number, "user", "app", created_at=float(begun), lifted_at=float(begun + lasting))
        for number, (begun, lasting) in enumerate(spells)
    ]
    seconds = {second for begun, lasting in spells for second in range(begun, begun + lasting) if since <= second < 50}
    assert Rules(rules, 50.0).held(FACTS, float(since), 50.0) == len(seconds)


def test_values_as_people_write_them() -> None:
    """A31: selectors are compared without regard to case, domains normalized."""
    written: list[tuple[Kind, str]] = [
        ("message", queue_id(77).lower()),
        ("user", " App "),
        ("sender-domain", "Example.COM."),
        ("destination", "BÜCHER.example"),
        ("level", "3"),
        ("destination", "smtp://Smart:25"),
    ]
    assert [normalized(kind, text) for kind, text in written] == [
        queue_id(77),
        "app",
        "example.com",
        "xn--bcher-kva.example",
        "3",
        "smtp://Smart:25",
    ]


@pytest.mark.parametrize(
    ("kind", "text"), [("message", "7"), ("level", "0"), ("level", "x"), ("sender-domain", "a b"), ("destination", "")]
)
def test_values_that_cannot_be(kind: Kind, text: str) -> None:
    """A value that no message can have is an error, not a rule that holds nothing."""
    with pytest.raises(ValueError, match=r"."):
        normalized(kind, text)
