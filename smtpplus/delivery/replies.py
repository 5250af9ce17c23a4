"""Reply lines of a peer put together to replies (RFC 5321 §4.2.1).

The peer is hostile: lines and replies have limits, and of many lines only the first and the last one are kept.
"""

from __future__ import annotations

from smtpplus.mail.reply import ELLIPSIS

LINE_LIMIT = 2048  # octets; RFC 5321 §4.5.3.1.5 allows 512, enhanced codes and long hints exceed it
LINES_LIMIT = 256  # lines of one reply
LINES_KEPT = 64  # of them: the first, and the last one
_CODES = {b"%d" % code: code for code in range(200, 600)}  # RFC 5321 §4.2


class Malformed(Exception):
    """What came is no reply; str() says why."""


class Replies:
    """Takes lines, gives replies."""

    __slots__ = ("_code", "_lines", "_read")

    def __init__(self) -> None:
        self._code = 0
        self._lines: list[bytes] = []  # of the reply that is being read, those that are kept
        self._read = 0  # lines of it that are read

    def line(self, line: bytes) -> tuple[int, list[bytes]] | None:
        """The code and the lines of text of the reply that `line`, without its LF, completes; None if more lines follow. Malformed."""
        code = _CODES.get(line[:3])
        mark = line[3:4]
        if code is None or mark not in b" -\r" or len(line) > LINE_LIMIT:
            raise Malformed("a line is no reply: " + line[:80].decode("utf-8", "backslashreplace"))
        if self._lines and code != self._code:
            raise Malformed(f"one reply has the codes {self._code} and {code}")
        self._keep(line[4:].rstrip(b"\r"))
        if mark == b"-":
            self._code = code
            if self._read > LINES_LIMIT:
                raise Malformed("a reply has no end")
            return None
        lines, self._lines, self._read = self._lines, [], 0
        return code, lines

    def _keep(self, text: bytes) -> None:
        """One more line of the reply: a peer may send many, but the reply shall not grow with them."""
        self._read += 1
        if self._read <= LINES_KEPT:
            self._lines.append(text)
        else:
            self._lines[-2:] = (ELLIPSIS.encode(), text)
