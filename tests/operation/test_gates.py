"""Each gate a queued recipient can wait at has its own words, what comes next, and a command."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from smtpplus import events
from smtpplus.operation.gates import Around, gate
from smtpplus.operation.health import started_at
from smtpplus.operation.narration import Pause, pauses, sentence, stopped_until, under_way
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
            80.0,
            "queue pause --id URGENT",
        ),
        (
            queued(state="trying", due=50.0, attempts=1),
            Standing(0, 0, 1, stopped=(StoppedTransfer(queued().name, "b.com", 3, "rule 12 (too late)"),)),
            "stopped",
            "stopped by rule 12 (too late)",
            80.0,
            "queue release --rule 12",
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
        (
            queued(),
            Standing(1, 0, 1, preempting=1),
            "preempted",
            "by urgent messages U1, U2, U3 and 1 more: nothing below",
            None,
            "--level 1",
        ),
        (queued(), Standing(1, 0, 1, (), 101), "turn", "101 destinations are left alone", None, "smtpplus status"),
        (queued(), IDLE, "turn", "3 are ready and 2 under way", None, "smtpplus status"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_gate(*, waiting: Queued, stands: Standing | None, expected: str, said: str, at: float | None, command: str) -> None:
    """D3: the gate a recipient waits at is named, with what happens next, when, and the command that changes it."""
    around = Around(["U1", "U2", "U3", "U4"], {"b.com": 80.0})
    found = gate(waiting, stands, lambda at: f"<{at}>", around)
    assert found.gate == expected
    assert said in found.text
    assert found.at == at
    assert command in found.command
    assert found.following


def test_one_urgent_message_is_named_with_its_command() -> None:
    """D3: what is preempted by one message says which, and how to pause it."""
    found = gate(queued(), Standing(1, 0, 1, preempting=1), str, Around(["U1"], max_pause=20.0))
    assert found.following.endswith("in 20 s at the latest")
    assert "by urgent message U1" in found.text
    assert found.command == "smtpplus queue pause --id U1"


def test_attempts_under_way_and_cut_off() -> None:
    """D3: what is tried anew right now does not wait for its next attempt, and what a crash cut off is not under way."""
    anew = queued(state="deferred", due=90.0, attempts=2, reply="451 no")
    assert gate(anew, IDLE, str, Around(under_way={"y@b.com"})).gate == "under-way"
    cut = gate(queued(state="trying", due=90.0, attempts=1), IDLE, str, Around(cut_off={"y@b.com"}))
    assert (cut.gate, cut.at, "cut off" in cut.text, "queue retry" in cut.command) == ("retry", 90.0, True, True)
    told: list[events.Event] = [
        events.Started(10.0, "x", "b.com", ("old@b.com",), 1, 3),
        events.Started(20.0, "x", "b.com", ("y@b.com", "z@b.com"), 2, 3),
        events.Deferred(21.0, "x", "z@b.com", "b.com", "", "451", "peer_deferred", 2, 90.0),
    ]
    assert under_way(told, 15.0) == {"y@b.com"}
    assert time.time() - 3600 < started_at(os.getpid()) <= time.time() + 1
    assert started_at(-1) == 0.0


def test_what_is_put_off_and_held_needs_both_commands() -> None:
    """D3: a retry alone does not let mail go that a rule holds as soon as it is due: the rule's release is named before it."""
    for more in ({"state": "deferred", "reply": "451 no", "attempts": 2}, {"state": "scheduled"}):
        found = gate(queued(rule=RULE, due=90.0, **more), IDLE, str)
        assert found.command.startswith("smtpplus queue release --rule 7, then smtpplus queue re")
        assert "then held by rule 7" in found.following


def test_the_peer_is_not_given_our_words() -> None:
    """D3: what the peer said is told as its words, and what we say of it as ours, with the code that is ours."""
    theirs = events.Deferred(1.0, "x", "y@b.com", "b.com", "mx.b.com", "450 4.2.0 later", "peer_deferred", 1, 90.0)
    assert sentence(theirs, str).endswith(": mx.b.com said 450 4.2.0 later")
    reply = "454 4.7.0 mx.b.com did not accept our login: 535 5.7.8 no"
    ours = events.Deferred(1.0, "x", "y@b.com", "b.com", "mx.b.com", reply, "peer_login_failed", 1, 90.0)
    assert sentence(ours, str).endswith(": mx.b.com did not accept our login: 535 5.7.8 no (our own verdict, 454 4.7.0)")
    late = events.Failed(1.0, "x", "y@b.com", "b.com", "mx.b.com", "554 5.4.7 Too late: 450 no", "expired", 9)
    assert sentence(late, str).endswith(": Too late: 450 no (our own verdict, 554 5.4.7)")


def test_stops_are_added_up() -> None:
    """D1, B6: stops are added up by their cause, one that lasts up to now; each attempt has max_pause for itself."""
    told: list[events.Event] = [
        events.Paused(10.0, "x", "b.com", "U1"),
        events.Resumed(12.0, "x", "b.com", 2.0, "urgent mail is sent"),
        events.Paused(20.0, "x", "b.com", "U1"),
        events.Paused(20.0, "x", "c.com", "rule 7"),
        events.Resumed(23.0, "x", "c.com", 3.0, "the rule has ended"),
    ]
    assert pauses(told, 25.0) == [Pause("U1", 7.0, 2, 20.0), Pause("rule 7", 3.0, 1)]
    assert stopped_until(told, 30.0) == {"b.com": 48.0}
    told.append(events.Deferred(26.0, "x", "y@b.com", "b.com", "", "451", "peer_deferred", 1, 90.0))
    assert pauses(told, 99.0)[0] == Pause("U1", 2.0, 2)
    assert stopped_until([*told, events.Paused(91.0, "x", "b.com", "U2")], 30.0) == {"b.com": 121.0}
