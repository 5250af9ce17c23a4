"""What is wrong with the encoded words of a header field, one sentence each (RFC 2047). Pure.

smtpplus shows malformed words right all the same, and passes them byte-exact; other mail clients may not. So each fault is named with
where it is and what would be right.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from smtpplus.mail import charset as charsets

LONGEST = 75  # characters of an encoded word, RFC 2047 §2
LINE = 998  # octets of a line, RFC 5322 §2.1.1
_WORD = re.compile(r"=\?([^?\s]*)\?([^?\s]*)\?([^?]*)\?=")
_OPEN = re.compile(r"=\?[\w*.-]+\?[^?\s]\?")
_HEX = re.compile(r"=(?![0-9A-Fa-f]{2})")


def field_faults(raw: bytes) -> list[str]:
    """The faults of one field, its name and line ends included."""
    return list(_faults(raw))


def _faults(raw: bytes) -> Iterator[str]:
    if not raw.isascii():
        yield "it has octets outside ASCII; without SMTPUTF8 they must be encoded (RFC 2047)"
    if any(len(line.rstrip(b"\r")) > LINE for line in raw.split(b"\n")):
        yield f"it has a line of more than {LINE} octets (RFC 5322 §2.1.1)"
    value = re.sub(r"\r?\n(?=[ \t])", "", raw.decode("utf-8", "surrogateescape").partition(":")[2]).strip()
    rest, last = 0, len(value)
    for found in _WORD.finditer(value):
        shown = found[0] if len(found[0]) <= 60 else f"{found[0][:57]}…"
        for fault in _word_faults(*found.groups(), length=len(found[0])):
            yield f"{shown}: {fault}"
        before, after = value[found.start() - 1 : found.start()], value[found.end() : found.end() + 1]
        if (found.start() > rest and before not in ' \t("') or (found.end() < last and after not in ' \t)"'):
            yield f"{shown}: a blank must stand between an encoded word and other text (RFC 2047 §5)"
        rest = found.end()
    left = _WORD.sub("", value)
    if _OPEN.search(left):
        yield "an encoded word is not closed by ?= (RFC 2047 §2)"


def _word_faults(charset: str, encoding: str, text: str, *, length: int) -> Iterator[str]:
    name = charset.partition("*")[0]  # a language may follow, RFC 2231 §5
    if not charsets.known(name.lower()):
        yield f"{name!r} is no character set that mail programs know"
    if length > LONGEST:
        yield f"it has {length} characters; {LONGEST} are allowed, so break it into several words (RFC 2047 §2)"
    if " " in text or "\t" in text:
        yield "raw blanks are not allowed in it; write _ or =20 (RFC 2047 §4.2)"
    octets: bytes | None = None
    if encoding.upper() == "Q":
        if _HEX.search(text):
            yield "= must be followed by two hexadecimal digits (RFC 2047 §4.2)"
        else:
            octets = binascii.a2b_qp(text.encode("utf-8", "surrogateescape"), header=True)
    elif encoding.upper() == "B":
        bare = text.replace(" ", "")
        try:
            octets = base64.b64decode(bare, validate=True) if len(bare) % 4 == 0 else None
        except ValueError:
            octets = None
        if octets is None:
            yield "its base64 is damaged or lacks its padding (RFC 2047 §4.1)"
    else:
        yield f"{encoding!r} is no encoding; there are Q and B (RFC 2047 §4)"
    if octets is not None and not charsets.fits(octets, name.lower()):
        yield f"its octets are no {name}; a character may be cut between two words (RFC 2047 §5)"
