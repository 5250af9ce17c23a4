"""mail.envelope: queue IDs and content in memory."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.envelope import Content, Envelope, Recipient, WholeContent, parse_queue_id, queue_id

_ids = st.integers(0, 2**63 - 1)


@given(_ids)
def test_a_queue_id_is_the_number(number: int) -> None:
    """Every envelope id has 13 characters, in either case read back as the number."""
    text = queue_id(number)
    assert len(text) == 13
    assert parse_queue_id(text) == parse_queue_id(text.lower()) == number


@given(_ids, _ids)
def test_queue_ids_sort_as_numbers_do(one: int, other: int) -> None:
    """Sorting by queue ID is sorting by envelope id."""
    assert (queue_id(one) < queue_id(other)) == (one < other)


@pytest.mark.parametrize("text", ["", "0" * 12, "0" * 14, "000000000000U", "00000000000 0", "8000000000000", "ZZZZZZZZZZZZZ"])
def test_what_is_no_queue_id_is_refused(text: str) -> None:
    """Wrong length, letters that could be misread, and numbers that no database row can have."""
    with pytest.raises(ValueError, match="is not a queue ID"):
        parse_queue_id(text)


def test_whole_content_is_one_piece() -> None:
    """Content in memory answers at once: its octets for piece 0, None for a piece it has not."""
    content: Content = WholeContent(b"abc")
    read: list[bytes | None] = []
    content.read(0, read.append)
    content.read(1, read.append)
    assert (content.size, content.chunks, read) == (3, 1, [b"abc", None])


def test_an_envelope_never_changes() -> None:
    """Values are frozen, and survive the way into storage and back."""
    envelope = Envelope(1, "a@b", (Recipient("c@d", "FAILURE", "rfc822;x@y"),), "anna", 3, 10, 1.5)
    with pytest.raises(AttributeError):
        envelope.sender = "x@y"  # type: ignore[misc]  # the point of the test
    assert msgspec.json.decode(msgspec.json.encode(envelope), type=Envelope) == envelope
