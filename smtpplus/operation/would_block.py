"""What alert mode let through: the list by user and sender, and the command that switches to block mode (D5)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from sqlalchemy import Connection, Row, select

from smtpplus.mail.command_line import quoted
from smtpplus.operation.checks import moment
from smtpplus.operation.cli import Operation, console, date, print_json
from smtpplus.operation.user_view import in_force
from smtpplus.storage.schema import would_refuse

if TYPE_CHECKING:
    from smtpplus.accounts.user import User


class Switch(NamedTuple):
    """How a user comes to block mode: the mode now, and the command; "" if it is block mode already or the user is gone."""

    mode: str
    command: str


def listing(operation: Operation, name: str | None, since: str | None, as_json: bool) -> None:
    """Print the would-be refusals, of all users or one, since a time or ever."""
    from smtpplus.accounts import fields, store

    start = None if since is None else moment(since, time.time())
    with operation.transaction(reading=True) as connection:
        rows = _rows(connection, None if name is None else fields.user_name(name), start)
        if name is not None and not rows:
            store.get_user(connection, name)  # a mistyped name is refused; one of a deleted user may have rows
        users = store.load_users(connection, {row.user for row in rows})
    switches = {row.user: _switch(operation, users.get(row.user)) for row in rows}
    if as_json:
        print_json([_as_json(row, switches[row.user]) for row in rows])
    elif not rows:
        click.echo("Nothing: all mail that was sent was authorized.")
    else:
        _print(operation, rows, switches)


def _rows(connection: Connection, name: str | None, start: float | None) -> list[Row[Any]]:
    table = would_refuse.c
    chosen = select(would_refuse).order_by(table.user, table.count.desc(), table.sender, table.reason)
    if name is not None:
        chosen = chosen.where(table.user == name)
    if start is not None:
        chosen = chosen.where(table.last_at >= start)
    return [*connection.execute(chosen)]


def _switch(operation: Operation, user: User | None) -> Switch:
    if user is None:
        return Switch("", "")
    effective = in_force(operation, user)
    if effective.unauthorized == "block":
        return Switch("block", "")
    if effective.origins["unauthorized"] == "user":
        return Switch("alert", f"smtpplus user edit --unauthorized block {quoted(user.name)}")
    return Switch("alert", f"smtpplus list edit --unauthorized block {quoted(user.list)}")


def _print(operation: Operation, rows: list[Row[Any]], switches: dict[str, Switch]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("User", "Sender", "Reason", "Messages", "First", "Last")
    for row in rows:
        table.add_row(*map(Text, (row.user, row.sender, row.reason, str(row.count), date(row.first_at), date(row.last_at))))
    console().print(table)
    commands = sorted({switch.command for switch in switches.values() if switch.command})
    then = " Then switch to block mode:" if commands else ""
    click.echo(f"What is right is authorized by `smtpplus sender add USER SENDER`.{then}")
    for command in commands:
        click.echo(f"  {command}")
    if operation.configuration.senders.unauthorized == "alert":
        click.echo('For all users who set nothing else: unauthorized = "block" under [senders] in the configuration; no restart is needed.')


def _as_json(row: Row[Any], switch: Switch) -> dict[str, Any]:
    return {
        "user": row.user,
        "sender": row.sender,
        "reason": row.reason,
        "count": row.count,
        "first_at": row.first_at,
        "last_at": row.last_at,
        "reply": row.reply,
        "mode": switch.mode or None,
        "switch": switch.command or None,
    }
