"""Delivery status notifications: what a sender is told about recipients (RFC 3464 in the frame of RFC 6522).

A notification is ASCII throughout, so that every next hop takes it, and its lines are short: text outside ASCII is encoded, the peer's
words are made printable and folded. It tells the person what happened and what to do, in the words of mail.reasons, and the program the
same by status codes. Its size is bounded by DETAILED, NAMED and the limits of replies and headers. `compose` never raises for anything
that came from outside. To whom and whether is not decided here: never to the null reverse-path (RFC 5321 §6.1).
"""

from __future__ import annotations

import base64
import hashlib
import re
import textwrap
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal, Sequence

import msgspec

from smtpplus.mail import quoted_printable, xtext
from smtpplus.mail.address import AddressError, normalize_domain
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import Envelope, queue_id
from smtpplus.mail.header import Header, decoded, encode_field, find_header_end
from smtpplus.mail.lines import overlong
from smtpplus.mail.reasons import DELIVERED, PEER_DEFERRED, PEER_LOGIN_FAILED, PEER_REFUSED, REASONS, Refusal
from smtpplus.mail.reply import printable

Kind = Literal["failed", "delayed", "delivered"]

_SUBJECT = {
    "failed": "Mail could not be delivered",
    "delayed": "Mail is delayed",
    "delivered": "Mail was delivered",
    "relayed": "Mail was passed on",
}
_OPENING = {
    "failed": "Your message could not be delivered to the recipients below. It will not be tried again.",
    "delayed": "Your message could not be delivered yet to the recipients below. You need not send it again: it is still being tried",
    "delivered": "Your message was delivered to the recipients below.",
    "relayed": "Your message was passed on to the next mail server for the recipients below.",
}
_CLOSING = {
    "delivered": "Whether and when it is read is not known here.",
    "relayed": "What becomes of it there is not known here.",
}
_SAID_BY_PEER = frozenset((PEER_DEFERRED.code, PEER_REFUSED.code, DELIVERED.code))
_STATUS = {2: "2.0.0", 4: "4.0.0", 5: "5.0.0"}  # RFC 3463 §3.1, where the reply has none
DETAILED = 100  # recipients that are told everything about
NAMED = 1_000  # recipients that are named, with their status; the others are counted
DIAGNOSTIC_LIMIT = 2_000  # characters of a Diagnostic-Code in ASCII
LINE_LIMIT = 998  # octets without CRLF, RFC 5322 §2.1.1
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00").search


class _Report(msgspec.Struct, frozen=True):
    """The arguments of `compose` that person and program are both told."""

    kind: Kind
    reporting_mta: str
    envelope: Envelope
    dispositions: Sequence[Disposition]
    header: bytes
    now: float
    until: float | None
    copy: bool


def compose(
    *,
    kind: Kind,
    reporting_mta: str,
    to: str,
    envelope: Envelope,
    dispositions: Sequence[Disposition],
    original: bytes,
    full: bool,
    now: float,
    message_id: str,
    from_address: str,
    warn_until: float | None = None,
) -> bytes:
    """The notification to `to` about `dispositions`, one at least and all of one kind, as a whole message with CRLF. To another than the
    envelope's sender it is a copy, and says so.

    `original` is the message, or its header; `full` returns all of it, else its header only. `now` and `warn_until` (the end of the
    attempts, for "delayed") are seconds since the epoch. `message_id` with or without its brackets.
    """
    header = original[: _header_end(original)]
    copy = to != envelope.sender
    report = _Report(kind, reporting_mta, envelope, dispositions, header, now, warn_until, copy)
    parts = [
        _text_part(_explanation(report)),
        b"Content-Description: Delivery report\r\nContent-Type: message/delivery-status\r\n\r\n" + _status(report),
        _returned(original if full else header, full),
    ]
    boundary = _boundary(message_id, parts)
    fields = [
        b"From: Mail Delivery System <%s>" % from_address.encode("ascii", "backslashreplace"),
        _to_field(to),
        f"Subject: {'Copy: ' if copy else ''}{_SUBJECT[_action(kind, dispositions[0])]}".encode(),
        f"Date: {_date(now)}".encode(),
        b"Message-ID: <%s>" % message_id.strip("<>").encode("ascii", "backslashreplace"),
        b"Auto-Submitted: auto-replied",  # RFC 3834 §5: keeps vacation programs silent
        b"MIME-Version: 1.0",
        b'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="%s"' % boundary,
    ]
    frame = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    return b"\r\n".join(fields) + b"\r\n\r\n" + frame + b"--%s--\r\n" % boundary


def _header_end(original: bytes) -> int:
    end = find_header_end(original)
    return end if end >= 0 else len(original)


def _date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))


def _to_field(to: str) -> bytes:
    """An address outside ASCII is shown in a group without members, as RFC 6857 §3.1.9 downgrades it; its domain alone becomes A-labels."""
    local, _, domain = to.rpartition("@")
    if local.isascii():
        try:
            return f"To: {local}@{normalize_domain(domain)}".encode()
        except AddressError:
            pass
    name = encode_field(f'To: "{to.replace(chr(34), "")}"\r\n'.encode("utf-8", "replace"))
    return name.removesuffix(b"\r\n") + b" :;"


def _explanation(report: _Report) -> str:
    """The text for the person, lines of at most 76 characters."""
    action = _action(report.kind, report.dispositions[0])
    opening = _OPENING[action]
    if report.kind == "delayed":
        opening += f", until {_date(report.until)}." if report.until is not None else "."
    sent = _date(report.envelope.received_at)
    lines = [f"This is the mail server {report.reporting_mta}.", ""]
    if report.copy:
        lines += [f"This is a copy of what <{report.envelope.sender}> is told:", ""]
    lines += [opening, ""]
    lines += [f"Subject: {_subject(report.header)}", f"Sent: {sent}", f"Queue ID: {queue_id(report.envelope.id)}"]
    for disposition in report.dispositions[:DETAILED]:
        lines += ["", f"<{disposition.recipient.address}>", *_words(report.kind, disposition)]
    more = report.dispositions[DETAILED:]
    if more:
        lines += ["", f"The same goes for {len(more)} more recipients:"]
        lines += [f"<{disposition.recipient.address}> {_code(disposition)}" for disposition in more[: NAMED - DETAILED]]
        if len(report.dispositions) > NAMED:
            lines.append(f"and {len(report.dispositions) - NAMED} others")
    if action in _CLOSING:
        lines += ["", _CLOSING[action]]
    wrapped = (textwrap.fill(printable(line), 76, subsequent_indent=" " * (len(line) - len(line.lstrip()))) for line in lines)
    return "\n".join(wrapped) + "\n"


def _words(kind: Kind, disposition: Disposition) -> list[str]:
    words = str(disposition.said)
    if disposition.reason == PEER_LOGIN_FAILED.code:  # what explanation and remedy say is not for the sender to do
        return [f"    Reason: {words}", "    It lies with this mail server; who runs it finds more in its log."]
    speaker = f"{disposition.peer} said" if disposition.reason in _SAID_BY_PEER and disposition.peer else "Reason"
    lines = [f"    {speaker}: {words}"]
    reason = REASONS.get(disposition.reason)
    if reason is not None and kind != "delivered":
        lines.append(f"    {reason.explanation}")
        if reason.remedy and "{" not in reason.remedy and reason.remedy not in words:
            lines.append(f"    What to do: {reason.remedy}.")
    return lines


def _subject(header: bytes) -> str:
    try:
        found = Header.parse(header).values("subject")
    except Refusal:
        found = []
    return decoded(found[0])[:200] if found else "(none)"


def _text_part(text: str) -> bytes:
    body = text.encode("utf-8", "replace")
    lead = b"Content-Description: Notification\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
    if text.isascii():
        return lead + b"7bit\r\n\r\n" + body.replace(b"\n", b"\r\n")
    return lead + b"quoted-printable\r\n\r\n" + quoted_printable.encoded(body.replace(b"\n", b"\r\n"))


def _field(name: str, value: str) -> str:
    """A field of the report in ASCII on one line; long values lose their end rather than break a limit."""
    return f"{name}: {printable(value).encode('ascii', 'backslashreplace').decode()}"[:990]


def _folded(name: str, value: str) -> str:
    ascii_value = printable(value).encode("ascii", "backslashreplace").decode()[:DIAGNOSTIC_LIMIT]
    return "\r\n ".join(textwrap.wrap(f"{name}: {ascii_value}", 75, break_on_hyphens=False))


def _typed(address: str) -> str:
    """RFC 3464 §2.3.2; outside ASCII the utf-8-addr-xtext of RFC 6533 §3."""
    if address.isascii():
        return f"rfc822; {address}"
    return "utf-8; " + xtext.encode_utf8(address)


def _original(recipient: str) -> str:
    """RFC 3464 §2.3.1; the type utf-8 is encoded (RFC 6533 §3), others are written as they are meant."""
    kind, _, address = recipient.partition(";")
    return f"{kind};{xtext.encode_utf8(address)}" if kind.lower() == "utf-8" else recipient


def _status(report: _Report) -> bytes:
    """The message/delivery-status: one group of fields for the message, one for each recipient (RFC 3464 §2.1)."""
    envelope = report.envelope
    message = [_field("Original-Envelope-Id", envelope.envid)] if envelope.envid else []
    message += [
        _field("Reporting-MTA", f"dns; {report.reporting_mta}"),
        _field("Arrival-Date", _date(envelope.received_at)),
        _field("X-Smtpplus-Queue-ID", queue_id(envelope.id)),
    ]
    groups = [message, *(_recipient(report, disposition) for disposition in report.dispositions[:DETAILED])]
    groups += [_core(report, disposition) for disposition in report.dispositions[DETAILED:NAMED]]
    return "\r\n".join("".join(f"{field}\r\n" for field in group) for group in groups).encode()


def _recipient(report: _Report, disposition: Disposition) -> list[str]:
    """What is known of a recipient."""
    recipient, host = disposition.recipient, _peer_host(disposition.peer)
    speaker = "smtp" if host and disposition.reason in _SAID_BY_PEER else "x-smtpplus"  # RFC 3464 §2.3.6: whose words these are
    fields = [_field("Original-Recipient", _original(recipient.orcpt))] if recipient.orcpt else []
    fields += _core(report, disposition)
    if host:
        fields.append(_field("Remote-MTA", f"dns; {host}"))
    fields += [_folded("Diagnostic-Code", f"{speaker}; {disposition.said}"), _field("Last-Attempt-Date", _date(report.now))]
    if report.kind == "delayed" and report.until is not None:
        fields.append(_field("Will-Retry-Until", _date(report.until)))
    return fields


def _core(report: _Report, disposition: Disposition) -> list[str]:
    """The fields of a recipient that RFC 3464 §2.3 requires."""
    return [
        _field("Final-Recipient", _typed(disposition.recipient.address)),
        _field("Action", _action(report.kind, disposition)),
        _field("Status", _code(disposition)),
    ]


def _code(disposition: Disposition) -> str:
    return disposition.reply.enhanced or _STATUS.get(disposition.reply.code // 100, "5.0.0")


def _action(kind: Kind, disposition: Disposition) -> str:
    """RFC 3464 §2.3.3: over SMTP the message was passed on, and what becomes of it is the next hop's to tell."""
    return "relayed" if kind == "delivered" and is_relayed(disposition) else kind


def is_relayed(disposition: Disposition) -> bool:
    """Whether the recipient's message was passed on to another server, rather than put into a mailbox."""
    return bool(_peer_host(disposition.peer))


def _peer_host(peer: str) -> str:
    """The host of "mx.example.net[192.0.2.1]:25"; "" for what is no host."""
    if not peer or peer.startswith(("maildir:", "discard:")):
        return ""
    host = peer.partition("[")[0]
    return host or peer


def _returned(octets: bytes, full: bool) -> bytes:
    """The message, or its header, as it can be carried in ASCII: message/global may be encoded (RFC 6532 §3.7), message/rfc822 may not."""
    plain = octets.isascii() and not _BARE(octets) and not overlong(octets, LINE_LIMIT)
    if full:
        lead = b"Content-Description: The message\r\n"
        if plain:
            return lead + b"Content-Type: message/rfc822\r\n\r\n" + _ended(octets)
        encoded = base64.encodebytes(octets).replace(b"\n", b"\r\n")
        return lead + b"Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded
    lead = b"Content-Description: Header of the message\r\nContent-Type: text/rfc822-headers"
    header = _ended(octets.removesuffix(b"\r\n") if octets.endswith(b"\r\n\r\n") else octets)
    if plain:
        return lead + b"\r\n\r\n" + header
    return lead + b"; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + quoted_printable.encoded(header)


def _ended(octets: bytes) -> bytes:
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def _boundary(message_id: str, parts: list[bytes]) -> bytes:
    """A boundary that occurs in no part: the message cannot be made to choose it, as its digest is in it."""
    digest = hashlib.sha256(message_id.encode("utf-8", "replace"))
    for part in parts:
        digest.update(part)
    return b"=_" + digest.hexdigest()[:40].encode()
