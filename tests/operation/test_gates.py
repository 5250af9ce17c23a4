"""Each gate a queued recipient can wait at has its own words, what comes next, and a command."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec
import pytest

from smtpplus import events
from smtpplus.observation.record import Life
from smtpplus.operation.gates import Around, gate
from smtpplus.operation.health import started_at
from smtpplus.operation.narration import (
    Decision,
    FirstWait,
    Pause,
    completed,
    decisions,
    first_wait,
    merged,
    pauses,
    sentence,
    stopped_until,
    under_way,
)
from smtpplus.queue.rates import OverRate
from smtpplus.queue.rules import Rule
from smtpplus.queue.selection import Queued
from smtpplus.queue.standing import BackingOff, Crowded, Slots, Standing, StoppedTransfer

NUMBER = 1_887_436_800_000_000_001
RULE = Rule(7, "user", "app", "finish", "too much", "root", 1.0, 90.0)
IDLE = Standing(3, 0, 2)
SLOTS = Slots(100, 4, 10, (1,))


def busy(running: int, there: tuple[int, int] | None = None, level: int = 3) -> tuple[Queued, Standing]:
    """A recipient of that level at b.com, where `there` are under way and allowed, in a house with `running` attempts."""
    crowded = () if there is None else (Crowded("b.com", *there, 16, 4, 9),)
    waits = Queued(NUMBER, 0, "y@b.com", level, "app", "default", "a.com", 0, 0.0, "", "b.com", "waiting", None)
    return waits, Standing(9, 0, running, slots=SLOTS, crowded=crowded)


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


@pytest.mark.parametrize(
    ("waits", "stands", "expected", "said", "command"),
    [
        (*busy(100), "connections", "all slots are taken: 100 attempts are under way, of 100", "raise [delivery] connections, now 100"),
        (*busy(100, level=1), "connections", "100 attempts are under way", "restart smtpplus"),
        (*busy(96), "reserved", "4 of these for level 1 alone ([delivery] reserved_for_preempting)", "[delivery] connections"),
        (*busy(96, level=1), "turn", "9 are ready and 96 under way", "smtpplus status"),
        (*busy(86, (1, 5)), "reserved", "10 of these for destinations that have none, and b.com has 1", "[delivery] connections"),
        (*busy(86, (1, 5), level=1), "turn", "waits for its turn", "smtpplus status"),
        (*busy(86), "turn", "waits for its turn", "smtpplus status"),
        (*busy(16, (16, 16)), "destination-full", "now 20, 4 of these for level 1 alone)", "raise [delivery] per_destination, now 20"),
        (*busy(5, (5, 5)), "destination-full", "it takes 5 at a time so far", "[delivery] initial_per_destination"),
        (*busy(19, (19, 16), level=1), "turn", "waits for its turn", "smtpplus status"),
        (*busy(20, (20, 16), level=1), "destination-full", "20 attempts at b.com are under way", "per_destination, now 20"),
    ],
)
def test_the_limit_of_attempts_is_named(*, waits: Queued, stands: Standing, expected: str, said: str, command: str) -> None:
    """D3: mail that waits for a slot says whose limit is reached, with its key, its value, how many are under way, and what changes it."""
    found = gate(waits, stands, str)
    assert (found.gate, said in found.text, command in found.command) == (expected, True, True), found


def test_nothing_goes_while_the_daemon_does_not_run() -> None:
    """D3: what waits for a time or a rule is told that the daemon has to run, too."""
    for more in ({"state": "deferred", "reply": "451 no", "attempts": 2}, {"state": "scheduled"}, {"state": "held", "rule": RULE}):
        assert gate(queued(due=90.0, **more), None, str).following.endswith("if the daemon runs then: now it does not")
        assert "daemon" not in gate(queued(due=90.0, **more), IDLE, str).following


def test_who_has_waited_long_is_not_preempted() -> None:
    """D1, D3: a level gained by waiting counts where it is asked who is held back, as it does in the daemon."""
    stands = Standing(1, 0, 1, preempting=2)
    assert gate(queued(), stands, str).gate == "preempted"
    assert gate(queued(), stands, str, Around(gained=1)).gate == "turn"


def test_no_rule_is_recommended_twice() -> None:
    """D3: what is under way although a rule holds its like names that rule and how to lift it, and no second pause."""
    for rule, said in (
        (Rule(7, "user", "app", "finish", "too much"), "rule 7 (too much) lets it finish"),
        (Rule(7, "user", "app", "stop", "too much"), "rule 7 (too much) does not stop it: its end is sent"),
    ):
        found = gate(queued(state="trying", due=50.0, attempts=1, rule=rule), IDLE, str)
        assert (found.gate, found.command) == ("under-way", "smtpplus queue release --rule 7")
        assert said in found.text
        assert "held by that rule" in found.following


def test_all_rules_are_named() -> None:
    """D3: mail that several rules hold goes when the last of them has ended: all are named, and lifted by the command."""
    short, long, endless = Rule(1, "everything", "", expires_at=90.0), Rule(2, "user", "app", expires_at=99.0), Rule(3, "list", "default")
    for rules, following, at in (
        ((short, long), "it goes at 99.0, when the last of these rules ends", 99.0),
        ((short, endless), "it goes when rule 3 is lifted, and the others have ended, by 90.0 at the latest", None),
    ):
        waits = msgspec.structs.replace(queued(state="held", rule=short), rules=rules)
        found = gate(waits, IDLE, str)
        assert (found.following, found.at) == (following, at)
        assert all(rule.name in found.text and f"--rule {rule.id}" in found.command for rule in rules)
    later = msgspec.structs.replace(queued(state="scheduled", due=95.0, rule=short), rules=(short, long))
    assert gate(later, IDLE, str).following == "it goes then, and is then held by rule 2"


def test_first_wait() -> None:
    """D3: how long a message waited for its first attempt is counted from its acceptance, or from when it was due."""

    def waited(*told: events.Event, now: float | None = None, accepted: bool = True) -> FirstWait | None:
        return first_wait(Life("x", 10.0, accepted, list(told)), now)

    began = events.Started(12.5, "x", "b.com", ("y@b.com",), 1, 3)
    assert waited(began, now=90.0) == FirstWait(10.0, 2.5, True, False)
    assert waited(events.Delivered(11.0, "x", "y@b.com", "b.com", "", "250", 1, 1.0)) == FirstWait(10.0, 1.0, True, False)
    assert waited(events.Scheduled(10.0, "x", 12.0), began) == FirstWait(12.0, 0.5, True, True)
    moved = events.Rescheduled(11.0, "x", "y@b.com", "me", "", 0.0)
    assert waited(events.Scheduled(10.0, "x", 99.0), moved, began) == FirstWait(10.0, 2.5, True, False)
    assert waited(now=15.0) == FirstWait(10.0, 5.0, False, False)
    assert waited(events.Scheduled(10.0, "x", 99.0), now=15.0) is None
    assert waited() is None
    assert waited(began, accepted=False) is None
    assert waited(events.Failed(12.0, "x", "y@b.com", "b.com", "", "554", "expired", 0), now=None) is None


def test_changes_by_hand_are_told() -> None:
    """D3: what was put off or let go by hand says by whom, until when, and why."""
    off = events.Rescheduled(1.0, "x", "y@b.com", "root", "too early", 90.0)
    assert sentence(off, str) == "y@b.com was put off until 90.0 by root: too early"
    assert sentence(events.Rescheduled(1.0, "x", "y@b.com", "root", "", 0.0), str) == "y@b.com was let go at once by root"


def test_what_lowered_mail_is_told() -> None:
    """D2, D3: mail that went at a lower level than it asked for says whether a budget or the ceiling did that, and what allows more."""
    spent, capped = (sentence(events.Lowered(1.0, "x", "app", 1, 3, budget), str) for budget in (10, 0))
    assert spent == "lowered from level 1 to 3: the budget of 10 an hour is spent"
    assert capped.startswith("lowered from level 1 to 3: mail of user app may have no higher one; smtpplus user edit --ceiling 1 app ")


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
    assert pauses(told, 99.0)[0] == Pause("U1", 2.0, 2, cut=1)
    assert stopped_until([*told, events.Paused(91.0, "x", "b.com", "U2")], 30.0) == {"b.com": 121.0}


def test_a_stop_does_not_outlive_the_daemon() -> None:
    """D3: a stop that a crash cut off does not last any more, whatever comes next, and nobody claims to know how long it was."""
    told: list[events.Event] = [events.Paused(10.0, "x", "b.com", "U1")]
    assert pauses(told, 25.0, 5.0) == [Pause("U1", 15.0, 1, 10.0)]
    assert pauses(told, 25.0, 20.0) == [Pause("U1", 0.0, 1, cut=1)]
    told += [events.Started(21.0, "x", "b.com", ("y@b.com",), 2, 3), events.Paused(22.0, "x", "b.com", "U1")]
    assert pauses(told, 25.0, 20.0) == [Pause("U1", 3.0, 2, 22.0, cut=1)]
    assert stopped_until(told, 30.0) == {"b.com": 52.0}


def test_a_clock_set_back_does_not_turn_the_order_round() -> None:
    """D3: what happened is told in the order in which it did: acceptance first, though the clock was set back before the delivery."""
    life = Life(
        "x", 9000.0, True, [events.Started(9000.5, "x", "b.com", ("y@b.com",), 1, 3), events.Cancelled(8999.9, "x", "z@b.com", "me", "")]
    )
    back = events.Delivered(1800.0, "x", "y@b.com", "b.com", "", "250", 1, 1.0)
    life = completed(life, [back])
    assert [event.at for event in life.events] == [8999.9, 9000.5, 1800.0]
    told = merged(decisions(life, str), [Decision(9000.2, "Held", ""), Decision(1.0, "Held", "")])
    assert [each.at for each in told] == [9000.0, 1.0, 8999.9, 9000.5, 1800.0, 9000.2]
