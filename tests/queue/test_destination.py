"""What the scheduler learns about a destination: how much it takes at once, and when it is left alone."""

from __future__ import annotations

import pytest

from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import Recipient
from smtpplus.mail.reply import Reply
from smtpplus.queue.destination import Destination, Strain, strain


def destination(window: int = 20, initial: int = 5, running: int = 5) -> Destination:
    made = Destination("b.example", window, initial, 0, frozenset({1, 2}))
    made.running = running
    return made


def most(limit: int, reserved: int, level: int, *, initial: int = 100) -> int:
    """How many of that level run at once."""
    made = Destination("b.example", limit, initial, reserved, frozenset({1, 2}))
    while made.admits(level):
        made.running += 1
    return made.running


def told(*replies: str, reason: str = "peer_deferred", peer: str = "mx[192.0.2.1]:25") -> list[Disposition]:
    found = []
    for each in replies:
        code, enhanced, text = each.split(" ", 2)
        found.append(Disposition(Recipient("b@b.example"), Reply(int(code), enhanced, text), peer, reason))
    return found


@pytest.mark.parametrize(
    ("dispositions", "expected"),
    [
        (told("421 4.7.0 too many"), Strain.ENOUGH),
        (told("450 4.7.1 greylisted", "421 4.3.2 closing"), Strain.ENOUGH),
        (told("451 4.7.1 rate limited"), Strain.SLOW),
        (told("452 4.2.2 mailbox full"), Strain.NONE),
        (told("450 4.1.8 sender domain"), Strain.NONE),
        (told("451 4.7.1 slow down", "452 4.2.2 mailbox full"), Strain.NONE),
        (told("250 2.0.0 taken", reason="delivered") + told("451 4.7.1 slow down"), Strain.NONE),
        (told("550 5.1.1 no", reason="peer_refused"), Strain.NONE),
        (told("451 4.4.1 silent", reason="connection_timed_out"), Strain.NONE),
        ([], Strain.NONE),
    ],
)
def test_what_a_peer_says_about_our_pace(dispositions: list[Disposition], expected: Strain) -> None:
    """C3: 421, or a 4xx to everybody that is about neither address nor mailbox, is about the host; one recipient's trouble is its own."""
    assert strain(dispositions) is expected


def test_the_window_grows_by_success_and_shrinks_by_strain() -> None:
    """C3: it begins small, each success allows one more up to the limit, each strain half as many, never less than one."""
    hop = destination(window=8)
    windows = [hop.window]
    for said in [Strain.NONE] * 4 + [Strain.SLOW] * 4 + [Strain.NONE]:
        assert not hop.learn(True, said)
        windows.append(hop.window)
    assert windows == [5, 6, 7, 8, 8, 4, 2, 1, 1, 2]


def test_421_closes_a_destination_that_gets_one_at_a_time_already() -> None:
    """A peer that says 421 is sent less, and at last left alone; how often it was so is remembered until a success."""
    hop = destination(initial=2)
    assert [hop.learn(True, Strain.ENOUGH) for _ in range(3)] == [False, True, True]
    assert (hop.window, hop.closures, hop.idle()) == (1, 2, False)
    assert not hop.learn(True, Strain.SLOW)
    assert not hop.learn(True)
    assert (hop.window, hop.closures, hop.idle()) == (2, 0, True)


def test_nobody_exceeds_the_limit() -> None:
    """A27 (c): urgent mail never exceeds a destination's limit; of small limits one slot is reserved, of 1 none, and never all of them."""
    limits = (1, 2, 3, 4, 10, 20, 100)
    assert [most(limit, 4, 3) for limit in limits] == [1, 1, 2, 3, 8, 16, 96]
    assert [most(limit, 4, 1) for limit in limits] == list(limits)
    assert [most(limit, 0, 3) for limit in limits] == list(limits)
    assert (most(20, 4, 3, initial=5), most(20, 4, 2, initial=5)) == (5, 9)


def test_a_closed_destination_learns_nothing_from_stragglers() -> None:
    """Attempts that end after it was closed do not close it again."""
    hop = destination(initial=1, running=1)
    assert hop.learn(False)
    hop.closed = True
    assert not hop.learn(False)
    assert not hop.learn(True, Strain.ENOUGH)
    assert hop.closures == 1
