"""How much mail users may send, for the queue: rates and quotas of all users and lists that set their own (C7).

Only rows that name one are read, so that an installation of many users without limits pays for none.
"""

from __future__ import annotations

from sqlalchemy import Column, ColumnElement, Connection, or_, select

from smtpplus.accounts.lists import load_settings
from smtpplus.accounts.settings import UNSET, Settings, decode, effective
from smtpplus.storage.schema import lists, users

Allowance = tuple[int, int]  # recipients a minute and a day; 0: any number


def load_allowances(connection: Connection, server: Settings) -> tuple[dict[str, Allowance], dict[str, Allowance]]:
    """What is in force for each user that sets something, and for the other users of each list that does; `server` sets every value."""

    def allowance(list_: Settings, user: Settings) -> Allowance:
        found = effective(server, list_, user)
        return found.rate, found.quota

    named = [row.name for row in connection.execute(select(lists.c.name).where(_sets(lists.c.settings)))]
    rows = connection.execute(select(users.c.name, users.c.list, users.c.settings).where(_sets(users.c.settings))).all()
    settings = load_settings(connection, {*named, *(row.list for row in rows)})
    return (
        {row.name: allowance(settings[row.list], decode(row.settings)) for row in rows},
        {name: allowance(settings[name], UNSET) for name in named},
    )


def _sets(column: Column[str]) -> ColumnElement[bool]:
    return or_(column.like('%"rate":%'), column.like('%"quota":%'))
