"""Lists of users in the database: functions over a connection that is in a transaction; the caller commits.

A list gives its users what they do not set themselves. The list `default` is always there. Every change raises the generation
of the accounts, as in `store`; what cannot be done raises AccountError with its remedy and has changed nothing.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

import msgspec
from sqlalchemy import Connection, Row, case, delete, func, insert, select, update

from smtpplus.accounts import fields, forms, verification
from smtpplus.accounts.fields import AccountError
from smtpplus.accounts.settings import UNSET, Settings, decode, encode
from smtpplus.accounts.store import raise_generation
from smtpplus.mail.command_line import quoted
from smtpplus.mail.reply import printable
from smtpplus.storage.schema import lists, users

DEFAULT = "default"


class UserList(msgspec.Struct, frozen=True):
    """A list. Times are seconds since the epoch."""

    name: str  # lower case
    note: str = ""
    settings: Settings = UNSET
    created_at: float = 0.0
    changed_at: float = 0.0
    users: int = 0  # how many belong to it


def add_list(connection: Connection, name: str, *, now: float, note: str = "", settings: Settings = UNSET) -> UserList:
    """Create a list."""
    name = fields.list_name(name)
    if connection.scalar(select(lists.c.name).where(lists.c.name == name)) is not None:
        raise AccountError(f"the list {name} exists already; change it with `smtpplus list edit {quoted(name)}`")
    row = {"name": name, "note": fields.note(note), "settings": encode(settings), "created_at": now, "changed_at": now}
    connection.execute(insert(lists).values(row))
    raise_generation(connection)
    return get_list(connection, name)


def edit_list(
    connection: Connection, name: str, *, now: float, note: str | None = None, settings: Mapping[str, Any] | None = None
) -> UserList:
    """Change a list: its note, and the settings named, None for one that says nothing any more. In force for all its users at once."""
    old = get_list(connection, name)
    values: dict[str, Any] = {"settings": encode(forms.changed(old.settings, settings or {})), "changed_at": now}
    if note is not None:
        values["note"] = fields.note(note)
    connection.execute(update(lists).where(lists.c.name == old.name).values(values))
    raise_generation(connection)
    return get_list(connection, old.name)


def delete_list(connection: Connection, name: str, *, now: float, move_to: str | None = None) -> int:
    """Delete a list; how many users were moved to the list `move_to`, without which a list that has users stays."""
    old = get_list(connection, name)
    if old.name == DEFAULT:
        raise AccountError("the list default stays: it takes the users that name no other; `smtpplus list edit default` changes it")
    if move_to is None:
        if old.users:
            raise AccountError(
                f"the list {old.name} has users ({old.users}); move them with --move-to LIST, "
                f"or see them with `smtpplus user list --list {quoted(old.name)}`"
            )
    else:
        target = get_list(connection, move_to)
        if target.name == old.name:
            raise AccountError(f"the users of {old.name} cannot move to the list that is deleted; name another one with --move-to")
        later = case((users.c.changed_at < now, now), else_=users.c.changed_at + 0.000_001)
        connection.execute(update(users).where(users.c.list == old.name).values(list=target.name, changed_at=later))
    connection.execute(delete(lists).where(lists.c.name == old.name))
    verification.forget_list(connection, old.name)
    raise_generation(connection)
    return old.users


def get_list(connection: Connection, name: str) -> UserList:
    """The list; AccountError if there is none."""
    found = connection.execute(_ROWS.where(lists.c.name == name.strip().lower())).one_or_none()
    if found is None:
        raise AccountError(f'there is no list "{printable(name.strip())}"; `smtpplus list list` names them')
    return _list(found)


def list_lists(connection: Connection) -> list[UserList]:
    """All lists, by name."""
    return [_list(row) for row in connection.execute(_ROWS.order_by(lists.c.name))]


def load_settings(connection: Connection, names: Iterable[str]) -> dict[str, Settings]:
    """What the lists with these names set; of one that does not exist, nothing."""
    rows = connection.execute(select(lists.c.name, lists.c.settings)).all()  # lists are few
    found = {row.name: decode(row.settings) for row in rows}
    return {name: found.get(name, UNSET) for name in names}


_ROWS = select(lists, select(func.count()).select_from(users).where(users.c.list == lists.c.name).scalar_subquery().label("users"))


def _list(row: Row[Any]) -> UserList:
    return UserList(row.name, row.note, decode(row.settings), row.created_at, row.changed_at, row.users)
