"""The mail that carries a token to the address it verifies: pure, from its parts to octets.

It says who asks for what, how to agree, until when, and that doing nothing is an answer too. It is the only place where a token is
written down. Auto-Submitted keeps vacation programs silent (RFC 3834 §5).
"""

from __future__ import annotations

from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime

from smtpplus.accounts.verification import Claim
from smtpplus.mail.reply import printable

_TEXT = """\
Whoever runs the mail server {hostname} wants to let its user
"{user}" send mail as

    {address}

If you agree, {page}

    {way}

{otherwise}The token is good once, until {until}.

If you do not agree, or do not know what this is about, do nothing:
unless the token is used, that user cannot send as this address there.
"""


def compose(claim: Claim, token: str, *, page: str, hostname: str, from_address: str, message_id: str, now: float) -> bytes:
    """The whole message, with CRLF. `page` is the web address where the token can be confirmed, "" if there is none."""
    address, command = claim.entry.value, f"smtpplus sender confirm {token}"
    text = _TEXT.format(
        hostname=hostname,
        user=claim.user.name,
        address=address,
        page="open this page and press its button:" if page else "give this command to whoever runs the server:",
        way=page or command,
        otherwise=f"Or give this command to whoever runs the server:\n\n    {command}\n\n" if page else "",
        until=_date(claim.expires_at),
    )
    message = EmailMessage(policy.SMTP if address.isascii() else policy.SMTPUTF8)
    message["From"] = printable(from_address)
    message["To"] = address
    message["Subject"] = f"May {claim.user.name} send mail as {address}?"
    message["Date"] = _date(now)
    message["Message-ID"] = message_id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
    return message.as_bytes()


def _date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))
