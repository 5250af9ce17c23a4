"""8-bit messages in 7 bits, judged by Python's e-mail parser: the same message, or none."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.header import HEADER_LIMIT
from smtpplus.mail.seven_bit import DEPTH, LINE_LIMIT, Conversion, Survey, Unconvertible

TOP = b"From: a@a.example\r\nMIME-Version: 1.0\r\n"


def convert(octets: bytes, size: int = 1 << 20) -> bytes:
    """The message in 7 bits, fed in pieces of that size."""
    pieces = [octets[start : start + size] for start in range(0, len(octets), size)]
    survey = Survey()
    for piece in pieces:
        survey.feed(piece)
    survey.finish()
    conversion = Conversion(survey.leaves)
    return b"".join([conversion.feed(piece) for piece in pieces] + [conversion.finish()])


def told(message: Message) -> list[Any]:
    """Every part: its fields but for the encoding, and what is decoded of it."""
    found = []
    for part in message.walk():
        fields = [(name, value) for name, value in part.items() if name.lower() != "content-transfer-encoding"]
        found.append((fields, part.preamble, part.epilogue, None if part.is_multipart() else part.get_payload(decode=True)))
    return found


def leaf(kind: str, encoding: str, lines: list[bytes]) -> bytes:
    said = f"Content-Transfer-Encoding: {encoding}\r\n" if encoding else ""
    return f"Content-Type: {kind}\r\n{said}\r\n".encode() + b"\r\n".join(lines)


BOUNDARIES = [b"b%d-%d" % (depth, parts) for depth in (1, 2, 3) for parts in (1, 2, 3)]
WITHIN = [b"--" + boundary + end for boundary in BOUNDARIES for end in (b"", b"--", b"--\xe9")]  # delimiters, but not where a line begins

lines = st.lists(
    st.one_of(
        st.binary(max_size=200).map(lambda octets: bytes(each for each in octets if each not in b"\r\n\0")),
        st.builds(bytes.__add__, st.integers(60, 80).map(b"w".__mul__), st.sampled_from([*WITHIN, b" ", b"\t", b"\xe9"])),
        st.sampled_from([b"", b".", b"--", b"--x", b"From here", b"=", b"trailing ", b"\t", "Grüße".encode(), b"\xe9" * 300, b"a" * 990]),
    ),
    max_size=6,
)
leaves = st.builds(
    leaf,
    st.sampled_from(["text/plain; charset=utf-8", "text/html", "application/x-thing"]),
    st.sampled_from(["8bit", "7bit", "", "8BIT"]),
    lines,
)


def multipart(parts: list[bytes], depth: int, said: bool) -> bytes:
    boundary = b"b%d-%d" % (depth, len(parts))
    assert boundary in BOUNDARIES
    encoding = b"Content-Transfer-Encoding: 8bit\r\n" if said else b""
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--"
    return b"Content-Type: multipart/mixed;\r\n boundary=" + boundary + b"\r\n" + encoding + b"\r\nPreamble\r\n" + body + b"\r\n"


def message_of(body: bytes) -> bytes:
    return b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nMIME-Version: 1.0\r\n" + body


def tree(depth: int) -> st.SearchStrategy[bytes]:
    if not depth:
        return leaves
    inner = tree(depth - 1)
    return st.one_of(
        leaves,
        inner.map(message_of),
        st.builds(lambda parts, said: multipart(parts, depth, said), st.lists(inner, min_size=1, max_size=3), st.booleans()),
    )


@given(tree(3), st.integers(1, 5000))
def test_what_is_decoded_is_the_same(body: bytes, size: int) -> None:
    """C1, RFC 6152 §3: whatever the parts, their octets and the pieces they come in: the result is ASCII, and decoded it is
    what it was. What is ASCII already, and says so, is byte-exact."""
    whole = TOP + body + b"\r\n"
    made = convert(whole, size)
    assert made.isascii()
    assert told(message_from_bytes(made)) == told(message_from_bytes(whole))
    assert made == convert(whole)
    assert b"8bit" not in made.lower()
    kept = set(whole.split(b"\r\n"))
    assert all(len(line) <= 76 for line in made.split(b"\r\n") if line not in kept)
    if whole.isascii() and b"8bit" not in whole.lower():
        assert made == whole


def test_a_message_of_one_part() -> None:
    """RFC 2045 §6.7: text becomes quoted-printable in lines of 76, its fields stay, and its label is the last of them."""
    text = "Grüße, " + "x" * 100 + " \r\n.\r\n"
    octets = TOP + b"Content-Transfer-Encoding: 8bit\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode()
    assert convert(octets) == TOP + (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"Gr=C3=BC=C3=9Fe, " + b"x" * 58 + b"=\r\n" + b"x" * 42 + b"=20\r\n=2E\r\n"
    )
    assert convert(octets.removesuffix(b" \r\n.\r\n")).endswith(b"x=\r\n" + b"x" * 42)


def within(level: int) -> bytes:
    return b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)


def test_an_outer_delimiter_ends_what_is_within() -> None:
    """RFC 2046 §5.1.2: as deep as parts may be; a delimiter of the outermost multipart ends all within, and theirs are text then."""
    octets = TOP + b"".join(within(level) for level in range(DEPTH)) + b"\r\n\xe9\r\n--b0 \t\r\n\r\n--b1\r\n\xe8\r\n--b0--"
    made = convert(octets)
    assert made.endswith(b"\r\n=E9\r\n--b0 \t\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n--b1\r\n=E8\r\n--b0--")
    assert told(message_from_bytes(made)) == told(message_from_bytes(octets))


def test_a_boundary_within_a_line_stays_there() -> None:
    """RFC 2046 §5.1.1: a line is not broken before what would be a delimiter then, and the text behind it a part."""
    start = TOP + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    octets = start + b"\r\n\xe9\r\n" + b"x" * 75 + b"--b\r\nContent-Type: text/html\r\n\r\n<b>\r\n--b--\r\n"
    made = convert(octets)
    assert b"x=\r\n=2D-b\r\n" in made
    assert told(message_from_bytes(made)) == told(message_from_bytes(octets))


MIXED = TOP + b"Content-Type: multipart/mixed; boundary=b\r\n"
PLAIN = b"--b\r\nContent-Type: text/plain\r\n\r\n\xe9\r\n"
REFUSED = {
    "no MIME message": b"Subject: a\r\n\r\n\xe9\r\n",
    "8-bit header": TOP + b"Subject: \xe9\r\n\r\n\xe9\r\n",
    "8-bit header of a part": MIXED + b"\r\n--b\r\nContent-Description: \xe9\r\n\r\nx\r\n--b--\r\n",
    "DKIM": b"DKIM-Signature: v=1\r\n" + TOP + b"\r\n\xe9\r\n",
    "signed": TOP + b"Content-Type: multipart/signed; boundary=b\r\n\r\n" + PLAIN + b"--b--\r\n",
    "signed within": MIXED + b"\r\n--b\r\nContent-Type: multipart/signed; boundary=c\r\n\r\n--c\r\n\r\n\xe9\r\n--c--\r\n--b--\r\n",
    "signed by its label": TOP + b"Content-Type: multipart/signed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b--\r\n",
    "preamble": MIXED + b"\r\n\xe9\r\n" + PLAIN + b"--b--\r\n",
    "epilogue": MIXED + b"\r\n" + PLAIN + b"--b--\r\n\xe9\r\n",
    "base64 that is none": TOP + b"Content-Transfer-Encoding: base64\r\n\r\n\xe9\r\n",
    "binary": TOP + b"Content-Transfer-Encoding: binary\r\n\r\n\xe9\r\n",
    "delivery status": TOP + b"Content-Type: message/delivery-status\r\n\r\n\xe9\r\n",
    "a message in base64": TOP + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n\xe9\r\n",
    "a message within that is no MIME message": TOP + b"Content-Type: message/rfc822\r\n\r\nSubject: a\r\n\r\n\xe9\r\n",
    "multipart in base64": MIXED + b"Content-Transfer-Encoding: base64\r\n\r\n" + PLAIN + b"--b--\r\n",
    "no boundary": TOP + b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n\xe9\r\n--b--\r\n",
    "two types": MIXED + b"Content-Type: text/plain\r\n\r\n\xe9\r\n",
    "two boundaries": TOP + b"Content-Type: multipart/mixed; boundary=b; boundary=c\r\n\r\n" + PLAIN,
    "a boundary in a comment": TOP + b"Content-Type: multipart/mixed (; boundary=c); boundary=b\r\n\r\n" + PLAIN,
    "a boundary like one around": MIXED + b"\r\n--b\r\nContent-Type: multipart/mixed; boundary=b--\r\n\r\n--b--\r\n\r\n\xe9\r\n",
    "no field": TOP + b"This is no field\r\n\r\n\xe9\r\n",
    "a blank before a colon": TOP + b"X : y\r\n\r\n\xe9\r\n",
    "a blank before a colon in a part": MIXED + b"\r\n--b\r\nContent-Description\t: y\r\n\r\n\xe9\r\n--b--\r\n",
    "no type": TOP + b"Content-Type: text\r\n\r\n\xe9\r\n",
    "no end of the header": TOP,
    "no end of the header of a part": MIXED + b"\r\n--b\r\nContent-Type: text/plain\r\n--b--\r\n",
    "a header too long": TOP + b"X: y\r\n" * (HEADER_LIMIT // 6) + b"\r\n\xe9\r\n",
    "a line too long": TOP + b"\r\n" + b"\xe9" * (LINE_LIMIT + 1),
    "parts too deep": TOP + b"".join(within(level) for level in range(DEPTH + 1)) + b"\r\n\xe9\r\n",
    "messages too deep": TOP + b"Content-Type: message/rfc822\r\n\r\nMIME-Version: 1.0\r\n" * (DEPTH + 1) + b"\r\n\xe9\r\n",
}


@pytest.mark.parametrize("octets", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted(octets: bytes) -> None:
    """C1: where the result might be another message, or a signature would break, there is none."""
    with pytest.raises(Unconvertible):
        convert(octets)


def test_what_is_signed_and_ascii_passes_beside_what_is_not() -> None:
    """RFC 1847 §2.1: a signed part stays byte-exact when another part is converted."""
    signed = b"--b\r\nContent-Type: multipart/signed; boundary=c\r\n\r\n--c\r\n\r\nsigned \r\n--c\r\n\r\nit\r\n--c--\r\n"
    made = convert(MIXED + b"\r\n" + signed + PLAIN + b"--b--\r\n")
    assert made.startswith(MIXED + b"\r\n" + signed + b"--b\r\n")
    assert made.endswith(b"quoted-printable\r\n\r\n=E9\r\n--b--\r\n")


def test_parts_of_a_digest_are_messages() -> None:
    """RFC 2046 §5.1.5: a part of a digest that names no type is a message, whose body is converted and whose header is not."""
    digest = TOP + b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nMIME-Version: 1.0\r\n\r\n\xe9\r\n--b--"
    made = convert(digest)
    assert made.endswith(b"--b\r\n\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E9\r\n--b--")
