"""Octets become lines: the same ones however they were cut, and never one that a bare CR or LF would have ended."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.reasons import Refusal
from smtpplus.submission.framing import COMMAND_LIMIT, EXCHANGE_LIMIT, Framer


def lines_of(pieces: list[bytes], limit: int = COMMAND_LIMIT) -> list[bytes | str]:
    """What comes out when `pieces` are fed one after the other: lines, and the reasons of refusals."""
    framer, found = Framer(), list[bytes | str]()
    for piece in pieces:
        framer.feed(piece)
        while True:
            try:
                line = framer.line(limit)
            except Refusal as refusal:
                found.append(refusal.reason)
                continue
            if line is None:
                break
            found.append(line)
    return found


def test_a_line_is_what_stands_before_crlf() -> None:
    """RFC 5321 §2.3.8: CRLF ends a line; several in one read are several lines; an unfinished one waits."""
    assert lines_of([b"NOOP\r\nRSET\r\nQU", b"IT\r\n"]) == [b"NOOP", b"RSET", b"QUIT"]


def test_an_empty_line_is_a_line() -> None:
    """CRLF alone is a line of no octets: the session refuses it, the framer does not swallow it."""
    assert lines_of([b"\r\n\r\nNOOP\r\n"]) == [b"", b"", b"NOOP"]


@pytest.mark.parametrize("line", [b"NOOP\nQUIT\r\n", b"NOOP\rQUIT\r\n", b"NOOP\r\r\n", b"\nQUIT\r\n", b"\rQUIT\r\n", b"NOOP\n\r\r\n"])
def test_a_bare_cr_or_lf_never_ends_a_line(line: bytes) -> None:
    """A line with a bare CR or LF is refused once, whole, and what stands behind it on the same line never runs as a command."""
    assert lines_of([line + b"NOOP\r\n"]) == ["syntax", b"NOOP"]


def test_a_bare_lf_is_refused_before_the_crlf_is_there() -> None:
    """A client that ends its lines with LF is told so at once, and not left waiting."""
    assert lines_of([b"NOOP\n"]) == ["syntax"]


def test_a_line_may_be_as_long_as_its_limit() -> None:
    """RFC 5321 §4.5.3.1.4: the limit counts the CRLF; one octet more is refused and swallowed to its end."""
    longest = b"N" * (COMMAND_LIMIT - 2)
    assert lines_of([longest + b"\r\n", longest + b"N\r\n", b"NOOP\r\n"]) == [longest, "line_too_long", b"NOOP"]


def test_an_auth_command_may_be_as_long_as_its_exchange() -> None:
    """RFC 4954 §4: initial responses are as long as responses are."""
    longest = b"AUTH PLAIN ".ljust(EXCHANGE_LIMIT - 2, b"A")
    assert lines_of([longest + b"\r\n", longest + b"A\r\nNOOP\r\n"]) == [longest, "line_too_long", b"NOOP"]


def test_a_flood_without_line_end_is_not_kept() -> None:
    """A line that never ends costs one refusal and no memory."""
    framer = Framer()
    refused = 0
    for _ in range(100):
        framer.feed(b"x" * 65_536)
        try:
            assert framer.line() is None
        except Refusal:
            refused += 1
    assert (refused, len(framer)) == (1, 0)


def test_data_is_taken_without_looking_at_it() -> None:
    """`take` gives everything that waits, or as many octets as are asked for; the rest is there for the next command."""
    framer = Framer()
    framer.feed(b"BDAT 5\r\nab\n\r.QUIT\r\n")
    assert framer.line() == b"BDAT 5"
    assert framer.take(5) == b"ab\n\r."
    assert framer.line() == b"QUIT"
    framer.feed(b"DATA\r\nrest")
    assert framer.line() == b"DATA"
    assert (framer.take(), framer.take(), len(framer)) == (b"rest", b"", 0)


def test_what_is_cleared_is_gone() -> None:
    """RFC 3207 §4.2: what came in clear behind STARTTLS is thrown away, an unfinished line included."""
    framer = Framer()
    framer.feed(b"STARTTLS\r\nMAIL FROM:<x@y>\r\nRSE")
    assert framer.line() == b"STARTTLS"
    framer.clear()
    framer.feed(b"NOOP\r\n")
    assert framer.line() == b"NOOP"


ODD = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"NOOP", b"AUTH ", b"x" * 9]), max_size=40).map(b"".join)


@given(stream=ODD, cuts=st.lists(st.integers(0, 200), max_size=20))
def test_the_cuts_do_not_matter(stream: bytes, cuts: list[int]) -> None:
    """Whole, by octet and cut at random, a stream gives the same lines and refusals."""
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    whole = lines_of([stream], limit=12)
    assert lines_of(pieces, limit=12) == whole
    assert lines_of([stream[index : index + 1] for index in range(len(stream))], limit=12) == whole


@given(lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\r" not in line and b"\n" not in line), max_size=10))
def test_every_good_line_comes_out_unchanged(lines: list[bytes]) -> None:
    """What has no bare line end and is within the limit is handed out octet by octet as sent."""
    assert lines_of([b"".join(line + b"\r\n" for line in lines)]) == lines
