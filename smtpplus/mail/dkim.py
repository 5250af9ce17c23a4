"""What a DKIM signature says and over which octets it is made (RFC 6376, RFC 8463), without keys and without any I/O.

Canonicalization is relaxed/relaxed. A signature covers the fields of `SIGNED` that the header has, each as often as it occurs, and
From once more than it occurs, so that none can be added on the way (RFC 6376 §8.15). The body goes through `BodyHash` in pieces cut
anyhow; it holds back at most two octets and a count, whatever the body is. What is hashed is the message as it goes over the wire: a
last line without an end gets one, as in transmission.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Literal

import msgspec

from smtpplus.mail.address import AddressError, header_mailboxes, normalize_domain
from smtpplus.mail.header import Header

Algorithm = Literal["rsa", "ed25519"]
SIGNED = frozenset(
    (  # RFC 6376 §5.4.1, RFC 8058 §4
        "from",
        "sender",
        "reply-to",
        "subject",
        "date",
        "message-id",
        "to",
        "cc",
        "mime-version",
        "content-type",
        "content-transfer-encoding",
        "in-reply-to",
        "references",
        "list-id",
        "list-help",
        "list-post",
        "list-owner",
        "list-archive",
        "list-subscribe",
        "list-unsubscribe",
        "list-unsubscribe-post",
    )
)
_ALGORITHM = {"rsa": "rsa-sha256", "ed25519": "ed25519-sha256"}
_FOLD_AT = 72  # octets of a line of the field
_CRLFS = b"\r\n" * 16_384
_USUAL = 64  # names in tag h= whose spelling is remembered
_STRING = 255  # octets of one string of a TXT record, RFC 1035 §3.3


class BodyHash:
    """SHA-256 of the body in relaxed canonicalization (RFC 6376 §3.4.4)."""

    __slots__ = ("_ended", "_hash", "_held", "_lines", "_some")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._held = b""  # blank and CR that may be the end of a line
        self._lines = 0  # line ends that are not hashed yet: at the end of the body they do not count
        self._some = False  # anything but empty lines came
        self._ended = b""  # the last octets fed

    def feed(self, data: bytes) -> None:
        """Octets of the body."""
        if not data:
            return
        self._ended = data[-2:] if len(data) > 1 else self._ended[-1:] + data
        if self._held:
            data = self._held + data
        data = _reduced(data)
        keep = 0
        if data.endswith(b"\r"):
            keep = 2 if data.endswith(b" \r") else 1
        elif data.endswith(b" "):
            keep = 1
        if keep:
            self._held, data = data[-keep:], data[:-keep]
        else:
            self._held = b""
        self._add(data)

    def finish(self) -> bytes:
        """The hash; nothing may be fed any more."""
        if self._ended and self._ended != b"\r\n":
            self.feed(b"\r\n")
        if self._some:
            self._hash.update(b"\r\n")
        return self._hash.digest()

    def _add(self, data: bytes) -> None:
        text = data.rstrip(b"\r\n")
        ends = data[len(text) :]
        count, odd = divmod(len(ends), 2)
        if odd or ends != _CRLFS[: len(ends)]:  # bare ones among them are text
            count = _line_ends(ends)
            text = data[: len(data) - 2 * count]
        if text:
            while self._lines > 0:
                self._hash.update(_CRLFS[: 2 * self._lines])
                self._lines -= len(_CRLFS) // 2
            self._hash.update(text)
            self._some = True
            self._lines = count
        else:
            self._lines += count


def _line_ends(data: bytes) -> int:
    """How many CRLF stand at the end of `data`."""
    end = len(data)
    while data.endswith(b"\r\n", 0, end):
        end -= 2
    return (len(data) - end) // 2


def _reduced(data: bytes) -> bytes:
    """Runs of blanks as one blank, and none before a line end."""
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data.replace(b" \r\n", b"\r\n") if b" \r\n" in data else data


class Covered(msgspec.Struct, frozen=True):
    """The part of the header that is signed: the names as tag h= has them, and the fields canonicalized."""

    names: tuple[str, ...]
    octets: bytes


def cover(header: Header) -> Covered:
    """What signatures of a message with this header cover, from the last field to the first (RFC 6376 §5.4.2)."""
    fields = [field for field in reversed(header.fields) if field.name in SIGNED]
    names = [field.name for field in fields]
    return Covered((*names, "from"), b"".join([_canonical(field.name.encode(), field.raw) for field in fields]))


def _canonical(name: bytes, raw: bytes) -> bytes:
    """A field in relaxed canonicalization (RFC 6376 §3.4.2)."""
    value = raw[raw.index(b":") + 1 :].replace(b"\r\n", b"")
    if b"\r" in value or b"\n" in value or b"\x0b" in value or b"\x0c" in value:  # these are no blanks here
        return b"%s:%s\r\n" % (name, _reduced(value).strip(b" "))
    return b"%s:%s\r\n" % (name, b" ".join(value.split()))


def outline(covered: Covered, body_hash: bytes, *, algorithm: Algorithm, domain: str, selector: str, at: float) -> bytes:
    """The field DKIM-Signature up to the signature itself (RFC 6376 §3.5); `at` is seconds since the epoch."""
    lines = [
        f"DKIM-Signature: v=1; a={_ALGORITHM[algorithm]}; c=relaxed/relaxed; t={int(at)};".encode(),
        f"d={domain}; s={selector};".encode(),
    ]
    named = _named if len(covered.names) <= _USUAL else _named.__wrapped__
    lines += [named(covered.names), b"bh=%s;" % base64.b64encode(body_hash), b"b="]
    return b"\r\n ".join(lines)


@functools.lru_cache(maxsize=1024)
def _named(names: tuple[str, ...]) -> bytes:
    """The tag h=, folded."""
    lines = ["h="]
    for number, name in enumerate(names, 1):
        part = name + (":" if number < len(names) else ";")
        if len(lines[-1]) + len(part) > _FOLD_AT:
            lines.append("")
        lines[-1] += part
    return "\r\n ".join(lines).encode()


def signing_input(covered: Covered, outlined: bytes) -> bytes:
    """The octets whose SHA-256 is signed (RFC 6376 §3.7)."""
    return covered.octets + b"dkim-signature:" + outlined.removeprefix(b"DKIM-Signature: ").replace(b"\r\n ", b" ")


def field(outlined: bytes, signature: bytes) -> bytes:
    """The whole field, with CRLF."""
    text = base64.b64encode(signature)
    lines = [text[start : start + _FOLD_AT] for start in range(0, len(text), _FOLD_AT)]
    return outlined + b"\r\n ".join(lines) + b"\r\n"


def author_domains(value: str) -> tuple[str, ...]:
    """The domains of the mailboxes in a From, normalized, in their order; none if it cannot be read."""
    try:
        addresses = [address for _, address in header_mailboxes(value)]
        return tuple(dict.fromkeys(normalize_domain(address.rpartition("@")[2]) for address in addresses))
    except AddressError:
        return ()


def record_name(domain: str, selector: str) -> str:
    """Where the public key is published (RFC 6376 §3.6.2.1)."""
    return f"{selector}._domainkey.{domain}"


def record(algorithm: Algorithm, public_key: bytes) -> str:
    """The text of the TXT record; `public_key` is a SubjectPublicKeyInfo for RSA, 32 octets for Ed25519 (RFC 8463 §4)."""
    return f"v=DKIM1; k={algorithm}; p={base64.b64encode(public_key).decode()}"


def strings(text: str) -> list[str]:
    """The text of a TXT record in the strings it is made of."""
    return [text[start : start + _STRING] for start in range(0, len(text), _STRING)]


def published_key(text: str) -> tuple[str, str]:
    """Key type and public key, base64 without blanks, of a TXT record (RFC 6376 §3.6.1); ("", "") if it is none. A revoked key is empty."""
    tags = dict.fromkeys(("v", "k", "p"), "")
    for part in text.split(";"):
        name, separator, value = part.partition("=")
        if separator:
            tags[name.strip()] = "".join(value.split())
    if tags["v"] not in ("", "DKIM1") or "p=" not in text.replace(" ", ""):
        return "", ""
    return tags["k"] or "rsa", tags["p"]
