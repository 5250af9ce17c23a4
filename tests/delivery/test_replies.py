"""Replies of any length: what is kept of them, and when they end a session."""

from __future__ import annotations

import pytest

from smtpplus.delivery.dialogue import OFFER_KEPT, Dialogue
from smtpplus.delivery.replies import LINE_LIMIT, LINES_KEPT, LINES_LIMIT, LONGEST_LINE
from smtpplus.delivery.terms import Step
from tests.delivery.test_dialogue import PLAIN, begun, play, ready


@pytest.mark.parametrize("size", [7, 1_000_000])
def test_of_long_replies_little_is_kept(size: int) -> None:
    """What a session holds does not grow with what the peer says within the limits: neither verdicts nor extensions."""
    offers = "".join(f"S: 250-X{number} {'y' * 1900}\n" for number in range(250)) + "S: 250 PIPELINING"
    dialogue = ready(offers=offers)
    assert dialogue.pipelining
    assert sum(map(len, dialogue.extensions.values())) <= LINES_KEPT * OFFER_KEPT
    begun(*(f"{number}@x" for number in range(50)), dialogue=dialogue)
    refused = b"550-5.1.1 " + b"n" * 2000 + b"\r\n"
    said = b"250 ok\r\n" + (refused * 250 + b"550 5.1.1 no\r\n") * 50 + b"503 nobody\r\n"
    for place in range(0, len(said), size):
        held = sum(map(len, dialogue._replies._lines)) + len(dialogue._buffer)
        assert held <= (LINES_KEPT + 1) * LINE_LIMIT + size
        step = dialogue.receive(said[place : place + size])
    assert step is Step.DONE
    assert [(reply.code, reply.enhanced, len(reply.text)) for reply in dialogue.replies if reply] == [(550, "5.1.1", 1000)] * 50


def test_first_and_last_lines_are_kept() -> None:
    """Of a reply of many short lines the end is kept too, and an ellipsis says what is missing."""
    dialogue = begun()
    dialogue.receive(b"".join(b"550-%d\r\n" % number for number in range(200)) + b"550 end\r\n503 nobody\r\n")
    [reply] = dialogue.replies
    assert reply is not None
    assert reply.text.split("\n") == [*map(str, range(LINES_KEPT - 2)), "...", "end"]


def test_an_endless_line_is_not_collected() -> None:
    """A line without end breaks the session as soon as it is longer than the limit: memory stays bounded."""
    dialogue = Dialogue(PLAIN)
    steps = []
    for _ in range(LONGEST_LINE // 64 + 1):
        steps.append(dialogue.receive(b"2" * 64))
        assert len(dialogue._buffer) <= LINE_LIMIT
    assert (steps[-2], steps[-1]) == (Step.WAIT, Step.BROKEN)


@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_of_a_long_line_the_beginning_counts(size: int) -> None:
    """A reply of one long line is a reply: of its text the beginning is kept, and the session goes on."""
    dialogue = begun()
    said = b"".join(code + b" " + b"x" * length + b"\r\n" for code, length in ((b"250", LINE_LIMIT), (b"250", 60_000), (b"354", 1)))
    steps = [dialogue.receive(said[place : place + size]) for place in range(0, len(said), size)]
    assert steps[-1] is Step.CONTENT
    dialogue.content_sent()
    said = b"250 2.0.0 " + b"x" * 5_000 + b"\r\n"
    steps = [dialogue.receive(said[place : place + size]) for place in range(0, len(said), size)]
    assert (steps[-1], dialogue.closing) == (Step.DONE, False)
    [reply] = dialogue.replies
    assert reply is not None
    assert (reply.code, reply.enhanced, len(reply.text)) == (250, "2.0.0", 1000)


@pytest.mark.parametrize("size", [7, 1_000_000])
@pytest.mark.parametrize("code", [250, 451, 554])
@pytest.mark.parametrize("rest", [b" " + b"x" * 2 * LONGEST_LINE, b"-" + b"x" * 2 * LONGEST_LINE, b"-x"])
def test_a_verdict_without_end_is_one(code: int, rest: bytes, size: int) -> None:
    """Behind the final dot the code counts, of an endless line or of endless lines; the session is over."""
    dialogue = begun()
    play(dialogue, "S: 250 ok\nS: 250 ok\nS: 354 go", "whole")
    dialogue.content_sent()
    said = (b"%d%b\r\n" % (code, rest)) * (LINES_LIMIT + 1)
    for place in range(0, len(said), size):
        step = dialogue.receive(said[place : place + size])
        if step is not Step.WAIT:
            break
    assert (step, dialogue.closing, [reply.code for reply in dialogue.replies if reply]) == (Step.DONE, True, [code])
