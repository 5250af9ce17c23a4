"""An 8-bit MIME message in 7 bits, for a peer without 8BITMIME (RFC 6152 §3): leaf parts become quoted-printable.

It works line by line on pieces of any size and holds a header or a line at most, whatever the length of the message. What is to be
converted is not known before it is read, so a message is gone through twice: a `Survey` finds the parts with octets outside ASCII, and
a `Conversion` encodes them. Multiparts and messages within messages are gone into, never encoded themselves (RFC 2045 §6.4); only
their label changes.

`Unconvertible` is raised where the result would not be the same message, or where readers may disagree about what the parts are: no
MIME message, 8-bit octets in a header or outside the parts, what is signed (RFC 1847, DKIM), an encoding that says
otherwise, a header that is not clean. Invariant: what is decoded from the result is what was decoded before; all that needs no
conversion passes byte-exact.
"""

from __future__ import annotations

import re
from collections.abc import Set

from smtpplus.mail import quoted_printable
from smtpplus.mail.header import HEADER_LIMIT, Header
from smtpplus.mail.reasons import Refusal

LINE_LIMIT = 65_536  # octets; RFC 5322 §2.1.1 allows 998
DEPTH = 20  # parts within parts, and messages within messages: as sendmail, which converts too (MAXMIMENESTING)

_ENCODING, _TEXT, _MESSAGE = "content-transfer-encoding", "text/plain", "message/rfc822"
_COLON = ord(":")
_BLANKS = b" \t"
_UNCLEAR = "its parts cannot be told apart"
_PLAIN = ("", "7bit", "8bit")  # what may be encoded: RFC 2045 §6.2, without binary, which is not made of lines
_TYPE = re.compile(r"([!#$%&'*+.^_`{|}~0-9a-z-]+)/([!#$%&'*+.^_`{|}~0-9a-z-]+)\s*(?:;|$)", re.IGNORECASE | re.ASCII).match
_BOUNDARY = re.compile(r";\s*boundary\s*=\s*(?:\"([^\"\\]{1,70})\"|([^\s\"()<>@,;:\\/\[\]?=]{1,70}))\s*(?=;|$)", re.IGNORECASE | re.ASCII)


class Unconvertible(Exception):
    """The message cannot be converted; says why."""


class _Walk:
    """Goes through a message line by line, and says what becomes of it."""

    def __init__(self) -> None:
        self._rest = b""  # of a line
        self._header: list[bytes] | None = []  # lines of the one that is being read; None in a body
        self._length = 0  # of these
        self._boundaries: list[bytes] = []  # of the multiparts around, the innermost last
        self._delimiters: dict[bytes, int] = {}  # theirs, without blanks at the end → how many multiparts that one's is among
        self._defaults: list[str] = []  # types of parts of these that name none
        self._assumed = _TEXT  # type of the one whose header is being read, if that names none
        self._messages = 0  # headers of messages so far: its own, and those of messages within
        self._in_message = True  # the header that is being read is a message's
        self._signed = 0  # how many multiparts there are around what is signed, with the signed one; 0: none is
        self._leaf = -1  # number of the leaf whose body was begun last
        self._encodes = False  # that body is encoded
        self._may = False  # it could be
        self._out: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """What the next octets become, as far as their lines have ended."""
        data = self._rest + data
        end = data.rfind(b"\r\n") + 2
        if end < 2:
            end = 0
        self._rest = data[end:]
        if len(self._rest) > LINE_LIMIT:
            raise Unconvertible("a line is too long")
        if end:
            self._lines(data[: end - 2].split(b"\r\n"))
        out, self._out = self._out, []
        return b"".join(out)

    def finish(self) -> bytes:
        """What is left at the end."""
        if self._header is not None:
            raise Unconvertible("a header has no end")
        if self._rest.rstrip(_BLANKS) in self._delimiters:
            self._out.append(self._rest)
        else:
            self._body([self._rest], end=b"")
        out, self._out = self._out, []
        return b"".join(out)

    def _lines(self, lines: list[bytes]) -> None:
        block: list[bytes] = []
        for line in lines:
            if line[:2] == b"--" and line.rstrip(_BLANKS) in self._delimiters:  # RFC 2046 §5.1.1
                if block:
                    self._body(block)
                    block = []
                self._delimited(line)
            elif self._header is None:
                block.append(line)
            elif line:
                self._header.append(line)
                self._length += len(line) + 2
                if self._length > HEADER_LIMIT:
                    raise Unconvertible("a header is too long")
            else:
                self._begin(self._header)
        if block:
            self._body(block)

    def _delimited(self, line: bytes) -> None:
        """A part ends, and maybe those around it (RFC 2046 §5.1.2)."""
        if self._header:
            raise Unconvertible("a header has no end")
        text = line.rstrip(_BLANKS)
        while len(self._boundaries) > self._delimiters[text]:
            self._leave()
        self._encodes = self._may = False
        self._out.append(line + b"\r\n")
        if text == b"--" + self._boundaries[-1]:
            self._header, self._length = [], 0
            self._assumed, self._in_message = self._defaults[-1], False
        else:
            self._leave()
            self._header = None

    def _leave(self) -> None:
        for delimiter in _delimiters(self._boundaries.pop()):
            del self._delimiters[delimiter]
        self._defaults.pop()
        if len(self._boundaries) < self._signed:
            self._signed = 0

    def _begin(self, lines: list[bytes]) -> None:
        """The header of a message or part is whole: what follows?"""
        header = _read(lines)
        self._header = None
        if self._in_message:
            self._messages += 1
            if not header.has("mime-version") and (self._messages == 1 or header.has("content-type") or header.has(_ENCODING)):
                raise Unconvertible("it is no MIME message")
            if self._messages == 1 and header.has("dkim-signature"):
                raise Unconvertible("it is signed by DKIM")
        kind, boundary = _type(header, self._assumed)
        encoding = _one(header, _ENCODING).lower()
        if kind.startswith("multipart/"):
            self._open(kind, boundary)
            self._label(header, encoding)
        elif kind == _MESSAGE and encoding in _PLAIN:
            self._label(header, encoding)
            if self._messages > DEPTH:
                raise Unconvertible(_UNCLEAR)
            self._header, self._length = [], 0
            self._assumed, self._in_message = _TEXT, True
        else:
            self._leaf += 1
            self._may = encoding in _PLAIN and not kind.startswith("message/") and (not self._in_message or header.has("mime-version"))
            self._encodes = self._may and self._changes(self._leaf, said=encoding == "8bit")
            self._out.append(_relabelled(header, b"quoted-printable") if self._encodes else header.octets)

    def _open(self, kind: str, boundary: bytes) -> None:
        """A multipart begins."""
        alike = (boundary, boundary + b"--", boundary.removesuffix(b"--"))
        if len(self._boundaries) >= DEPTH or any(each in alike for each in self._boundaries):
            raise Unconvertible(_UNCLEAR)
        self._boundaries.append(boundary)
        self._delimiters.update(dict.fromkeys(_delimiters(boundary), len(self._boundaries)))
        self._defaults.append(_MESSAGE if kind == "multipart/digest" else _TEXT)
        if kind == "multipart/signed" and not self._signed:
            self._signed = len(self._boundaries)
        self._encodes = self._may = False

    def _label(self, header: Header, encoding: str) -> None:
        """What has parts is as its parts are."""
        if encoding not in _PLAIN:
            raise Unconvertible("its parts are encoded as a whole")
        if encoding != "8bit":
            self._out.append(header.octets)
            return
        self._check()
        self._out.append(_relabelled(header, b"7bit"))

    def _check(self) -> None:
        if self._signed:
            raise Unconvertible("it is signed")

    def _body(self, lines: list[bytes], end: bytes = b"\r\n") -> None:
        octets = b"\r\n".join(lines) + end
        if not octets.isascii():
            if not self._may:
                raise Unconvertible("there are 8-bit octets where none can be")
            self._check()
            self._found(self._leaf)
        if self._encodes:
            octets = quoted_printable.encoded(octets)
        self._out.append(octets)

    def _changes(self, leaf: int, *, said: bool) -> bool:
        """Whether the leaf with that number is encoded; `said`: its header says that it is 8-bit."""
        raise NotImplementedError

    def _found(self, leaf: int) -> None:
        """Its body has 8-bit octets."""


class Survey(_Walk):
    """Finds the `leaves` that are to be encoded, by their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: set[int] = set()

    def _changes(self, leaf: int, *, said: bool) -> bool:
        if said:
            self._check()
            self.leaves.add(leaf)
        return False

    def _found(self, leaf: int) -> None:
        self.leaves.add(leaf)


class Conversion(_Walk):
    """Makes these leaves 7-bit."""

    def __init__(self, leaves: Set[int]) -> None:
        super().__init__()
        self._leaves = leaves

    def _changes(self, leaf: int, *, said: bool) -> bool:
        return leaf in self._leaves


def _delimiters(boundary: bytes) -> tuple[bytes, bytes]:
    return b"--" + boundary, b"--" + boundary + b"--"


def _relabelled(header: Header, encoding: bytes) -> bytes:
    return header.compose(remove={_ENCODING}, append=b"Content-Transfer-Encoding: " + encoding + b"\r\n")


def _read(lines: list[bytes]) -> Header:
    octets = b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    if not octets.isascii():
        raise Unconvertible("a header has 8-bit octets")
    try:
        header = Header.parse(octets)
    except Refusal:
        raise Unconvertible("a header cannot be read") from None
    if header.malformed:
        raise Unconvertible("a header cannot be read")
    if any(field.raw[len(field.name)] != _COLON for field in header.fields):  # RFC 5322 §4.5: for some readers the header ends there
        raise Unconvertible("a header is not clean, with a blank before a colon")
    return header


def _one(header: Header, name: str) -> str:
    found = header.values(name)
    if len(found) > 1:
        raise Unconvertible(f"a header has {name} twice")
    return found[0] if found else ""


def _type(header: Header, default: str) -> tuple[str, bytes]:
    """The type of what follows, in lower case; of a multipart its boundary."""
    text = _one(header, "content-type") or default
    found = _TYPE(text)
    if found is None:
        raise Unconvertible("a header has no type that can be read")
    kind = f"{found[1]}/{found[2]}".lower()
    if not kind.startswith("multipart/"):
        return kind, b""
    boundaries = _BOUNDARY.findall(text)
    if len(boundaries) != 1 or "(" in text or text.lower().count("boundary") != 1:
        raise Unconvertible(_UNCLEAR)
    boundary = (boundaries[0][0] or boundaries[0][1]).rstrip()
    if not boundary:
        raise Unconvertible(_UNCLEAR)
    return kind, boundary.encode()
