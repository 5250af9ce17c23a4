"""The mail that tells about problems: who, what, when, why, remedy. Pure, from parts to octets.

Each has a Message-ID that begins with `alert.`, and says that a program wrote it (RFC 3834 §5); its envelope has the null sender,
so that no bounce comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime

import msgspec

from smtpplus.mail.command_line import quoted
from smtpplus.mail.priority import display_fields
from smtpplus.mail.reply import printable
from smtpplus.observation.problems import Facts

LEVEL = 2  # what alerts go at
MESSAGE_ID = "<alert."  # how their Message-ID begins
SHOWN = 200  # problems in one digest; the rest is counted


class Told(msgspec.Struct, frozen=True):
    """One problem as it is told. `count` is how often it came since the last time, `total` in all. Times: seconds since the epoch."""

    kind: str
    list: str
    what: str
    count: int
    total: int
    first_at: float
    last_at: float
    facts: Facts


def alert(told: Told, *, hostname: str, sender: str, to: Sequence[str], message_id: str, now: float) -> bytes:
    """About one problem, at once."""
    subject = f"[{hostname}] {told.kind.replace('_', ' ')}: {told.facts.what}"
    text = f"{_one(told)}\nFurther ones like this are counted and told in a digest.\n{_FOOT}"
    return _message(subject, text, hostname=hostname, sender=sender, to=to, message_id=message_id, now=now)


def digest(told: Sequence[Told], *, hostname: str, sender: str, to: Sequence[str], message_id: str, now: float) -> bytes:
    """About many, with the exact count of each."""
    total = sum(each.count for each in told)
    subject = f"[{hostname}] {total} events in {len(told)} problem{'' if len(told) == 1 else 's'}"
    if len(told) == 1:
        subject = f"[{hostname}] {total} more: {told[0].kind.replace('_', ' ')}: {told[0].facts.what}"
    parts = [_one(each) for each in told[:SHOWN]]
    if len(told) > SHOWN:
        parts.append(f"and {len(told) - SHOWN} more problems: smtpplus alerts list\n")
    return _message(subject, "\n".join([*parts, _FOOT]), hostname=hostname, sender=sender, to=to, message_id=message_id, now=now)


_FOOT = "\nWhat is told to whom: smtpplus alerts settings\n"


def _one(told: Told) -> str:
    facts = told.facts
    times = f"{told.count} times since the last report, {told.total} in all" if told.total > 1 else "once"
    when = _date(told.first_at) if told.total == 1 else f"from {_date(told.first_at)} to {_date(told.last_at)}"
    lines = [("Kind", told.kind), ("List", told.list), ("Who", facts.who), ("What", facts.what), ("When", f"{when}, {times}")]
    lines += [
        ("Why", facts.why),
        ("Remedy", facts.remedy),
        ("More", f"smtpplus explain {quoted(facts.reference)}" if facts.reference else ""),
    ]
    return "".join(f"{label + ':':8} {printable(value)}\n" for label, value in lines if value)


def _message(subject: str, text: str, *, hostname: str, sender: str, to: Sequence[str], message_id: str, now: float) -> bytes:
    form = policy.SMTP if all(address.isascii() for address in (sender, *to)) else policy.SMTPUTF8
    message = EmailMessage(form.clone(max_line_length=500))
    message["From"] = printable(sender)
    message["To"] = ", ".join(printable(address) for address in to)
    message["Subject"] = printable(subject)[:200]
    message["Date"] = _date(now)
    message["Message-ID"] = f"{MESSAGE_ID}{message_id}@{hostname}>"
    message["Auto-Submitted"] = "auto-generated"
    for name, value in display_fields(LEVEL):
        message[name] = value
    message.set_content(text, cte="quoted-printable" if not text.isascii() or max(map(len, text.split("\n"))) > 900 else "7bit")
    return message.as_bytes()


def _date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))
