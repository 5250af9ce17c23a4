"""Dots at line starts and the end of data, both ways (RFC 5321 §4.5.2), on whole buffers and never line by line; and data without dots.

Invariant: the result does not depend on how the stream was cut into buffers. The data ends at CRLF "." CRLF and at nothing else; the CRLF
of the DATA command line counts as the first one (RFC 5321 §4.1.1.4). A CR or LF outside CRLF never ends anything: it is
flagged, since a server that read it otherwise would see two messages in one (SMTP smuggling).
"""

from __future__ import annotations

import io

_END = b"\r\n.\r\n"


class Unstuffer:
    """Incoming data. After `finished` turns true, `rest` holds the octets behind the end of data, and `feed` adds to it.

    At most 4 octets wait for the next buffer.
    """

    __slots__ = ("_held", "_newlines", "_start", "_watch", "finished", "rest")

    def __init__(self) -> None:
        self._held = b"\r\n"  # what could be the beginning of _END; at first the CRLF of the DATA command
        self._start = True  # that CRLF is not ours to give out
        self.finished = False
        newlines = io.IncrementalNewlineDecoder(None, translate=False)
        self._newlines = newlines
        self._watch = newlines.decode
        self.rest = b""

    @property
    def bare(self) -> bool:
        """A bare CR or LF was seen before the end (the data is read to its end all the same)."""
        # The interpreter's own line end detector: it names the kinds it met, in a third of the time that counting takes.
        return self._newlines.newlines not in {None, "\r\n"}

    def feed(self, data: bytes) -> bytes:
        """The clear octets that `data` completes; b"" where it completes none."""
        if self.finished:
            self.rest += data
            return b""
        data = self._held + data
        # Searching backwards is several times faster than forwards, and looking for one octet ten times as fast again: base64 has no dots.
        last = data.rfind(b"\r\n.") if b"." in data else -1
        dots = last >= 0 and data.rfind(b"\r\n.", 0, last) >= 0
        end = -1
        if last >= 0:
            end = data.find(_END) if dots else last if data.startswith(_END, last) else -1
        if end >= 0:
            self.finished = True
            self.rest = data[end + 5 :]
            self._held = b""
            data = data[: end + 2]
        else:
            dots = last >= 0
            keep = _beginning_at_end_of(data)
            if keep:
                self._held = data[-keep:]
                data = data[:-keep]
            else:
                self._held = b""
        self._watch(data.decode("latin-1"))
        if dots:
            data = data.replace(b"\r\n.", b"\r\n")  # the first dot goes, whatever follows it
        if self._start and data:
            self._start = False
            return data[2:]
        return data


class Literal:
    """Incoming data whose length is told beforehand (BDAT, RFC 3030 §2): content as it is. It has the face of an Unstuffer.

    A CR or LF outside CRLF is flagged here too: the content may go on by DATA, where it would be as dangerous.
    """

    __slots__ = ("_newlines", "_watch", "finished")
    rest = b""

    def __init__(self) -> None:
        newlines = io.IncrementalNewlineDecoder(None, translate=False)
        self._newlines = newlines
        self._watch = newlines.decode
        self.finished = False

    @property
    def bare(self) -> bool:
        """A bare CR or LF was seen; a CR at the very end is one only when `finish` says that it is the end."""
        return self._newlines.newlines not in {None, "\r\n"}

    def feed(self, data: bytes) -> bytes:
        """`data`."""
        self._watch(data.decode("latin-1"))
        return data

    def finish(self) -> None:
        """No more will come."""
        self._watch("", True)
        self.finished = True


def _beginning_at_end_of(data: bytes) -> int:
    """How many octets at the end of `data` could be the beginning of CRLF "." CRLF: 0..4."""
    last = data[-1:]
    if last == b"\r":
        return 4 if data.endswith(b"\r\n.\r") else 1
    if last == b"\n":
        return 2 if data.endswith(b"\r\n") else 0
    return 3 if last == b"." and data.endswith(b"\r\n.") else 0


class Stuffer:
    """Outgoing data: content with CRLF line ends in, the octets for the wire out."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = b"\r\n"  # the last two octets given out; at first the CRLF of the DATA command

    def feed(self, data: bytes) -> bytes:
        """`data` with a dot before each dot at a line start."""
        if not data:
            return data
        last = self._last
        self._last = data[-2:] if len(data) > 1 else last[-1:] + data
        if b"." in data and data.rfind(b"\r\n.") >= 0:
            data = data.replace(b"\r\n.", b"\r\n..")
        if data[0] == 0x2E and last == b"\r\n":
            return b"." + data
        if data[0] == 0x0A and last[-1:] == b"\r" and data[1:2] == b".":
            return b"\n." + data[1:]
        return data

    def finish(self) -> bytes:
        """The octets that end the data: a CRLF if the last line has none, then the final dot."""
        return b".\r\n" if self._last == b"\r\n" else _END
