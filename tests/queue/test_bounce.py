"""queue.bounce: what of a message goes back to its sender."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import CHUNK, Envelope, Recipient, WholeContent
from smtpplus.queue.bounce import RETURN_LIMIT, Kind, Notifier

_HEADER = b"Subject: x\r\n\r\n"


class Counted:
    """A large content that says which of its pieces were read."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.chunks = -(-size // CHUNK)
        self.read_pieces: list[int] = []

    def read(self, index: int, done: Callable[[bytes | None], None]) -> None:
        """See mail.envelope.Content."""
        self.read_pieces.append(index)
        done(_HEADER + b"y" * (CHUNK - len(_HEADER)))


def _bounced(content: WholeContent | Counted, ret: str, kind: Kind = "failed") -> bytes:
    gone = Recipient("b@example.net")
    envelope = Envelope(7, "a@example.com", (gone,), "anna", 3, content.size, 1_000_000.0, ret=ret)
    found: list[bytes] = []
    notifier = Notifier("mail.example.com", lambda: 8, lambda: 1_000_000.0)
    disposition = Disposition(gone, reasons.NULL_MX.reply(domain="example.net"), "", reasons.NULL_MX.code)
    notifier.compose(kind, envelope, content, [disposition], lambda _, octets: found.append(octets))
    [octets] = found
    return octets


@pytest.mark.parametrize(("ret", "full"), [("", True), ("FULL", True), ("HDRS", False)])
def test_a_small_message_goes_back_as_asked(ret: str, full: bool) -> None:
    """RFC 3461 §4.3: RET=HDRS returns the header; otherwise a message up to RETURN_LIMIT octets goes back whole."""
    content = WholeContent(_HEADER + b"body\r\n" * ((RETURN_LIMIT - len(_HEADER)) // 6))
    octets = _bounced(content, ret)
    assert b"Subject: x" in octets
    assert (octets.count(b"body\r\n") > 8000, b"message/rfc822\r\n" in octets) == (full, full)


@pytest.mark.parametrize("kind", ["delayed", "delivered"])
@pytest.mark.parametrize("ret", ["", "FULL", "HDRS"])
def test_what_tells_of_no_failure_has_the_header_only(kind: Kind, ret: str) -> None:
    """RFC 3461 §4.3: RET applies to failures; of a message that is delayed, relayed or delivered the header goes back, whatever it says."""
    octets = _bounced(WholeContent(_HEADER + b"body\r\n"), ret, kind)
    assert b"Content-Type: text/rfc822-headers\r\n\r\nSubject: x\r\n" in octets
    assert b"body" not in octets


@pytest.mark.parametrize(("to", "require_tls"), [("postmaster@example.com", False), ("", True)])
def test_a_copy_and_what_requires_tls_have_the_header_only(to: str, require_tls: bool) -> None:
    """Whatever RET says: the postmaster has the header, and of a message that requires TLS so has the sender (RFC 8689 §5), by a
    notification that requires it too; both from the null reverse-path at level 2."""
    gone = Recipient("b@example.net")
    content = WholeContent(_HEADER + b"body\r\n")
    envelope = Envelope(7, "a@example.com", (gone,), "anna", 3, content.size, 1_000_000.0, ret="FULL", require_tls=require_tls)
    found: list[tuple[Envelope, bytes]] = []
    notifier = Notifier("mail.example.com", lambda: 8, lambda: 1_000_000.0)
    disposition = Disposition(gone, reasons.NULL_MX.reply(domain="example.net"), "", reasons.NULL_MX.code)
    notifier.compose("failed", envelope, content, [disposition], lambda *each: found.append(each), to=to)
    [(told, octets)] = found
    assert (told.sender, told.recipients, told.level, told.user) == ("", (Recipient(to or "a@example.com"),), 2, "")
    assert told.require_tls == require_tls
    assert b"Subject: x" in octets and b"body" not in octets


@pytest.mark.parametrize("ret", ["", "FULL", "HDRS"])
def test_of_a_large_message_only_the_first_piece_is_read(ret: str) -> None:
    """What a bounce holds in memory does not grow with the message: beyond RETURN_LIMIT its header goes back, whatever RET asks for."""
    content = Counted(50 * 1024**2)
    octets = _bounced(content, ret)
    assert content.read_pieces == [0]
    assert len(octets) < RETURN_LIMIT
    assert b"Subject: x" in octets and b"text/rfc822-headers" in octets
