"""Who may send as whom: pure functions of a user's snapshot, the same for the session, for `check` and for `who-may-send`.

The rule (A9 to A18): a sender is authorized if an address entry names it, a domain entry names exactly its domain, or a subtree entry
is its domain or above it; with `require_verified` only verified entries count. A user without any entry may use every
verified sender, that is none unless `require_verified` is off; then every sender, if the operator agreed (`allow_any`). The
null reverse-path is nobody's address and needs no authorization, the header fields beside it do (RFC 5321 §4.5.5).

Every refusal is a reason of the closed list, with a remedy. An allowed sender costs a few microseconds; how to word a refusal
may cost a look at every entry of the user.
"""

from __future__ import annotations

from typing import Mapping, Sequence

import msgspec

from smtpplus.accounts.user import Scope, User
from smtpplus.mail import reasons
from smtpplus.mail.address import AddressError, header_mailboxes, normalize_domain, parse_mailbox
from smtpplus.mail.reasons import Reason, Refusal

ENVELOPE = "envelope sender"
FROM = "header field From"
SENDER = "header field Sender"
RESENT = ("header field Resent-From", "header field Resent-Sender")


class Verdict(msgspec.Struct, frozen=True):
    """Whether a sender may be used. If not: the reason's code, and the refusal to raise or, in alert mode, to report."""

    allowed: bool
    reason: str = ""
    refusal: Refusal | None = None
    address: str = ""  # the one that was refused, as written
    details: Mapping[str, str] = {}  # what fills in the words of the reason

    @property
    def remedy(self) -> str:
        """What to do about it; part of the refusal's reply too."""
        return reasons.REASONS[self.reason].words(**self.details)[1] if self.reason else ""


ALLOWED = Verdict(True)


def authorize(user: User, address: str, *, require_verified: bool, where: str = ENVELOPE) -> Verdict:
    """Whether `user` may send as `address` (as written; "" is the null reverse-path). `where` it stands goes into the refusal."""
    if not user.active:
        return _refused(inactive(user), user, address, where)
    if not address:
        return ALLOWED
    try:
        mailbox = parse_mailbox(address)
        key, domain = mailbox.key, normalize_domain(mailbox.domain)
    except AddressError as error:
        return _refused(reasons.BAD_MAILBOX if where == ENVELOPE else reasons.BAD_FROM, user, address, where, cause=str(error))
    if (user.verified if require_verified else user.named).covers(key, domain):
        return ALLOWED
    if not user.senders:
        if user.allow_any and not require_verified:
            return ALLOWED
        reason = reasons.SENDER_NOT_VERIFIED if require_verified else reasons.ADDRESS_NOT_AUTHORIZED
        return _refused(reason, user, address, where, domain=domain)
    return _explained(user, address, key, domain, where)


def inactive(user: User) -> Reason:
    """Why a user who is not active is not let in (A11); the client hears the same words for both."""
    verified = user.verified.addresses or user.verified.domains or user.verified.subtrees
    return reasons.INACTIVE_USER if verified or not user.senders else reasons.INACTIVE_UNVERIFIED


def authorize_message(
    user: User,
    sender: str,
    from_fields: Sequence[str],
    sender_fields: Sequence[str] = (),
    *,
    require_verified: bool,
    resent: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Verdict:
    """Whether `user` may submit a message: its envelope sender, every mailbox of its From, its Sender, and who resent it (A13, A17).

    The fields are the unfolded values of all From and all Sender fields; there must be one From, and at most one Sender
    (RFC 5322 §3.6). `resent` are those of Resent-From and Resent-Sender: a message may be resent several times (RFC 5322 §3.6.6), and who
    is named must be authorized as a sender is. The first sender that is not authorized decides.
    """
    verdict = authorize(user, sender, require_verified=require_verified)
    if not verdict.allowed:
        return verdict
    for where, values in ((FROM, from_fields), (SENDER, sender_fields)):
        if len(values) > 1:
            return _refused(reasons.BAD_FROM, user, "", where, cause=f"it occurs {len(values)} times")
        if where == FROM and not values:
            return _refused(reasons.NO_FROM, user, "", where)
    for where, values in ((FROM, from_fields), (SENDER, sender_fields), *zip(RESENT, resent, strict=True)):
        for value in values:
            verdict = _field(user, value, sender, where, require_verified=require_verified)
            if not verdict.allowed:
                return verdict
    return ALLOWED


def _field(user: User, value: str, sender: str, where: str, *, require_verified: bool) -> Verdict:
    """Whether `user` may write a header field that names who sends. `sender` is the envelope's, and allowed already."""
    try:
        mailboxes = header_mailboxes(value)
    except AddressError as error:
        return _refused(reasons.BAD_FROM, user, "", where, cause=str(error))
    if not mailboxes:
        return _refused(reasons.NO_FROM if where == FROM else reasons.BAD_FROM, user, "", where, cause="it names nobody")
    for _, address in mailboxes:
        if address != sender:
            verdict = authorize(user, address, require_verified=require_verified, where=where)
            if not verdict.allowed:
                return verdict
    return ALLOWED


def _explained(user: User, address: str, key: str, domain: str, where: str) -> Verdict:
    """The refusal of an address that no entry in force covers: the reason that helps most."""
    for entry in user.senders:
        if Scope.of((entry,)).covers(key, domain):
            return _refused(reasons.SENDER_PENDING, user, address, where, domain=domain, near=str(entry))
    near = _near(user.named.domains, domain)
    if near:
        return _refused(reasons.NEAR_DOMAIN, user, address, where, domain=domain, near=near)
    at_domain = any(entry.rpartition("@")[2] == domain for entry in user.named.addresses)
    if at_domain or not (user.named.domains or user.named.subtrees):
        return _refused(reasons.ADDRESS_NOT_AUTHORIZED, user, address, where, domain=domain)
    return _refused(reasons.DOMAIN_NOT_AUTHORIZED, user, address, where, domain=domain)


def _near(domains: frozenset[str], domain: str) -> str:
    """An authorized domain that was probably meant: with www. before it (B2), or else above or below `domain`; "" if none."""
    if f"www.{domain}" in domains:
        return f"www.{domain}"
    above = domain.partition(".")[2]
    while above:
        if above in domains:
            return above
        above = above.partition(".")[2]
    return min((name for name in domains if name.endswith(f".{domain}")), default="")


def _refused(reason: Reason, user: User, address: str, where: str, **details: str) -> Verdict:
    details.update(user=user.name, address=address, where=where)
    return Verdict(False, reason.code, reason.refusal(**details), address, details)
