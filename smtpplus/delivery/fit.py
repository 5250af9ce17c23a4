"""Whether a message fits a peer: its size, its 8-bit octets, its UTF-8 addresses, what the sender insists on, against what the peer offers.

Clients declare 8BITMIME and SMTPUTF8 for messages that need neither. So where the peer lacks what the envelope declares, the content is
looked at before it is sent back: plain ASCII goes anywhere. Of a message that needs nothing itself only those recipients are refused
whose own addresses do.
"""

from __future__ import annotations

from typing import Sequence

import msgspec

from smtpplus.delivery.conversion import Lost, pieces
from smtpplus.delivery.dialogue import Dialogue
from smtpplus.delivery.fault import Fault
from smtpplus.mail import reasons
from smtpplus.mail.disposition import Request
from smtpplus.mail.envelope import Content, Envelope, Recipient


class Fit(msgspec.Struct, frozen=True):
    """How to ask for a transaction. `doubt` is the fault if the content turns out not to be ASCII."""

    eight: bool = False
    utf8: bool = False
    doubt: Fault | None = None


PLAIN = Fit()


def fit(request: Request, dialogue: Dialogue, now: float) -> Fit | Fault:
    """What to say in MAIL, or why the peer cannot take the message. `now` is in seconds since the epoch."""
    limit = dialogue.size_limit
    if limit and request.content.size > limit:  # RFC 1870 §6.1
        return Fault(reasons.PEER_SIZE_LIMIT, str(limit))
    envelope = request.envelope
    if envelope.require_tls and envelope.sender and not ("REQUIRETLS" in dialogue.extensions and dialogue.secure):
        return Fault(reasons.PEER_LACKS_REQUIRETLS, "it does not offer REQUIRETLS")  # RFC 8689 §5: a notification goes without
    if envelope.by_mode.startswith("R") and not _returns(envelope.deliver_by - now, dialogue.extensions.get("DELIVERBY")):
        return Fault(reasons.PEER_LACKS_DELIVERBY)
    ascii_only = envelope.sender.isascii() and all(recipient.address.isascii() for recipient in request.recipients)
    if ascii_only and not (envelope.body or envelope.smtputf8):
        return PLAIN
    eight = envelope.body == "8BITMIME"
    utf8 = envelope.smtputf8 or not ascii_only
    if utf8 and "SMTPUTF8" not in dialogue.extensions:
        fault = Fault(reasons.PEER_LACKS_SMTPUTF8)
        return Fit(doubt=fault) if ascii_only else fault
    if eight and "8BITMIME" not in dialogue.extensions:
        return Fit(utf8=utf8, doubt=Fault(reasons.PEER_LACKS_8BITMIME, "it is not converted twice"))
    return Fit(eight, utf8)


def beyond(recipients: Sequence[Recipient], envelope: Envelope, dialogue: Dialogue) -> list[Fault | None]:
    """The fault of each recipient whose address the peer cannot have although it can have others'; [] if all are alike."""
    if "SMTPUTF8" in dialogue.extensions or not envelope.sender.isascii():
        return []
    plain = [recipient.address.isascii() for recipient in recipients]
    if all(plain) or not any(plain):
        return []
    return [None if each else Fault(reasons.PEER_LACKS_SMTPUTF8) for each in plain]


def _returns(left: float, offered: str | None) -> bool:
    """Whether a peer promises to return a message that is not delivered within `left` seconds (RFC 2852 §4, §5)."""
    return offered is not None and left >= (int(offered) if offered.isdecimal() and len(offered) <= 9 else 1)


async def all_ascii(content: Content) -> bool | None:
    """Whether every piece of the content is ASCII; None if one cannot be read. One piece is in memory at a time."""
    try:
        async for piece in pieces(content):
            if not piece.isascii():
                return False
    except Lost:
        return None
    return True
