"""Accounts in the database: functions over a connection that is in a transaction; the caller commits.

Every change raises the generation "accounts" and the user's `changed_at` in the same transaction: that is how a running daemon,
in this process or another, notices (accounts.directory). What cannot be done raises AccountError with its remedy and has changed
nothing. Passwords arrive here hashed.
"""

from __future__ import annotations

import itertools
from typing import Any, Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from smtpplus.accounts import fields, forms
from smtpplus.accounts.fields import AccountError, FieldError
from smtpplus.accounts.settings import UNSET, Settings, decode, encode
from smtpplus.accounts.user import Secret, Sender, User
from smtpplus.mail.command_line import quoted
from smtpplus.mail.reply import printable
from smtpplus.storage.schema import generation, lists, senders, users, would_refuse

__all__ = ["AccountError", "FieldError", "Secret", "Sender", "User"]  # and the functions below

ACCOUNTS = "accounts"  # the generation of users, senders and lists
_AT_ONCE = 500  # names in one statement
_ROWS = select(users, lists.c.settings.label("list_settings")).join_from(users, lists, lists.c.name == users.c.list, isouter=True)
Fingerprint = tuple[int, float]  # id and changed_at: another one means another content


class Changes(msgspec.Struct, frozen=True):
    """What an edit sets; None leaves a field as it is. `domains` and `addresses` replace all entries of their field.

    `settings` has the values of some settings by name, None for one that is to be inherited again.
    """

    list: str | None = None
    settings: Mapping[str, Any] | None = None
    note: str | None = None
    active: bool | None = None
    domains: Sequence[Sender] | None = None
    addresses: Sequence[Sender] | None = None
    allow_any: bool = False
    vouch: bool = False
    by: str = ""  # who vouches


def add_user(
    connection: Connection,
    name: str,
    password: str,
    *,
    now: float,
    scram: str | None = None,
    list: str = "default",
    priority: int | None = None,
    settings: Settings = UNSET,
    note: str = "",
    active: bool = True,
    domains: Sequence[Sender] = (),
    addresses: Sequence[Sender] = (),
    allow_any: bool = False,
    vouch: bool = False,
    by: str = "",
) -> User:
    """Create a user; without domains and addresses one who may use all senders that verification allows (A18).

    `password` and `scram` are what is kept of the password; `priority` is short for that setting; `by` is who vouches.
    """
    name = fields.user_name(name)
    entries = [*domains, *addresses]
    if allow_any and entries:
        raise FieldError("any sender and a list of senders contradict each other; leave out --allow-any, or --domains and --senders")
    if connection.scalar(select(users.c.id).where(users.c.name == name)) is not None:
        raise AccountError(f"the user {name} exists already; change it with `smtpplus user edit {quoted(name)}`")
    row = {
        "name": name,
        "list": _existing_list(connection, list),
        "password": password,
        "scram": scram,
        "active": active,
        "settings": encode(settings if priority is None else forms.changed(settings, {"priority": fields.priority(priority)})),
        "note": fields.note(note),
        "allow_any": not entries,
        "created_at": now,
        "changed_at": now,
    }
    user_id = connection.execute(insert(users).values(row).returning(users.c.id)).scalar_one()
    _insert_senders(connection, user_id, entries, vouch=vouch, by=by, now=now)
    raise_generation(connection)
    return get_user(connection, name)


def edit_user(connection: Connection, name: str, changes: Changes, *, now: float) -> User:
    """Change a user. Entries that stay keep their verification; `vouch` verifies those of the fields set here, or all if none is set."""
    old = get_user(connection, name)
    wanted = _wanted(old, changes)
    if changes.allow_any and wanted:
        raise FieldError(
            "any sender and a list of senders contradict each other; "
            'leave out --allow-any, or empty the list with --domains "" and --senders ""'
        )
    if old.senders and not wanted and not changes.allow_any:
        raise AccountError(
            f"without domains and senders {old.name} could use any sender; say so with --allow-any, or keep an entry, "
            f"or shut the account with `smtpplus user deactivate {quoted(old.name)}`"
        )
    values: dict[str, Any] = {
        "list": None if changes.list is None else _existing_list(connection, changes.list),
        "settings": None if changes.settings is None else encode(forms.changed(old.settings, changes.settings)),
        "note": None if changes.note is None else fields.note(changes.note),
        "active": changes.active,
        "allow_any": not wanted and (changes.allow_any or old.allow_any),
    }
    touch(connection, old, now, {key: value for key, value in values.items() if value is not None})
    _replace_senders(connection, old, wanted, changes, now)
    return get_user(connection, old.name)


def set_password(connection: Connection, name: str, password: str, *, now: float, scram: str | None = None) -> None:
    """Replace what is kept of the password; the old one fails from now on (A6)."""
    touch(connection, get_user(connection, name), now, {"password": password, "scram": scram})


def set_active(connection: Connection, name: str, active: bool, *, now: float) -> None:
    """Let a user in, or keep them out (A7)."""
    touch(connection, get_user(connection, name), now, {"active": active})


def delete_user(connection: Connection, name: str) -> None:
    """Delete a user (A5), and what alert mode has counted of them. Their queued mail is not touched: it is delivered, unless somebody
    cancels it."""
    user = get_user(connection, name)
    connection.execute(delete(would_refuse).where(would_refuse.c.user == user.name))
    connection.execute(delete(senders).where(senders.c.user_id == user.id))
    connection.execute(delete(users).where(users.c.id == user.id))
    raise_generation(connection)


def get_user(connection: Connection, name: str) -> User:
    """The user; AccountError if there is none."""
    user = load_user(connection, name.strip().lower())
    if user is None:
        raise AccountError(f'there is no user "{printable(name.strip())}"; `smtpplus user list` names them')
    return user


def load_user(connection: Connection, name: str) -> User | None:
    """The user with this name (lower case), or None."""
    return load_users(connection, [name]).get(name)


def load_users(connection: Connection, names: Iterable[str]) -> dict[str, User]:
    """The users with these names (lower case); those that do not exist are left out."""
    found: dict[str, User] = {}
    for some in _batches(names):
        rows = connection.execute(_ROWS.where(users.c.name.in_(some))).all()
        entries = connection.execute(
            select(senders).where(senders.c.user_id.in_([row.id for row in rows])).order_by(senders.c.user_id, senders.c.id)
        ).all()
        found.update((user.name, user) for user in _users(rows, entries))
    return found


def list_users(connection: Connection, *, list: str | None = None) -> list[User]:
    """All users, or those of one list, by name."""
    chosen, entries = _ROWS.order_by(users.c.name), select(senders).order_by(senders.c.user_id, senders.c.id)
    if list is not None:
        chosen = chosen.where(users.c.list == list)
        entries = entries.where(senders.c.user_id.in_(select(users.c.id).where(users.c.list == list)))
    return _users(connection.execute(chosen).all(), connection.execute(entries).all())


def read_generation(connection: Connection) -> int:
    """A number that is another one after every change of a user, a sender or a list."""
    return connection.scalar(select(generation.c.number).where(generation.c.name == ACCOUNTS)) or 0


def fingerprints(connection: Connection, names: Iterable[str]) -> dict[str, Fingerprint]:
    """What tells whether a user has changed, without loading it; for those that exist."""
    found: dict[str, Fingerprint] = {}
    for some in _batches(names):
        rows = connection.execute(select(users.c.name, users.c.id, users.c.changed_at).where(users.c.name.in_(some)))
        found.update((row.name, (row.id, row.changed_at)) for row in rows)
    return found


def _wanted(old: User, changes: Changes) -> dict[tuple[str, str], Sender]:
    """The entries the user has after the change, by kind and value; those that stay with their verification."""
    had = {(entry.kind, entry.value): entry for entry in old.senders}
    wanted: dict[tuple[str, str], Sender] = {}
    for given, is_address in ((changes.domains, False), (changes.addresses, True)):
        kept = [entry for entry in old.senders if (entry.kind == "address") == is_address]
        for entry in kept if given is None else given:
            wanted[entry.kind, entry.value] = had.get((entry.kind, entry.value), entry)
    return wanted


def _replace_senders(connection: Connection, old: User, wanted: dict[tuple[str, str], Sender], changes: Changes, now: float) -> None:
    had = {(entry.kind, entry.value) for entry in old.senders}
    for kind, value in had - wanted.keys():
        connection.execute(delete(senders).where(senders.c.user_id == old.id, senders.c.kind == kind, senders.c.value == value))
    _insert_senders(
        connection, old.id, [entry for key, entry in wanted.items() if key not in had], vouch=changes.vouch, by=changes.by, now=now
    )
    if changes.vouch:
        statement = update(senders).where(senders.c.user_id == old.id, senders.c.verified.is_(False))
        if changes.domains is None and changes.addresses is not None:
            statement = statement.where(senders.c.kind == "address")
        elif changes.addresses is None and changes.domains is not None:
            statement = statement.where(senders.c.kind != "address")
        connection.execute(statement.values(verified=True, provenance="vouched", verified_at=now, verified_by=changes.by))


def _insert_senders(connection: Connection, user_id: int, entries: Sequence[Sender], *, vouch: bool, by: str, now: float) -> None:
    rows = [
        {
            "user_id": user_id,
            "kind": entry.kind,
            "value": entry.value,
            "verified": vouch,
            "provenance": "vouched" if vouch else "",
            "verified_at": now if vouch else None,
            "verified_by": by if vouch else "",
            "created_at": now,
        }
        for entry in entries
    ]
    if rows:
        connection.execute(insert(senders), rows)


def touch(connection: Connection, user: User, now: float, values: dict[str, Any]) -> None:
    """Set values of the user's row, with a `changed_at` that differs from the last even if the clock stood still or went back."""
    later = now if now > user.changed_at else user.changed_at + 0.000_001
    connection.execute(update(users).where(users.c.id == user.id).values(**values, changed_at=later))
    raise_generation(connection)


def raise_generation(connection: Connection) -> None:
    """Let running daemons notice: part of every change."""
    changed = connection.execute(update(generation).where(generation.c.name == ACCOUNTS).values(number=generation.c.number + 1))
    if changed.rowcount == 0:
        connection.execute(insert(generation).values(name=ACCOUNTS, number=1))


def _existing_list(connection: Connection, text: str) -> str:
    """The name of a list, if there is such a list."""
    name = fields.list_name(text)
    if connection.scalar(select(lists.c.name).where(lists.c.name == name)) is None:
        raise AccountError(
            f"there is no list {name}; `smtpplus list add {quoted(name)}` makes it, `smtpplus list list` names those there are"
        )
    return name


def _users(rows: Sequence[Row[Any]], entries: Sequence[Row[Any]]) -> list[User]:
    """Snapshots from rows of users, and of their senders ordered by user."""
    grouped = {user_id: tuple(_sender(row) for row in some) for user_id, some in itertools.groupby(entries, lambda row: row.user_id)}
    return [
        User(
            name=row.name,
            password=Secret(row.password),
            list=row.list,
            active=row.active,
            note=row.note,
            allow_any=row.allow_any,
            senders=grouped.get(row.id, ()),
            created_at=row.created_at,
            changed_at=row.changed_at,
            id=row.id,
            scram=None if row.scram is None else Secret(row.scram),
            settings=decode(row.settings),
            list_settings=decode(row.list_settings or "{}"),
        )
        for row in rows
    ]


def _sender(row: Row[Any]) -> Sender:
    return Sender(row.kind, row.value, row.verified, row.provenance, row.verified_at, row.created_at, row.verified_by)


def _batches(names: Iterable[str]) -> Iterable[list[str]]:
    rest = iter(names)
    while some := [*itertools.islice(rest, _AT_ONCE)]:
        yield some
