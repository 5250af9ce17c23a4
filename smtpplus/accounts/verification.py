"""Verification: is a sender the user's to use? (A9 to A12, D6)

An address is verified by a token mailed to it; a domain, or a subtree, by a TXT record at `_smtpplus.DOMAIN`, whose value
belongs to the user's list, so that another tenant's record proves nothing. Or the operator vouches. An entry that is verified says how
(`provenance`), when and by whom; verifying it again renews that, revoking makes it pending.

Invariant: a token has 130 bits, is stored only as its hash, and counts once, in its time, for the entry it was made for. Every change goes
through store.touch, which is how the daemon notices. Failure: AccountError with its remedy, and nothing has changed. The functions
work on a connection in a transaction; the caller commits. DNS is asked elsewhere (operation.txt), outside of transactions.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any, Callable, Iterable, Literal, Sequence

import msgspec
from sqlalchemy import Connection, Row, Update, and_, delete, insert, or_, select, update

from smtpplus.accounts import fields, store
from smtpplus.accounts.fields import AccountError, FieldError
from smtpplus.accounts.passwords import generate
from smtpplus.accounts.user import Sender, User
from smtpplus.mail.command_line import quoted
from smtpplus.storage.schema import challenges, senders, users, verifications

Provenance = Literal["token", "dns", "vouched", "grandfathered"]
Answer = Literal["proved", "absent", "foreign"]
Refused = Literal["unknown", "expired", "used", "revoked", "gone"]
Random = Callable[[int], bytes]
MARK = "smtpplus-verification="  # begins the text of a record; what follows is the challenge
REMEMBERED = 30 * 86_400.0  # seconds beyond its end that a token can still be told from an unknown one


class TokenRefused(AccountError):
    """A token does not count. `why` is for programs, `sentence` without the remedy for strangers on the web."""

    def __init__(self, why: Refused, sentence: str, remedy: str) -> None:
        super().__init__(f"{sentence}; {remedy}")
        self.why = why
        self.sentence = sentence


class Claim(msgspec.Struct, frozen=True):
    """What a token is good for."""

    user: User
    entry: Sender
    expires_at: float  # seconds since the epoch


# What is named on the command line


def entries(texts: Iterable[str]) -> list[Sender]:
    """Addresses, domains and subtrees as people write them, each once; FieldError."""
    found = {(entry.kind, entry.value): entry for text in texts for entry in fields.entries(text)}
    if not found:
        raise FieldError("no address and no domain is named")
    return list(found.values())


def of_user(user: User, wanted: Iterable[Sender]) -> list[Sender]:
    """The user's own entries among `wanted`, as they stand; AccountError if one is missing."""
    own = {(entry.kind, entry.value): entry for entry in user.senders}
    for entry in wanted:
        if (entry.kind, entry.value) not in own:
            raise AccountError(
                f"user {user.name} has no sender {entry}; `smtpplus sender add --verify {quoted(user.name, entry)}` makes it one"
            )
    return [own[entry.kind, entry.value] for entry in wanted]


def only_user(connection: Connection, entry: Sender) -> User:
    """The one user who has this entry; AccountError if there is none, or more than one."""
    query = select(users.c.name).join_from(senders, users).where(senders.c.kind == entry.kind, senders.c.value == entry.value)
    names = list(connection.scalars(query.order_by(users.c.name).limit(6)))
    if not names:
        raise AccountError(f"no user has the sender {entry}; `smtpplus sender add --verify USER {quoted(entry)}` makes it one")
    if len(names) > 1:
        shown = ", ".join(names[:5]) + (", and more" if len(names) > 5 else "")
        raise AccountError(f"several users have the sender {entry} ({shown}); name the one: `smtpplus sender verify USER {quoted(entry)}`")
    return store.get_user(connection, names[0])


def add(connection: Connection, user: User, wanted: Sequence[Sender], *, now: float) -> User:
    """Give the user more entries, pending; those it has already stay as they are."""
    changed = [*(entry for entry in user.senders), *wanted]
    return store.edit_user(connection, user.name, _fields(changed), now=now)


def remove(connection: Connection, user: User, unwanted: Sequence[Sender], *, allow_any: bool, now: float) -> User:
    """Take entries away. The last one only if `allow_any` says so: without any the account is open (A18)."""
    gone = {(entry.kind, entry.value) for entry in of_user(user, unwanted)}
    left = [entry for entry in user.senders if (entry.kind, entry.value) not in gone]
    if left and allow_any:
        raise AccountError(f"user {user.name} keeps {len(left)} of the entries, so --allow-any says nothing; leave it out")
    return store.edit_user(connection, user.name, _fields(left, allow_any=allow_any), now=now)


def _fields(wanted: Sequence[Sender], *, allow_any: bool = False) -> store.Changes:
    addresses = [entry for entry in wanted if entry.kind == "address"]
    return store.Changes(domains=[entry for entry in wanted if entry.kind != "address"], addresses=addresses, allow_any=allow_any)


# Addresses: tokens


def issue(connection: Connection, user: User, entry: Sender, *, now: float, lifetime: float, by: str, random: Random = os.urandom) -> str:
    """A new token for an address of the user, to be mailed to it and shown nowhere else; `lifetime` in seconds."""
    connection.execute(delete(verifications).where(verifications.c.expires_at < now - REMEMBERED))
    token = generate(random)
    connection.execute(
        insert(verifications).values(
            user_id=user.id,
            kind=entry.kind,
            value=entry.value,
            token=_hash(token),
            created_at=now,
            created_by=by,
            expires_at=now + lifetime,
        )
    )
    return token


def look_up(connection: Connection, token: str, *, now: float) -> Claim:
    """What a token is good for; nothing changes. TokenRefused."""
    row = connection.execute(
        select(verifications, users.c.name.label("user")).join_from(verifications, users).where(verifications.c.token == _hash(token))
    ).one_or_none()
    if row is None:
        raise TokenRefused(
            "unknown",
            "this token is not known here",
            "copy it whole from the newest mail, or have another one sent with `smtpplus sender verify`",
        )
    user = store.get_user(connection, row.user)
    entry = next((entry for entry in user.senders if (entry.kind, entry.value) == (row.kind, row.value)), None)
    if entry is None or entry.created_at > row.created_at:
        raise TokenRefused(
            "gone",
            f"the token was made for {row.value}, which is no longer a sender of user {user.name}",
            f"`smtpplus sender add --verify {quoted(user.name, row.value)}` adds it and sends another one",
        )
    _check(row, user, entry, now)
    return Claim(user, entry, row.expires_at)


def _check(row: Row[Any], user: User, entry: Sender, now: float) -> None:
    another = f"`smtpplus sender verify {quoted(user.name, entry)}` sends another one"
    ends: tuple[tuple[Refused, float | None, str], ...] = (
        ("used", row.used_at, "was used"),
        ("revoked", row.revoked_at, "was revoked"),
        ("expired", row.expires_at if row.expires_at <= now else None, "expired"),
    )
    for why, at, what in ends:
        if at is not None:
            remedy = "nothing is left to do" if why == "used" and entry.verified else another
            raise TokenRefused(why, f"the token for {entry} of user {user.name} {what} on {_date(at)}", remedy)


def confirm(connection: Connection, token: str, *, now: float, by: str) -> Claim:
    """Use a token: its entry is verified, and every token still open for it is used up. TokenRefused."""
    claim = look_up(connection, token, now=now)
    used = connection.execute(_open(claim.user, [claim.entry]).values(used_at=now))
    if used.rowcount < 1:
        raise TokenRefused("used", f"the token for {claim.entry} of user {claim.user.name} was used just now", "nothing is left to do")
    user = verified(connection, claim.user, [claim.entry], "token", now=now, by=by)
    return msgspec.structs.replace(claim, user=user, entry=of_user(user, [claim.entry])[0])


def _hash(token: str) -> str:
    """A token of 130 bits needs neither salt nor a slow hash. Copies may come with blanks and capitals."""
    return hashlib.sha256("".join(token.split()).lower().encode("utf-8", "surrogateescape")).hexdigest()


# Domains: DNS


def record_name(entry: Sender) -> str:
    """Where the TXT record of a domain or subtree belongs; AccountError for an address literal, which no DNS knows."""
    if entry.value.startswith("["):
        raise AccountError(f"the address literal {entry} has no DNS; vouch for it with `smtpplus sender vouch USER {quoted(entry)}`")
    return f"_smtpplus.{entry.value}"


def challenge(connection: Connection, user: User, entry: Sender, *, now: float, random: Random = os.urandom) -> str:
    """The text that the record must have for the users of this user's list; the same each time it is asked for."""
    mine = and_(challenges.c.list == user.list, challenges.c.domain == entry.value)
    value = connection.scalar(select(challenges.c.value).where(mine))
    if value is None:
        value = generate(random)
        connection.execute(insert(challenges).values(list=user.list, domain=entry.value, value=value, created_at=now))
    return MARK + str(value)


def forget_list(connection: Connection, name: str) -> None:
    """A list is deleted: records published for it prove nothing to a later list of the same name."""
    connection.execute(delete(challenges).where(challenges.c.list == name))


def judge(texts: Iterable[str], wanted: str) -> Answer:
    """What the TXT records found say: the wanted text is among them, none of ours is there, or only others' are."""
    ours = [text.strip() for text in texts if text.strip().lower().startswith(MARK)]
    if wanted in ours:
        return "proved"
    return "foreign" if ours else "absent"


# The result


def verified(connection: Connection, user: User, chosen: Sequence[Sender], provenance: Provenance, *, now: float, by: str) -> User:
    """Mark entries of the user as verified."""
    return _mark(connection, user, chosen, now, {"verified": True, "provenance": provenance, "verified_at": now, "verified_by": by})


def revoke(connection: Connection, user: User, chosen: Sequence[Sender], *, now: float) -> User:
    """Make entries of the user pending again; tokens still open for them count no longer."""
    connection.execute(_open(user, chosen).values(revoked_at=now))
    return _mark(connection, user, chosen, now, {"verified": False, "provenance": "", "verified_at": None, "verified_by": ""})


def _open(user: User, chosen: Sequence[Sender]) -> Update:
    """An update of the tokens that are neither used nor revoked."""
    still = and_(verifications.c.used_at.is_(None), verifications.c.revoked_at.is_(None))
    named = or_(*(and_(verifications.c.kind == entry.kind, verifications.c.value == entry.value) for entry in chosen))
    return update(verifications).where(verifications.c.user_id == user.id, still, named)


def _mark(connection: Connection, user: User, chosen: Sequence[Sender], now: float, values: dict[str, Any]) -> User:
    for entry in of_user(user, chosen):
        mine = and_(senders.c.user_id == user.id, senders.c.kind == entry.kind, senders.c.value == entry.value)
        connection.execute(update(senders).where(mine).values(values))
    store.touch(connection, user, now, {})
    return store.get_user(connection, user.name)


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
