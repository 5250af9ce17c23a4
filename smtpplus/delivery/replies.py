"""Reply lines of a peer put together to replies (RFC 5321 §4.2.1).

The peer is hostile: lines and replies have limits, and of many lines only the first and the last one are kept.
"""

from __future__ import annotations

from smtpplus.mail.reply import ELLIPSIS

LINE_LIMIT = 2048  # octets of a line that are kept; RFC 5321 §4.5.3.1.5 allows 512, enhanced codes and long hints exceed it
LONGEST_LINE = 65_536  # octets of a line that are read, ours
LINES_LIMIT = 256  # lines of one reply
LINES_KEPT = 64  # of them: the first, and the last one
_CODES = {b"%d" % code: code for code in range(200, 600)}  # RFC 5321 §4.2


class Malformed(Exception):
    """What came is no reply; str() says why. `code` is that of a reply that only has no end, else 0."""

    def __init__(self, cause: str, code: int = 0) -> None:
        super().__init__(cause)
        self.code = code


class Replies:
    """Takes lines, gives replies."""

    __slots__ = ("_code", "_lines", "_read")

    def __init__(self) -> None:
        self._code = 0
        self._lines: list[bytes] = []  # of the reply that is being read, those that are kept
        self._read = 0  # lines of it that are read

    def line(self, line: bytes) -> tuple[int, list[bytes]] | None:
        """The code and the lines of text of the reply that `line`, without its LF, completes; None if more lines follow. Malformed."""
        code = self._code_of(line)
        self._keep(line[4:LINE_LIMIT].rstrip(b"\r"))
        if line[3:4] == b"-":
            self._code = code
            if self._read > LINES_LIMIT:
                raise Malformed("a reply has no end", code)
            return None
        lines, self._lines, self._read = self._lines, [], 0
        return code, lines

    def endless(self, line: bytes) -> Malformed:
        """What a line is that begins so, and never ends."""
        try:
            return Malformed("a reply line has no end", self._code_of(line))
        except Malformed as fault:
            return fault

    def _code_of(self, line: bytes) -> int:
        code = _CODES.get(line[:3])
        if code is None or line[3:4] not in b" -\r":
            raise Malformed("a line is no reply: " + line[:80].decode("utf-8", "backslashreplace"))
        if self._lines and code != self._code:
            raise Malformed(f"one reply has the codes {self._code} and {code}")
        return code

    def _keep(self, text: bytes) -> None:
        """One more line of the reply: a peer may send many, but the reply shall not grow with them."""
        self._read += 1
        if self._read <= LINES_KEPT:
            self._lines.append(text)
        else:
            self._lines[-2:] = (ELLIPSIS.encode(), text)
