"""Text as quoted-printable (RFC 2045 §6.7), in lines of LONGEST characters at most.

The octets are binascii's; where lines break is decided here, for what is broken becomes the beginning of a line, and a delimiter of a
multipart (RFC 2046 §5.1.1) is found there. Invariant: no line that a soft line break begins has a hyphen first; a line that had one stays
as it is. The work is proportional to the text; nothing raises.
"""

from __future__ import annotations

import binascii
import re

LONGEST = 76  # characters of a line, its "=" of a soft line break among them: RFC 2045 §6.7 (5)
_HYPHEN, _SOFT = b"-", b"=\r\n"
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n").search


def encoded(text: bytes) -> bytes:
    """The text; CRLF stays a line end, a bare CR or LF is encoded as any other octet."""
    if _BARE(text):
        lines = [binascii.b2a_qp(line, istext=False).replace(b"=\n", b"") for line in text.split(b"\r\n")]
    else:
        lines = binascii.b2a_qp(text, istext=True).replace(_SOFT, b"").replace(b"=\n", b"").split(b"\r\n")
    return b"\r\n".join([line if len(line) <= LONGEST else _broken(line) for line in lines])


def _broken(line: bytes) -> bytes:
    """An encoded line with soft line breaks."""
    pieces: list[bytes] = []
    start, lead = 0, b""
    while len(lead) + len(line) - start > LONGEST:
        end = start + LONGEST - 1 - len(lead)
        octet = line.rfind(b"=", end - 2, end)  # one that would be cut
        end = octet if octet >= 0 else end
        pieces.append(lead + line[start:end])
        start, lead = end, b""
        if line[start : start + 1] == _HYPHEN:
            start, lead = start + 1, b"=2D"
    pieces.append(lead + line[start:])
    return _SOFT.join(pieces)
