"""Finding a Message-ID among millions without an index of its own.

An index on a text that is random touches another page of it with each message, and all of these are written at the next commit: measured
47 µs and 23 KB a message with 600,000 rows, more than all else that history costs. So each batch of history has one row of
marks, twelve octets for each message: four of a checksum of its Message-ID, eight of its id. They are written in one go (0.3 µs a
message), and a look-up reads them all: 12 MB for a million messages, some milliseconds. A checksum may lie; the message itself is
asked afterwards.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from smtpplus.storage.statement import Row

_SIZE = 12  # octets of one mark


def bare(message_id: str) -> str:
    """A Message-ID without its angle brackets."""
    return message_id.strip().removeprefix("<").removesuffix(">")


def row(messages: Iterable[tuple[int, str]]) -> Row | None:
    """The row for a batch of ids with their Message-IDs: least id, greatest id, marks. None if no message has one."""
    named = [(number, message_id) for number, message_id in messages if message_id]
    if not named:
        return None
    marks = b"".join(_checksum(message_id) + number.to_bytes(8, "big") for number, message_id in named)
    numbers = [number for number, _ in named]
    return min(numbers), max(numbers), marks


def candidates(marks: bytes, message_id: str) -> Iterator[int]:
    """The ids in `marks` of messages that may have this Message-ID."""
    wanted = _checksum(message_id)
    at = marks.find(wanted)
    while at >= 0:
        if at % _SIZE == 0:
            yield int.from_bytes(marks[at + 4 : at + _SIZE], "big")
        at = marks.find(wanted, at + 1)


def _checksum(message_id: str) -> bytes:
    return zlib.crc32(bare(message_id).encode("utf-8", "surrogatepass")).to_bytes(4, "big")
