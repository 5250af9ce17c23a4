"""Each gate a queued recipient can wait at has its own words, what comes next, and a command."""

from __future__ import annotations

from typing import Any

import pytest

from smtpplus.operation.gates import gate
from smtpplus.queue.rates import OverRate
from smtpplus.queue.rules import Rule
from smtpplus.queue.selection import Queued
from smtpplus.queue.standing import BackingOff, Standing, StoppedTransfer

NUMBER = 1_887_436_800_000_000_001
RULE = Rule(7, "user", "app", "finish", "too much", "root", 1.0, 90.0)
IDLE = Standing(3, 0, 2)


def queued(**more: Any) -> Queued:
    facts: dict[str, Any] = {"attempts": 0, "due": 0.0, "reply": "", "state": "waiting", "rule": None} | more
    return Queued(
        NUMBER,
        0,
        "y@b.com",
        3,
        "app",
        "default",
        "a.com",
        facts["attempts"],
        facts["due"],
        facts["reply"],
        "b.com",
        facts["state"],
        facts["rule"],
    )


@pytest.mark.parametrize(
    ("waiting", "stands", "expected", "said", "at", "command"),
    [
        (queued(state="held", rule=RULE), IDLE, "rule", "held by rule 7 (too much), made by root", 90.0, "queue release --rule 7"),
        (queued(state="scheduled", due=50.0), IDLE, "scheduled", "scheduled for <50.0>", 50.0, "queue reschedule --id"),
        (queued(state="trying", due=50.0, attempts=1), IDLE, "under-way", "attempt 1 is under way at b.com", None, "queue pause"),
        (
            queued(state="trying", due=50.0, attempts=1),
            Standing(0, 0, 1, stopped=(StoppedTransfer(queued().name, "b.com", 3, "URGENT"),)),
            "stopped",
            "stopped by urgent message URGENT",
            None,
            "queue pause",
        ),
        (
            queued(state="deferred", due=50.0, attempts=2, reply="451 no"),
            IDLE,
            "retry",
            "attempt 3 after: 451 no",
            50.0,
            "queue retry --id",
        ),
        (queued(), None, "daemon", "the daemon does not run", None, "start smtpplus"),
        (
            queued(),
            Standing(1, 0, 0, over_rate=(OverRate("user", "app", 70.0),)),
            "rate",
            "the rate or quota of user app is used up until <70.0>",
            70.0,
            "smtpplus user edit --rate N --quota N --per-user RATES app",
        ),
        (
            queued(),
            Standing(1, 0, 0, over_rate=(OverRate("list", "default", 70.0, "500 recipients an hour"),)),
            "rate",
            "the limit of 500 recipients an hour of list default is used up until <70.0>",
            70.0,
            "smtpplus list edit --per-list RATES default",
        ),
        (
            queued(),
            Standing(1, 0, 0, (BackingOff("b.com", 60.0, 4, 1),), 1),
            "backing-off",
            "did not answer 4 time(s)",
            60.0,
            "queue retry",
        ),
        (queued(), Standing(1, 0, 1, preempting=1), "preempted", "nothing below level 1 starts", None, "--level 1"),
        (queued(), IDLE, "turn", "3 are ready and 2 under way", None, "smtpplus status"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_gate(*, waiting: Queued, stands: Standing | None, expected: str, said: str, at: float | None, command: str) -> None:
    """D3: the gate a recipient waits at is named, with what happens next, when, and the command that changes it."""
    found = gate(waiting, stands, lambda at: f"<{at}>")
    assert found.gate == expected
    assert said in found.text
    assert found.at == at
    assert command in found.command
    assert found.following
