"""The envelope and the content of a message, as every floor sees them.

An envelope never changes once it is accepted. Addresses are kept as the client wrote them (RFC 5321 §2.4: the local part
is the receiver's business). The content is octets with CRLF line ends, not dot-stuffed; its chunks are at most
`CHUNK` octets so that memory does not grow with the size of a message.
"""

from __future__ import annotations

from typing import Callable, Protocol

import msgspec

CHUNK = 65_536  # octets in one stored piece of content
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U to misread


class Recipient(msgspec.Struct, frozen=True):
    """One forward-path, with what RFC 3461 lets the client say about it ("" where it said nothing)."""

    address: str
    notify: str = ""  # NEVER, or of SUCCESS,FAILURE,DELAY; RFC 3461 §4.1
    orcpt: str = ""  # original recipient, xtext decoded, with its type: "rfc822;x@a.com"; RFC 3461 §4.2


class Envelope(msgspec.Struct, frozen=True):
    """What was agreed with the client about one message. Times are seconds since the epoch."""

    id: int  # see queue_id
    sender: str  # reverse-path; "" is the null one
    recipients: tuple[Recipient, ...]
    user: str  # who submitted it; "" for our own bounces and alerts
    level: int  # effective priority, 1 highest .. 5
    size: int  # octets of the content
    received_at: float
    body: str = ""  # "", "7BIT" or "8BITMIME"; RFC 6152
    smtputf8: bool = False  # RFC 6531
    ret: str = ""  # "", "FULL" or "HDRS"; RFC 3461 §4.3
    envid: str = ""  # xtext decoded; RFC 3461 §4.4
    list: str = "default"  # the user's list when it was accepted
    release_at: float = 0.0  # not to be sent before; 0: at once; RFC 4865
    campaign: str = ""  # what the sender counts it under
    deliver_by: float = 0.0  # the sender wants to hear if it is not delivered by then; 0: never mind; RFC 2852
    by_mode: str = ""  # then: "N" notify, go on trying; "R" return it; with a "T" behind it: trace each relay, RFC 2852 §4
    require_tls: bool = False  # only over verified TLS, also beyond the next hop; RFC 8689
    unauthorized: bool = False  # alert mode let it through: our domains do not sign for who may not use them


class Content(Protocol):
    """The octets of an accepted message, wherever they are. `chunks` pieces of at most CHUNK octets, `size` octets in all."""

    @property
    def size(self) -> int: ...

    @property
    def chunks(self) -> int: ...

    def read(self, index: int, done: Callable[[bytes | None], None]) -> None:
        """Call `done` with piece `index` (0-based), at once if it is in memory; with None if it cannot be read. Never raises."""


class WholeContent:
    """Content that is in memory in one piece."""

    __slots__ = ("octets",)
    chunks = 1

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    @property
    def size(self) -> int:
        return len(self.octets)

    def read(self, index: int, done: Callable[[bytes | None], None]) -> None:
        done(self.octets if index == 0 else None)


def queue_id(number: int) -> str:
    """The queue ID that people see for an envelope's id: 13 characters of base 32, sorting as the numbers do."""
    digits = []
    for _ in range(13):
        number, digit = number >> 5, number & 31
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def parse_queue_id(text: str) -> int:
    """The envelope id behind a queue ID, upper or lower case. ValueError if it is none."""
    if len(text) != 13:
        raise ValueError(f"{text!r} is not a queue ID: it has 13 letters and digits")
    number = 0
    for character in text.upper():
        digit = _ALPHABET.find(character)
        if digit < 0:
            raise ValueError(f"{text!r} is not a queue ID: {character!r} does not occur in one")
        number = number << 5 | digit
    if number >= 1 << 63:
        raise ValueError(f"{text!r} is not a queue ID: it begins beyond 7")
    return number
