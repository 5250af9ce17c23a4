"""Questions about who may send what, answered by the very functions that the session uses (D4): `answer`, and in reverse `who_may_send`.

Nothing is changed and nothing is sent. The address asked about is compared as the session compares it; one that is no address raises
AddressError in `who_may_send`, and is refused as the session would in `answer`.
"""

from __future__ import annotations

from typing import Literal, Sequence

import msgspec
from sqlalchemy import Connection, and_, exists, or_, select

from smtpplus.accounts import store
from smtpplus.accounts.authorization import Verdict, authorize, authorize_message
from smtpplus.accounts.settings import Effective, Settings, effective
from smtpplus.accounts.user import Scope, Sender, User
from smtpplus.mail import reasons
from smtpplus.mail.address import normalize_domain, parse_mailbox
from smtpplus.storage.schema import senders, users


class Answer(msgspec.Struct, frozen=True):
    """What would become of a message. "alerted": it is sent, though not authorized, for alert mode is on."""

    outcome: Literal["accepted", "alerted", "refused"]
    verdict: Verdict

    @property
    def sent(self) -> bool:
        return self.outcome != "refused"


class Permit(msgspec.Struct, frozen=True):
    """A user who may send as an address, and the entry that says so; None: the user may use any sender."""

    user: User
    effective: Effective
    entry: Sender | None


def answer(user: User, in_force: Effective, sender: str, from_fields: Sequence[str] | None, sender_fields: Sequence[str] = ()) -> Answer:
    """What would become of a message with this envelope sender ("" for the null one) and the values of its From and Sender fields.

    `from_fields` None leaves the header out of the question.
    """
    if from_fields is None:
        verdict = authorize(user, sender, require_verified=in_force.require_verified)
    else:
        verdict = authorize_message(user, sender, from_fields, sender_fields, require_verified=in_force.require_verified)
    if verdict.allowed:
        return Answer("accepted", verdict)
    # whatever the mode: a user who is not active is not let in, and MAIL takes nothing that is no address
    judged = user.active and verdict.reason != reasons.BAD_MAILBOX.code
    return Answer("alerted" if in_force.unauthorized == "alert" and judged else "refused", verdict)


def who_may_send(connection: Connection, address: str, server: Settings) -> list[Permit]:
    """Everybody who is authorized to send as `address`, by name. `server` is what the configuration sets."""
    mailbox = parse_mailbox(address)
    key, domain = mailbox.key, normalize_domain(mailbox.domain)
    permits = []
    for user in store.load_users(connection, _candidates(connection, key, domain)).values():
        in_force = effective(server, user.list_settings, user.settings)
        if authorize(user, address, require_verified=in_force.require_verified).allowed:
            permits.append(Permit(user, in_force, _entry(user, key, domain, verified=in_force.require_verified)))
    return sorted(permits, key=lambda permit: permit.user.name)


def _candidates(connection: Connection, key: str, domain: str) -> list[str]:
    """Names of the users whom an entry of theirs, or the lack of any, could allow the address."""
    labels = domain.split(".")
    above = [".".join(labels[start:]) for start in range(len(labels))]  # the domain, and every domain it lies in
    entry = or_(
        and_(senders.c.value == key, senders.c.kind == "address"),
        and_(senders.c.value == domain, senders.c.kind == "domain"),
        and_(senders.c.value.in_(above), senders.c.kind == "subtree"),
    )
    by_entry = select(users.c.name).join(senders, senders.c.user_id == users.c.id).where(users.c.active, entry)
    anyone = select(users.c.name).where(users.c.active, users.c.allow_any, ~exists().where(senders.c.user_id == users.c.id))
    return [*{*connection.scalars(by_entry), *connection.scalars(anyone)}]


def _entry(user: User, key: str, domain: str, *, verified: bool) -> Sender | None:
    """The entry that covers the address; a verified one if there is one."""
    covering = [entry for entry in user.senders if Scope.of((entry,)).covers(key, domain)]
    return max(covering, key=lambda entry: entry.verified, default=None)
