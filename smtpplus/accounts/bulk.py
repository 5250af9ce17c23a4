"""Many users at once, into the database: what `user import` and the benchmark need. One transaction: all of them or none.

Rows are written by few statements, however many users there are. What cannot be done is said for every user that stands in the way,
before anything is written.
"""

from __future__ import annotations

import itertools
from typing import Any, Iterable, Sequence

import msgspec
from sqlalchemy import Connection, insert, select, update

from smtpplus.accounts import store
from smtpplus.accounts.lists import UserList
from smtpplus.accounts.settings import UNSET, encode
from smtpplus.accounts.user import Sender, User
from smtpplus.mail.command_line import quoted
from smtpplus.storage.schema import lists, senders, users

_AT_ONCE = 500  # rows in one statement


def grandfathered(user: User, *, now: float, by: str) -> User:
    """The user with every entry verified: those that were not, because they were in use before (A12)."""
    entries = (
        entry
        if entry.verified
        else msgspec.structs.replace(entry, verified=True, provenance="grandfathered", verified_at=now, verified_by=by)
        for entry in user.senders
    )
    return msgspec.structs.replace(user, senders=tuple(entries))


def in_the_way(connection: Connection, new: Sequence[User], new_lists: Iterable[UserList] = ()) -> dict[str, str]:
    """Why some of the users cannot be added: a sentence by name."""
    known = {*connection.scalars(select(lists.c.name)), *(each.name for each in new_lists)}
    there = store.fingerprints(connection, [user.name for user in new])
    faults = {
        user.name: f"there is no list {user.list}; `smtpplus list add {quoted(user.list)}` makes it"
        for user in new
        if user.list not in known
    }
    return faults | {name: f"the user {name} exists already; delete it first, or take it out of the file" for name in there}


def add_lists(connection: Connection, new: Iterable[UserList], *, now: float) -> list[str]:
    """Add lists. One that is there already stays as it is, unless it said nothing yet; the names of those that were written."""
    there = {row.name: row for row in connection.execute(select(lists))}
    written = []
    for each in new:
        row = there.get(each.name)
        values = {"note": each.note, "settings": encode(each.settings), "changed_at": now}
        if row is None:
            connection.execute(insert(lists).values(name=each.name, created_at=now, **values))
        elif (row.note, row.settings) == ("", encode(UNSET)) and (each.note or each.settings != UNSET):
            connection.execute(update(lists).where(lists.c.name == each.name).values(values))
        else:
            continue
        written.append(each.name)
    store.raise_generation(connection)
    return written


def add_users(connection: Connection, new: Sequence[User], *, now: float) -> None:
    """Add users as they are, with hashed passwords and the verification of their entries; `created_at` 0 becomes `now`.

    The caller has seen to it that nobody is `in_the_way`; the database refuses a name that is there.
    """
    for some in _batches(new):
        connection.execute(insert(users), [_user_row(user, now) for user in some])
        names = [user.name for user in some]
        ids = {row.name: row.id for row in connection.execute(select(users.c.name, users.c.id).where(users.c.name.in_(names)))}
        rows = [_sender_row(ids[user.name], entry, now) for user in some for entry in user.senders]
        if rows:
            connection.execute(insert(senders), rows)
    store.raise_generation(connection)


def _user_row(user: User, now: float) -> dict[str, Any]:
    return {
        "name": user.name,
        "list": user.list,
        "password": str(user.password),
        "scram": None if user.scram is None else str(user.scram),
        "active": user.active,
        "note": user.note,
        "allow_any": user.allow_any,
        "settings": encode(user.settings),
        "created_at": user.created_at or now,
        "changed_at": now,
    }


def _sender_row(user_id: int, entry: Sender, now: float) -> dict[str, Any]:
    return msgspec.structs.asdict(entry) | {"user_id": user_id, "created_at": entry.created_at or now}


def _batches(some: Sequence[User]) -> Iterable[Sequence[User]]:
    for start in itertools.count(0, _AT_ONCE):
        batch = some[start : start + _AT_ONCE]
        if not batch:
            return
        yield batch
