"""Telling the sender: which failures and delays become a delivery status notification, and the notification as a message.

A notification is spooled in the same transaction that settles its cause, so neither is lost without the other. Nobody is
told about a message with the null reverse-path (RFC 5321 §6.1), nor about a recipient whose NOTIFY does not ask for it
(RFC 3461 §4.1). Notifications go at level 2, and never read more of a message than its first piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from smtpplus.mail import dsn
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import Content, Envelope, Recipient, queue_id
from smtpplus.mail.header import find_header_end

Kind = Literal["failed", "delayed", "delivered"]
LEVEL = 2
# Octets of a message that is returned whole, as bounce_size_limit of Postfix has it; of a larger one only the header, even if RET=FULL asks
# for more: it may not be held in memory
RETURN_LIMIT = 50_000
_KEYWORD = {"failed": "FAILURE", "delayed": "DELAY", "delivered": "SUCCESS"}


def wanted(kind: Kind, sender: str, recipient: Recipient) -> bool:
    """Whether the sender is to be told. Without NOTIFY: failures and delays, not successes (RFC 3461 §4.1, §6.2)."""
    if not sender:
        return False
    if not recipient.notify:
        return kind != "delivered"
    return _KEYWORD[kind] in recipient.notify.upper().split(",")


def traced(envelope: Envelope, disposition: Disposition) -> bool:
    """Whether the sender of a message with BY hears of this relay: of each with by-trace (RFC 2852 §4), and in mode N of one to a next hop
    that does not know DELIVERBY, as nobody reports a delay behind it (RFC 2852 §4.1.4). NOTIFY=NEVER keeps it quiet."""
    mode = envelope.by_mode
    if not (mode and envelope.sender and dsn.is_relayed(disposition)) or disposition.recipient.notify.upper() == "NEVER":
        return False
    return mode[1:] == "T" or (mode[:1] == "N" and not disposition.time_passed_on)


class Notifier:
    """Composes notifications in the name of this host. `postmaster` has copies of those about failures, "" for nobody."""

    def __init__(self, hostname: str, new_id: Callable[[], int], now: Callable[[], float], postmaster: str = "") -> None:
        self._hostname = hostname
        self._new_id = new_id
        self._now = now
        self.postmaster = postmaster

    def compose(
        self,
        kind: Kind,
        envelope: Envelope,
        content: Content,
        dispositions: Sequence[Disposition],
        done: Callable[[Envelope, bytes], None],
        *,
        until: float | None = None,
        to: str = "",
    ) -> None:
        """Call `done` with a notification about `dispositions`; `until` says when a delayed message is given up. It goes to the sender,
        a copy of it to `to`.

        RET is about failures alone, and about what the sender gets: what tells of none, and a copy, has the header only (RFC 3461 §4.3).
        So has what tells of a message that requires TLS, and it requires TLS itself (RFC 8689 §5).
        """
        full = kind == "failed" and not (to or envelope.require_tls) and envelope.ret != "HDRS" and envelope.size <= RETURN_LIMIT

        def read(octets: bytes | None) -> None:
            original = octets or b""
            if not full:
                end = find_header_end(original)
                original = original if end < 0 else original[:end]
            self._finish(kind, envelope, original, dispositions, done, full=full, until=until, to=to or envelope.sender)

        content.read(0, read)

    def _finish(
        self,
        kind: Kind,
        envelope: Envelope,
        original: bytes,
        dispositions: Sequence[Disposition],
        done: Callable[[Envelope, bytes], None],
        *,
        full: bool,
        until: float | None,
        to: str,
    ) -> None:
        number, now = self._new_id(), self._now()
        octets = dsn.compose(
            kind=kind,
            reporting_mta=self._hostname,
            to=to,
            envelope=envelope,
            dispositions=dispositions,
            original=original,
            full=full,
            now=now,
            message_id=f"{queue_id(number)}@{self._hostname}",
            warn_until=until,
            from_address=f"MAILER-DAEMON@{self._hostname}",
        )
        notification = Envelope(
            id=number,
            sender="",
            recipients=(Recipient(to),),
            user="",
            level=LEVEL,
            size=len(octets),
            received_at=now,
            smtputf8=not to.isascii(),
            require_tls=envelope.require_tls,
        )
        done(notification, octets)
