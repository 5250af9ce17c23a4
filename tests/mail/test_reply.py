"""mail.reply: replies as values, and the one place that decides permanence."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.reply import LINE_LIMIT, PEER_LIMIT, Outcome, Reply, from_peer, printable


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (200, Outcome.DONE),
        (250, Outcome.DONE),
        (354, Outcome.DONE),
        (421, Outcome.DEFERRED),
        (499, Outcome.DEFERRED),
        (500, Outcome.FAILED),
    ],
)
def test_the_first_digit_decides(code: int, outcome: Outcome) -> None:
    """RFC 5321 §4.2.1: 2 and 3 done, 4 deferred, 5 failed, whatever the enhanced code says."""
    assert Reply(code, "5.0.0", "x").outcome is outcome


def test_one_line_on_the_wire() -> None:
    """Code, enhanced code where there is one, text, CRLF."""
    assert Reply(250, "2.0.0", "ok").wire() == b"250 2.0.0 ok\r\n"
    assert Reply(354, "", "go on").wire() == b"354 go on\r\n"
    assert Reply(250, "", "").wire() == b"250 \r\n"


def test_octets_that_are_no_text_become_blanks() -> None:
    """Text from outside may hold octets that are no UTF-8, as surrogates: neither wire nor log may stumble over them."""
    assert printable(b"a\xff\xfeb\x07".decode("utf-8", "surrogateescape")) == "a b "
    assert Reply(550, "5.7.1", "caf\udce9").wire() == b"550 5.7.1 caf \r\n"


def test_nothing_invisible_turns_or_ends_a_line() -> None:
    """Unicode's own line ends and changes of direction are as little text as a control character; joiners are."""
    assert printable("a\u2028b\u2029c\u202ed\u2066\u2069e\u200ff\u200dg\u00e9") == "a b c d e f\u200dg\u00e9"


def test_each_line_has_the_codes() -> None:
    """RFC 5321 §4.2.1 and RFC 2034 §4: every line has the code, and the enhanced code."""
    assert Reply(550, "5.7.1", "no\nnever").wire() == b"550-5.7.1 no\r\n550 5.7.1 never\r\n"


@given(st.text(max_size=1500))
def test_the_wire_keeps_the_line_limit(text: str) -> None:
    """RFC 5321 §4.5.3.1.5: whatever the text, each line has the code, at most 512 octets, whole UTF-8 characters and no control."""
    wire = Reply(550, "5.7.1", text).wire()
    lines = wire.split(b"\r\n")
    assert lines.pop() == b""
    for place, line in enumerate(lines):
        assert line.startswith(b"550-5.7.1 " if place < len(lines) - 1 else b"550 5.7.1 ")
        assert len(line) + 2 <= LINE_LIMIT
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line.decode("utf-8"))
    told = b"".join(line[10:] for line in lines).decode().replace(" ", "")
    assert told == printable(text.encode("utf-8", "replace").decode()).replace(" ", "")


def test_long_words_are_cut_between_characters() -> None:
    """A text without blanks is cut within the limit, never inside a character."""
    lines = Reply(550, "", "ö" * 600).wire().split(b"\r\n")[:-1]
    assert "".join(line[4:].decode("utf-8") for line in lines) == "ö" * 600


def test_logs_and_bounces_see_one_line() -> None:
    """str() is on one line, without control characters."""
    assert str(Reply(550, "5.1.1", "no\nsuch\x1buser")) == "550 5.1.1 no such user"
    assert str(Reply(451, "", "")) == "451"


def test_a_peer_with_an_enhanced_code() -> None:
    """RFC 2034 §4: the enhanced code is taken off every line that repeats it."""
    assert from_peer(550, [b"5.1.1 no such user", b"5.1.1 here"]) == Reply(550, "5.1.1", "no such user\nhere")
    assert from_peer(250, [b"2.0.0"]) == Reply(250, "2.0.0", "")


@pytest.mark.parametrize("line", [b"4.1.1 x", b"5.1 x", b"5.1.1x", b"hello 5.1.1 x", b"5.1.1000 x"])
def test_what_is_no_enhanced_code_stays_text(line: bytes) -> None:
    """A code of another class, or of no such form, is text: permanence is the reply code's alone."""
    assert from_peer(550, [line]) == Reply(550, "", line.decode())


@pytest.mark.parametrize("line", [b"x" * 2000, b"\xff" * 2000, "\U0001f600".encode() * 1100, b"a b " * 500])
@pytest.mark.parametrize("lines", [1, 2, 250])
def test_of_a_peers_text_little_is_kept(line: bytes, lines: int) -> None:
    """A text over PEER_LIMIT characters keeps its beginning, and says that it was longer."""
    reply = from_peer(550, [b"5.1.1 " + line] * lines)
    assert (reply.enhanced, len(reply.text)) == ("5.1.1", PEER_LIMIT)
    assert reply.text.endswith("...")
    assert from_peer(550, [b"x" * PEER_LIMIT]).text == "x" * PEER_LIMIT


@given(st.integers(200, 599), st.lists(st.binary(max_size=60), max_size=4))
def test_odd_peers_become_printable(code: int, lines: list[bytes]) -> None:
    """Never raises: any octets a peer sends become printable text, on as many lines."""
    reply = from_peer(code, lines)
    assert reply.code == code
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", reply.text)
    assert reply.text.count("\n") == max(len(lines) - 1, 0)
    assert reply.wire().endswith(b"\r\n")
