"""`smtpplus list`: lists of users, and what they set for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation.cli import Operation, console, date, print_json
from smtpplus.operation.setting_options import setting_options, settings_named

if TYPE_CHECKING:
    from smtpplus.accounts.lists import UserList

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.group("list")
def list_() -> None:
    """Lists of users. A user has from the list what is not set for the user alone; what the list leaves open, the configuration says."""


@list_.command()
@click.argument("name")
@click.option("--note", metavar="TEXT", help="A note about the list.")
@setting_options
@click.pass_obj
def add(operation: Operation, /, *, name: str, note: str | None, **texts: str | None) -> None:
    """Add a list."""
    from smtpplus.accounts import forms, lists
    from smtpplus.accounts.settings import Settings

    with operation.transaction() as connection:
        settings = forms.changed(Settings(), settings_named(texts))
        made = lists.add_list(connection, name, now=time.time(), note=note or "", settings=settings)
    click.echo(f"List {made.name} was added.")


@list_.command()
@click.argument("name")
@click.option("--note", metavar="TEXT", help="A note about the list.")
@setting_options
@click.pass_obj
def edit(operation: Operation, /, *, name: str, note: str | None, **texts: str | None) -> None:
    """Change a list; its users have it within a second. `inherit` takes back what the list says."""
    from smtpplus.accounts import lists

    with operation.transaction() as connection:
        settings = settings_named(texts)
        if note is None and not settings:
            raise click.UsageError("Nothing to change was named; see `smtpplus list edit --help`.")
        changed = lists.edit_list(connection, name, now=time.time(), note=note, settings=settings)
    click.echo(f"List {changed.name} was changed.")


@list_.command("list")
@_json
@click.pass_obj
def list_lists(operation: Operation, as_json: bool) -> None:
    """List the lists, and what they set."""
    from smtpplus.accounts import lists

    with operation.transaction(reading=True) as connection:
        found = lists.list_lists(connection)
    if as_json:
        print_json([_as_json(each) for each in found])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("List", "Users", "Sets", "Note", "Changed")
    for each in found:
        table.add_row(*(Text(cell) for cell in (each.name, str(each.users), _sets(each), each.note, date(each.changed_at))))
    console().print(table)


@list_.command()
@click.argument("name")
@click.option("--move-to", metavar="LIST", help="The list that takes its users; without it a list that has users stays.")
@click.pass_obj
def delete(operation: Operation, name: str, move_to: str | None) -> None:
    """Delete a list."""
    from smtpplus.accounts import lists

    with operation.transaction() as connection:
        moved = lists.delete_list(connection, name, now=time.time(), move_to=move_to)
    ending = f" Users moved to {(move_to or '').strip().lower()}: {moved}." if moved else ""
    click.echo(f"List {name.strip().lower()} was deleted.{ending}")


def _set_values(found: UserList) -> dict[str, Any]:
    from smtpplus.accounts.settings import NAMES

    return {name: value for name in NAMES if (value := getattr(found.settings, name)) is not None}


def _sets(found: UserList) -> str:
    from smtpplus.accounts import forms

    return "\n".join(f"{name.replace('_', '-')}: {forms.show(name, value)}" for name, value in _set_values(found).items())


def _as_json(found: UserList) -> dict[str, Any]:
    return {
        "name": found.name,
        "users": found.users,
        "settings": _set_values(found),
        "note": found.note,
        "created_at": found.created_at,
        "changed_at": found.changed_at,
    }
