"""Quoted-printable, decoded by the standard library: the same text, in lines that nobody takes for something else."""

from __future__ import annotations

import quopri

from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.quoted_printable import LONGEST, encoded

pieces = st.sampled_from(
    [b"\r\n", b" ", b"\t", b"-", b"--", b"=", b".", b"x", b"y" * 30, b"z" * 72, b"-" * 80, b"\xe9", b"\xe9" * 24, b"\r", b"\n"]
)
texts = st.lists(pieces, max_size=20).map(b"".join)


@given(texts)
def test_what_is_decoded_is_the_same(text: bytes) -> None:
    """RFC 2045 §6.7: whatever the octets; the result is ASCII, no line is over 76 characters and none ends in a blank."""
    made = encoded(text)
    assert quopri.decodestring(made) == text
    lines = made.split(b"\r\n")
    assert made.isascii() and b"\r" not in b"".join(lines) and b"\n" not in b"".join(lines)
    assert max(map(len, lines)) <= LONGEST
    assert not any(line.endswith((b" ", b"\t")) for line in lines)


@given(texts)
def test_what_is_broken_is_no_delimiter(text: bytes) -> None:
    """RFC 2046 §5.1.1: only where a line of the text began with a hyphen does one of the result."""
    lines = encoded(text).split(b"\r\n")
    begun = [line for before, line in zip([b"", *lines], lines, strict=False) if not before.endswith(b"=")]
    assert sum(line.startswith(b"-") for line in lines) == sum(line.startswith(b"-") for line in begun)


def test_lines_are_as_long_as_they_may_be() -> None:
    """RFC 2045 §6.7 (5): 76 characters with the "=" of a soft line break; a blank at the end of a line counts as what it becomes."""
    assert encoded(b"x" * 76) == b"x" * 76
    assert encoded(b"x" * 77) == b"x" * 75 + b"=\r\nxx"
    assert encoded(b"x" * 74 + b" \r\n") == b"x" * 74 + b"=\r\n=20\r\n"
    assert encoded(b"x" * 75 + b"--b") == b"x" * 75 + b"=\r\n=2D-b"
    assert encoded(b"x" * 74 + b"\xe9\r\n") == b"x" * 74 + b"=\r\n=E9\r\n"
