"""What MAIL and RCPT say to a peer beyond the addresses, by what the envelope holds and the peer offers.

Parameters that the submitter gave travel on where the peer knows them (RFC 3461 §5.2.1, RFC 2852 §4, RFC 8689 §4.2.1, RFC 6710 §5);
where it does not, `fit` has decided before whether the message may go without. All pure.
"""

from __future__ import annotations

from typing import Mapping, Sequence

from smtpplus.delivery.fit import Fit
from smtpplus.delivery.terms import Proposal
from smtpplus.mail import xtext
from smtpplus.mail.disposition import Request
from smtpplus.mail.envelope import Recipient
from smtpplus.mail.priority import NORMAL, mt_priority


def propose(request: Request, extensions: Mapping[str, str], verdict: Fit, now: float) -> Proposal:
    """The transaction for `request` with a peer that offers `extensions`. `now` is in seconds since the epoch."""
    envelope = request.envelope
    mail = f" SIZE={request.content.size}" if "SIZE" in extensions else ""  # RFC 1870 §3
    if verdict.eight:
        mail += " BODY=8BITMIME"  # RFC 6152 §2
    if verdict.utf8:
        mail += " SMTPUTF8"  # RFC 6531 §3.4
    if envelope.level != NORMAL and "MT-PRIORITY" in extensions:
        mail += f" MT-PRIORITY={mt_priority(envelope.level)}"  # RFC 6710 §3; without it a message is normal
    if envelope.require_tls and "REQUIRETLS" in extensions:
        mail += " REQUIRETLS"  # `fit` saw to it that it is offered, or may be missing
    timed = envelope.deliver_by > 0 and "DELIVERBY" in extensions
    if timed:
        mail += f" BY={int(envelope.deliver_by - now)};{envelope.by_mode}"
    rcpt: Sequence[str] = ()
    dsn = "DSN" in extensions
    if dsn:
        if envelope.ret:
            mail += f" RET={envelope.ret}"
        if envelope.envid:
            mail += f" ENVID={xtext.encode(envelope.envid)}"
        if any(recipient.notify or recipient.orcpt for recipient in request.recipients):
            rcpt = [_of_recipient(recipient) for recipient in request.recipients]
    addresses = [recipient.address for recipient in request.recipients]
    return Proposal(envelope.sender, addresses, mail, rcpt, "CHUNKING" in extensions and "PIPELINING" in extensions, dsn, timed)


def _of_recipient(recipient: Recipient) -> str:
    notify = f" NOTIFY={recipient.notify}" if recipient.notify else ""
    return notify + (f" ORCPT={xtext.encode_recipient(recipient.orcpt)}" if recipient.orcpt else "")
