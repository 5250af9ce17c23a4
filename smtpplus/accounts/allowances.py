"""How much mail users and lists may send, for the queue: what is in force of all that set something, and of the others (C7).

Only rows that name a limit are read, so that an installation of many users without limits pays for none. A rate is an amount, seconds and
a unit (config.values.Rate); of several that a user has, all hold.
"""

from __future__ import annotations

import functools

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, or_, select

from smtpplus.accounts.lists import load_settings
from smtpplus.accounts.settings import UNSET, Settings, decode, effective
from smtpplus.config.values import Rate, rates
from smtpplus.storage.schema import lists, users

Allowance = tuple[Rate, ...]
MINUTE, DAY = 60.0, 86_400.0  # seconds


class Allowances(msgspec.Struct, frozen=True):
    """What is in force: for each user by name, for each user of a list, for all users of a list together, and for all others."""

    users: dict[str, Allowance]
    lists: dict[str, Allowance]
    sums: dict[str, Allowance]
    everybody: Allowance  # each user that is not named, of a list that is not
    every_list: Allowance  # each list that is not named, together


def load_allowances(connection: Connection, server: Settings) -> Allowances:
    """What is in force for each user and each list that sets something, and by `server`, which sets every value, for the others."""
    named = [row.name for row in connection.execute(select(lists.c.name).where(_sets(lists.c.settings)))]
    rows = connection.execute(select(users.c.name, users.c.list, users.c.settings).where(_sets(users.c.settings))).all()
    settings = load_settings(connection, {*named, *(row.list for row in rows)})
    return Allowances(
        {row.name: _own(server, settings[row.list], decode(row.settings)) for row in rows},
        {name: _own(server, settings[name], UNSET) for name in named},
        {name: _read(effective(server, settings[name], UNSET).per_list) for name in named},
        _own(server, UNSET, UNSET),
        _read(effective(server, UNSET, UNSET).per_list),
    )


def _own(server: Settings, list_: Settings, user: Settings) -> Allowance:
    found = effective(server, list_, user)
    plain: Allowance = ((found.rate, MINUTE, "recipients"), (found.quota, DAY, "recipients"))
    return tuple(rate for rate in (*plain, *_read(found.per_user)) if rate[0])


_read = functools.lru_cache(maxsize=1024)(rates)


def _sets(column: Column[str]) -> ColumnElement[bool]:
    return or_(*(column.like(f'%"{name}":%') for name in ("rate", "quota", "per_user", "per_list")))
