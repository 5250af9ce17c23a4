"""Octets from the client become command lines or pieces of data: a protocol without I/O.

A line ends with CRLF and with nothing else (RFC 5321 §2.3.8): a bare LF or CR never ends one, and a line that holds one, or that is
longer than its limit, is refused once and swallowed up to its real end, so that nothing of it runs as a command. What is handed
out does not depend on how the octets were cut on their way. Failure: `line` raises Refusal; the framer stays in step.
"""

from __future__ import annotations

from smtpplus.mail import reasons

COMMAND_LIMIT = 2_048  # octets of a command line with its CRLF: 512 and what extensions add, RFC 5321 §4.5.3.1.4, RFC 4954 §3
EXCHANGE_LIMIT = 12_288  # octets of a line of an AUTH exchange, RFC 4954 §4
_LONG = (b"AUTH ",)  # commands that may carry an initial response, and so are as long as an exchange line


class Framer:
    """The buffer between the socket and the session. Holds at most one read and an unfinished line."""

    __slots__ = ("_buffer", "_skipping", "_start")

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0
        self._skipping = False

    def __len__(self) -> int:
        """Octets that wait."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Append octets as they were received."""
        if self._start == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._start :] + data
        self._start = 0

    def line(self, limit: int = COMMAND_LIMIT) -> bytes | None:
        """The next line without its CRLF, or None until there is a whole one.

        Raises Refusal, once for each line that is longer than `limit` octets or holds a bare CR or LF.
        """
        if self._skipping and not self._skip():
            return None
        buffer, start = self._buffer, self._start
        end = buffer.find(b"\r\n", start)
        if 0 <= end <= start + limit - 2:
            line = buffer[start:end]
            if b"\n" not in line and b"\r" not in line:
                self._start = end + 2
                return line
        elif start == len(buffer):
            self._buffer, self._start = b"", 0  # an idle session keeps no data alive
            return None
        return self._odd_line(end, limit)

    def take(self, limit: int | None = None) -> bytes:
        """Everything that waits, or its first `limit` octets: for message data."""
        buffer, start = self._buffer, self._start
        if limit is None or limit >= len(buffer) - start:
            self._buffer, self._start = b"", 0
            return buffer[start:] if start else buffer
        self._start = start + limit
        return buffer[start : start + limit]

    def clear(self) -> None:
        """Forget what waits: whatever came in clear behind STARTTLS (RFC 3207 §4.2)."""
        self._buffer, self._start, self._skipping = b"", 0, False

    def _odd_line(self, end: int, limit: int) -> bytes | None:
        """A line that is unfinished, over its limit or holds a bare line end; `end` is the index of its CRLF, -1 if not there yet."""
        buffer, start = self._buffer, self._start
        if buffer[start : start + 5].upper() in _LONG:
            limit = max(limit, EXCHANGE_LIMIT)
        line = buffer[start:end] if end >= 0 else buffer[start:]
        bare = _first_bare(line, finished=end >= 0)
        length = len(line) + 2 if end >= 0 else len(line) + 1  # the least that the whole line will have
        if bare is None and length <= limit:
            if end < 0:
                return None
            self._start = end + 2
            return line
        if end >= 0:
            self._start = end + 2
        else:
            self._skipping = True
            self._skip()
        if bare is None or bare > limit:
            raise reasons.LINE_TOO_LONG.refusal(limit=str(limit))
        raise reasons.SYNTAX.refusal(cause="a CR or LF that is not part of CRLF")

    def _skip(self) -> bool:
        """Swallow the rest of a refused line; False if its CRLF is still to come."""
        end = self._buffer.find(b"\r\n", self._start)
        if end < 0:
            self._buffer, self._start = (b"\r" if self._buffer.endswith(b"\r") else b""), 0
            return False
        self._start, self._skipping = end + 2, False
        return True


def _first_bare(line: bytes, *, finished: bool) -> int | None:
    """How many octets of `line` had to be seen to know of a bare CR or LF; None if it has none. No CRLF is within `line`."""
    feed = line.find(b"\n")
    carriage = line.find(b"\r")
    if not finished and carriage == len(line) - 1:
        carriage = -1  # its LF may be on the way
    known = [index for index in (feed + 1 if feed >= 0 else 0, carriage + 2 if carriage >= 0 else 0) if index]
    return min(known, default=None)
