"""The header of a message as octets (RFC 5322 §2.2): found, read, and composed anew with untouched fields byte-exact.

Work is proportional to the header, never to the body. The first line that is not a field ends the header, as it does in every mail client:
`compose` puts the empty line before it, so that nobody downstream can read fields behind it that were not read here. Reading raises
a Refusal for NUL and for a header over HEADER_LIMIT; everything else is taken as it is.

Field bodies are unfolded and decoded as UTF-8 with surrogate escapes, so that any octets survive the way to str and back.
"""

from __future__ import annotations

import base64
import itertools
import re
from typing import Collection

import msgspec

from smtpplus.mail import charset, reasons
from smtpplus.mail.reply import printable

HEADER_LIMIT = 262_144  # octets of a header with its empty line; mail servers commonly stop at 100 to 500 KiB

# RFC 5322 §2.2 and §4.5: name, blanks (obsolete), colon, body, folded lines
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*").match
_FOLD = re.compile(rb"\r?\n(?=[ \t])")


class Field(msgspec.Struct, frozen=True):
    """One field: `name` in lower case, `raw` its octets with folding and final CRLF."""

    name: str
    raw: bytes

    @property
    def value(self) -> str:
        """The body, unfolded and stripped."""
        body = self.raw[self.raw.index(b":") + 1 :]
        if body.count(b"\n") > 1:
            body = _FOLD.sub(b"", body)
        return body.strip().decode("utf-8", "surrogateescape")


class Header:
    """A header, read once. `unread` is what follows the last field: normally the empty line alone."""

    __slots__ = ("_named", "fields", "octets", "unread")

    def __init__(self, octets: bytes, fields: list[Field], unread: bytes) -> None:
        self.octets = octets
        self.fields = fields
        self.unread = unread
        self._named: dict[str, list[Field]] = {}
        for field in fields:
            name = field.name
            if name in self._named:
                self._named[name].append(field)
            else:
                self._named[name] = [field]

    @classmethod
    def parse(cls, octets: bytes) -> Header:
        """Read `octets`: everything up to and including the empty line, or a whole message that has none. Refusal (BAD_HEADER)."""
        if len(octets) > HEADER_LIMIT:
            raise reasons.BAD_HEADER.refusal(cause=f"it is longer than {HEADER_LIMIT} octets")
        if 0 in octets:
            raise reasons.BAD_HEADER.refusal(cause="it has a NUL octet")
        if not octets.endswith(b"\n"):
            octets += b"\r\n"
        fields: list[Field] = []
        position = 0
        while found := _FIELD(octets, position):
            fields.append(Field(found[1].decode("ascii").lower(), found[0]))
            position = found.end()
        return cls(octets, fields, octets[position:])

    @property
    def malformed(self) -> str:
        """The first line that is not a field, printable; "" if there is none."""
        line = self.unread.partition(b"\r\n")[0]
        return printable(line.decode("utf-8", "backslashreplace"))

    def values(self, name: str) -> list[str]:
        """The bodies of all fields called `name` (lower case), in order, unfolded and stripped."""
        found = self._named.get(name)
        return [field.value for field in found] if found else []

    def raw(self, name: str) -> list[bytes]:
        """The octets of all fields called `name` (lower case), in order."""
        found = self._named.get(name)
        return [field.raw for field in found] if found else []

    def has(self, name: str) -> bool:
        """Whether there is a field called `name` (lower case)."""
        return name in self._named

    def encoded(self) -> Header:
        """This header with raw 8-bit fields in encoded words, as far as `encode_field` can (B9); untouched fields are the same octets."""
        fields = [field if field.raw.isascii() else Field(field.name, encode_field(field.raw)) for field in self.fields]
        return Header(b"".join(field.raw for field in fields) + self.unread, fields, self.unread)

    def compose(self, *, remove: Collection[str] = (), prepend: bytes = b"", append: bytes = b"") -> bytes:
        """The header with its empty line, and whatever was `unread` behind it.

        Fields whose lower-case name is in `remove` are left out; `prepend` and `append` are whole fields with CRLF.
        """
        if any(name in self._named for name in remove):
            kept = b"".join(field.raw for field in self.fields if field.name not in remove)
        else:
            kept = self.octets[: len(self.octets) - len(self.unread)]
        end = b"" if self.unread.startswith(b"\r\n") else b"\r\n"
        return b"".join((prepend, kept, append, end, self.unread))


def find_header_end(data: bytes | bytearray, start: int = 0) -> int:
    """The index just behind the empty line that ends the header, or -1. Octets before `start` were searched before, in vain."""
    if data.startswith(b"\r\n"):
        return 2
    end = data.find(b"\r\n\r\n", max(0, start - 3))
    return end + 4 if end >= 0 else -1


# --- encoded words, RFC 2047 (B9) -------------------------------------------------------------------------------------------------

SHOWN_LIMIT = 2_000  # characters of a field body that `decoded` looks at; a line of a header has 998, RFC 5322 §2.1.1
WORDS_LIMIT = 100  # encoded words that `decoded` decodes, far more than a subject has

# Tolerant: blanks inside the text, as people write them by hand, and a question mark at its end; a language tag (RFC 2231 §5). A question
# mark within the text ends the word, as RFC 2047 §2 has it: so each octet is looked at for one word only.
_ENCODED_WORD = re.compile(r"=\?([\w.:+-]+)(?:\*[\w-]*)?\?([bBqQ])\?([^?]*\??)\?=", re.ASCII)
_SURROGATES = re.compile("[\ud800-\udfff]+")
_Q_OCTET = re.compile(rb"=([0-9A-Fa-f]{2})")
_Q_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")  # RFC 2047 §5 (3): safe in a phrase too
_WORD_TEXT = 39  # octets in one encoded word: 52 characters of base64, so that "Subject: =?utf-8?B?…?=" is within 76, RFC 2047 §2
_ADDRESS_FIELDS = frozenset(
    (
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "bcc",
        "resent-from",
        "resent-sender",
        "resent-reply-to",
        "resent-to",
        "resent-cc",
        "resent-bcc",
    )
)
_TEXT_FIELDS = frozenset(("subject", "comments", "content-description", "organization", "user-agent", "thread-topic"))
# A quoted string without an end reaches to the end of the field: it must not be looked for again from each quotation mark within
_PHRASE_PART = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|<[^<>]*>|[^\s"<>(),:;]+|\s+|.', re.DOTALL)
_QUOTED = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL).fullmatch
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)


def decoded(value: str) -> str:
    """A field body as a person reads it: encoded words decoded, blanks between two of them dropped, nothing unprintable left.

    Never raises: an encoded word of a charset that is not in mail.charset, or with broken base64, stays as it is written, and so do
    those behind WORDS_LIMIT others. What is behind SHOWN_LIMIT characters is left out; so the text has that many at most.
    """
    return printable(_SURROGATES.sub("\ufffd", _decode_words(value[:SHOWN_LIMIT], WORDS_LIMIT)))


def _decode_words(value: str, most: int) -> str:
    """`value` with its encoded words decoded, `most` of them."""
    pieces: list[str] = []
    pending: list[bytes] = []  # a character may be cut between two words of one charset, against RFC 2047 §5 but seen
    name = ""
    position = 0
    for word in itertools.islice(_ENCODED_WORD.finditer(value), most):
        given = word[1].lower()
        octets = _word_octets(word[2], word[3]) if charset.known(given) else None
        if octets is None:
            continue
        between = value[position : word.start()]
        apart = not position or bool(between.strip())
        if apart or given != name:
            pieces.append(charset.decode(b"".join(pending), name))
            if apart:
                pieces.append(_readable(between))
            pending, name = [], given
        pending.append(octets)
        position = word.end()
    pieces += [charset.decode(b"".join(pending), name), _readable(value[position:])]
    return "".join(pieces)


def _readable(text: str) -> str:
    """Text without surrogate escapes."""
    if text.isascii():
        return text
    try:
        return charset.guess(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # surrogates that stand for no octet
        return text


def _word_octets(encoding: str, text: str) -> bytes | None:
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    if encoding in "qQ":
        return _Q_OCTET.sub(lambda found: bytes((int(found[1], 16),)), raw.replace(b"_", b" "))
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4))
    except ValueError:
        return None


def encode_field(raw: bytes) -> bytes:
    """A whole field (name to final CRLF) in ASCII: 8-bit text becomes encoded words. Folds are kept.

    For fields of text (Subject, Comments, X-…) and for display names in fields of addresses. A field that is ASCII already, that has
    8-bit octets in an address, or that has another structure (Content-Type …), comes back as it is.
    """
    if raw.isascii():
        return raw
    name, colon, body = raw.partition(b":")
    lower = name.strip().decode("ascii", "replace").lower()
    text = body.strip()
    if text.isascii() or not name.isascii():
        return raw
    if lower in _ADDRESS_FIELDS:
        encoded = _encode_names(text)
    elif lower in _TEXT_FIELDS or lower.startswith("x-"):
        encoded = _encode_text(text)
    else:
        return raw
    return name + colon + b" " + encoded + b"\r\n" if encoded.isascii() else raw


def _encode_text(text: bytes) -> bytes:
    """The stretch from the first to the last word with 8-bit octets as encoded words; the ASCII around it stays."""
    words = re.split(rb"([ \t\r\n]+)", text)
    eight_bit = [index for index, word in enumerate(words) if not word.isascii()]
    first, last = eight_bit[0], eight_bit[-1]
    # Blanks between encoded words are not shown (RFC 2047 §6.2): beside one, and beside what looks like one, take all
    if first and words[first - 2].endswith(b"?="):
        first = 0
    if last + 2 < len(words) and words[last + 2].startswith(b"=?"):
        last = len(words) - 1
    stretch = _FOLD.sub(b"", b"".join(words[first : last + 1]))
    if b"=?" in stretch:
        stretch = _decode_words(stretch.decode("utf-8", "surrogateescape"), len(stretch)).encode("utf-8", "replace")
    before, after = b"".join(words[:first]).rstrip(), b"".join(words[last + 1 :]).lstrip()
    fold = b"\r\n " if before else b""
    return before + fold + _words(stretch) + (b"\r\n " + after if after else b"")


def _encode_names(text: bytes) -> bytes:
    """Atoms and quoted strings with 8-bit octets as encoded words. Comments and addresses are left, and with them the whole field;
    also a quoted string without an end."""
    encoded: list[bytes] = []
    pending: list[bytes] = []  # what runs of 8-bit words have said so far: neighbours become one, so that the blank between them is kept
    blank = b""
    for part in _PHRASE_PART.findall(text):
        if part.isspace():
            blank += part
            continue
        if part.isascii() or part.startswith(b"<") or b"@" in part.partition(b'"')[0]:
            if pending:
                encoded.append(_words(b"".join(pending) + (b" " if part.startswith(b"=?") else b"")))
                pending = []
                blank = blank or b" "  # RFC 2047 §5 (3): a blank behind an encoded word
            encoded.append(blank + part)
        else:
            word = part
            if part.startswith(b'"'):
                if not _QUOTED(part):
                    return text
                word = _QUOTED_PAIR.sub(rb"\1", _FOLD.sub(b"", part[1:-1]))
            if pending:
                pending += (b" ", word)
            else:
                pending = [b" ", word] if encoded and encoded[-1].endswith(b"?=") else [word]
                encoded.append(blank)
        blank = b""
    return b"".join(encoded) + (_words(b"".join(pending)) if pending else b"")


def _words(octets: bytes) -> bytes:
    """`octets` as encoded words, folded, each whole in itself: the shorter of Q and B."""
    try:
        octets.decode("utf-8")
        name = b"utf-8"
    except UnicodeDecodeError:
        name = charset.UNKNOWN.encode()
    q = sum(1 if octet in _Q_PLAIN or octet == 0x20 else 3 for octet in octets) <= len(octets) * 4 // 3 + 2
    words: list[bytes] = []
    start = 0
    while start < len(octets):
        end = _word_end(octets, start, 18 if q else _WORD_TEXT, name == b"utf-8")
        piece = octets[start:end]
        if q:
            body = b"".join(b"_" if octet == 0x20 else b"%c" % octet if octet in _Q_PLAIN else b"=%02X" % octet for octet in piece)
        else:
            body = base64.b64encode(piece)
        words.append(b"=?%s?%s?%s?=" % (name, b"Q" if q else b"B", body))
        start = end
    return b"\r\n ".join(words)


def _word_end(octets: bytes, start: int, most: int, utf8: bool) -> int:
    end = min(len(octets), start + most)
    while utf8 and end < len(octets) and octets[end] & 0xC0 == 0x80:
        end -= 1
    return end
