"""SMTP replies as values, ours and our peers'.

A reply is a code, an enhanced status code and text. Whether it is final is read from the first digit of the code, here and
nowhere else (RFC 5321 §4.2.1). Text from outside is made printable before it becomes part of a reply, so that no reply can
carry a line end or a control character onto the wire or into the log.
"""

from __future__ import annotations

import enum
import re

import msgspec

# Controls, surrogates, and what turns the direction of a line or ends it in Unicode
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\u200d\u2010-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\U0010ffff]+")
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)")  # RFC 3463 §2, RFC 2034 §4
PEER_LIMIT = 1_000  # characters of a peer's text that are kept: two lines of RFC 5321 §4.5.3.1.5, for each recipient
ELLIPSIS = "..."
LINE_LIMIT = 512  # octets of a reply line with its CRLF, RFC 5321 §4.5.3.1.5


class Outcome(enum.Enum):
    """What a reply means for the message or the command it answers."""

    DONE = "done"
    DEFERRED = "deferred"
    FAILED = "failed"


class Reply(msgspec.Struct, frozen=True):
    """One SMTP reply: `code` 200..599, `enhanced` such as "5.7.1" or "" where none applies (RFC 2034 §4), `text` one line or several."""

    code: int
    enhanced: str
    text: str

    @property
    def outcome(self) -> Outcome:
        """DONE for 2xx and 3xx, DEFERRED for 4xx, FAILED for 5xx: the only place that decides permanence."""
        if self.code < 400:
            return Outcome.DONE
        return Outcome.DEFERRED if self.code < 500 else Outcome.FAILED

    def wire(self) -> bytes:
        """The octets to send: every line with the code, an enhanced code where there is one, within RFC 5321 §4.5.3.1.5."""
        prefix = f"{self.enhanced} " if self.enhanced else ""
        room = LINE_LIMIT - 6 - len(prefix)
        lines: list[bytes] = []
        for line in self.text.split("\n"):
            rest = printable(line).encode("utf-8", "replace")
            while len(rest) > room:
                cut = rest.rfind(b" ", 1, room)
                cut = cut if cut > 0 else _boundary(rest, room)
                lines.append(rest[:cut])
                rest = rest[cut:].lstrip(b" ")
            lines.append(rest)
        code = b"%d" % self.code
        lead = prefix.encode("ascii")
        body = b"".join(code + b"-" + lead + line + b"\r\n" for line in lines[:-1])
        return body + code + b" " + lead + lines[-1] + b"\r\n"

    def __str__(self) -> str:
        """The reply on one line, as logs and bounces show it."""
        return " ".join(part for part in (str(self.code), self.enhanced, printable(self.text.replace("\n", " "))) if part)


def _boundary(text: bytes, limit: int) -> int:
    """The last index at or before `limit` that does not cut a UTF-8 character."""
    while limit > 0 and text[limit] & 0xC0 == 0x80:
        limit -= 1
    return limit


def printable(text: str) -> str:
    """`text` with every run of controls, line ends, changes of direction and surrogates (octets that are no text) as one blank."""
    return _UNPRINTABLE.sub(" ", text)


def from_peer(code: int, lines: list[bytes]) -> Reply:
    """A peer's reply: `lines` are the texts behind the code, octets as received. Never raises; odd octets become printable.

    Of a text over PEER_LIMIT characters the beginning is kept, with an ellipsis: every recipient has a reply of its own, which goes into
    log, database and notification.
    """
    texts = [line.decode("utf-8", "backslashreplace") for line in lines]
    enhanced = ""
    found = _ENHANCED.match(texts[-1]) if texts else None
    if found and found[1][0] == str(code)[0]:
        enhanced = found[1]
        texts = [text[len(enhanced) :].lstrip(" ") if text.startswith(enhanced) else text for text in texts]
    text = "\n".join(printable(text) for text in texts)
    return Reply(code, enhanced, text if len(text) <= PEER_LIMIT else text[: PEER_LIMIT - len(ELLIPSIS)] + ELLIPSIS)
