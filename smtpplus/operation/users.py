"""`smtpplus user`: accounts, their senders and their passwords.

A password is printed once, where it is made, and nowhere else. The database is changed in one transaction per command: a command
that is refused has changed nothing.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import click

from smtpplus.operation.cli import Operation, console, print_json

if TYPE_CHECKING:
    from smtpplus.accounts.settings import Effective
    from smtpplus.accounts.user import Sender, User

PASSWORD_LIMIT = 1024  # octets read with --password-stdin
F = TypeVar("F", bound=Callable[..., Any])

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_password_stdin = click.option("--password-stdin", is_flag=True, help="Take the password from the first line of standard input.")
_FIELDS = (
    click.option("--domains", metavar="LIST", help='Authorized domains, separated by ";": "a.com; .b.com" (.b.com: and all below it).'),
    click.option("--senders", metavar="LIST", help='Authorized addresses, separated by ";": "x@c.com; y@d.com".'),
    click.option("--priority", type=click.IntRange(1, 5), help="Priority of mail that says none itself: 1 highest, 5 lowest; 3 at first."),
    click.option("--note", metavar="TEXT", help="A note about the user; `user show` alone shows it."),
    click.option("--list", "list_", metavar="LIST", help='The list the user belongs to; "default" at first.'),
    click.option("--vouch", is_flag=True, help="Mark the domains and senders as verified by you."),
    click.option("--allow-any", is_flag=True, help="No domains and no senders: the user may use every sender that is verified."),
)


def _fields(command: F) -> F:
    for option in reversed(_FIELDS):
        command = option(command)
    return command


@click.group()
def user() -> None:
    """Users: who may log in, and as whom they may send."""


@user.command()
@click.argument("name")
@_fields
@click.option("--inactive", is_flag=True, help="Do not let the user in yet.")
@_password_stdin
@_json
@click.pass_obj
def add(
    operation: Operation,
    *,
    name: str,
    domains: str | None,
    senders: str | None,
    priority: int | None,
    note: str | None,
    list_: str | None,
    vouch: bool,
    allow_any: bool,
    inactive: bool,
    password_stdin: bool,
    as_json: bool,
) -> None:
    """Add a user and print the password that is made for them."""
    from smtpplus.accounts import fields, store

    password, hashed, scram = _new_password(password_stdin)
    with operation.transaction() as connection:
        made = store.add_user(
            connection,
            name,
            hashed,
            scram=scram,
            now=time.time(),
            list="default" if list_ is None else list_,
            priority=priority,
            note=note or "",
            active=not inactive,
            domains=fields.domains(domains or ""),
            addresses=fields.addresses(senders or ""),
            allow_any=allow_any,
            vouch=vouch,
        )
    _hints(operation, made)
    _print_password(made.name, "was added", password, as_json)


@user.command()
@click.argument("name")
@_fields
@click.pass_obj
def edit(
    operation: Operation,
    *,
    name: str,
    domains: str | None,
    senders: str | None,
    priority: int | None,
    note: str | None,
    list_: str | None,
    vouch: bool,
    allow_any: bool,
) -> None:
    """Change a user. --domains and --senders replace what was there; entries that stay keep their verification."""
    from smtpplus.accounts import fields, store

    with operation.transaction() as connection:
        changes = store.Changes(
            list=list_,
            settings=None if priority is None else {"priority": priority},
            note=note,
            domains=None if domains is None else fields.domains(domains),
            addresses=None if senders is None else fields.addresses(senders),
            allow_any=allow_any,
            vouch=vouch,
        )
        if changes == store.Changes():
            raise click.UsageError("Nothing to change was named; see `smtpplus user edit --help`.")
        changed = store.edit_user(connection, name, changes, now=time.time())
    _hints(operation, changed)
    click.echo(f"User {changed.name} was changed.")


@user.command("list")
@click.option("--list", "list_", metavar="LIST", help="Only the users of this list.")
@_json
@click.pass_obj
def list_users(operation: Operation, list_: str | None, as_json: bool) -> None:
    """List the users."""
    from smtpplus.accounts import fields, store

    with operation.transaction(reading=True) as connection:
        users = store.list_users(connection, list=None if list_ is None else fields.list_name(list_))
    if as_json:
        print_json([_as_json(each, _effective(operation, each)) for each in users])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("User", "List", "Active", "Priority", "Domains", "Senders")
    for each in users:
        table.add_row(
            *(Text(cell) for cell in (each.name, each.list, "yes" if each.active else "no", str(_effective(operation, each).priority))),
            *(Text(cell) for cell in (_entries(each, address=False), _entries(each, address=True))),
        )
    console().print(table)


@user.command()
@click.argument("name")
@_json
@click.pass_obj
def show(operation: Operation, name: str, as_json: bool) -> None:
    """Show one user, with the note."""
    from smtpplus.accounts import store

    with operation.transaction(reading=True) as connection:
        found = store.get_user(connection, name)
    if as_json:
        print_json(_as_json(found, _effective(operation, found)) | {"note": found.note})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    for label, text in (
        ("User", found.name),
        ("List", found.list),
        ("Active", "yes" if found.active else "no"),
        ("Priority", str(_effective(operation, found).priority)),
        ("Domains", _entries(found, address=False)),
        ("Senders", _entries(found, address=True)),
        ("Note", found.note),
        ("Added", _date(found.created_at)),
        ("Changed", _date(found.changed_at)),
    ):
        table.add_row(label, Text(text))
    console().print(table)


@user.command("reset-password")
@click.argument("name")
@_password_stdin
@_json
@click.pass_obj
def reset_password(operation: Operation, name: str, password_stdin: bool, as_json: bool) -> None:
    """Make a new password and print it; the old one fails at once."""
    from smtpplus.accounts import store

    password, hashed, scram = _new_password(password_stdin)
    with operation.transaction() as connection:
        found = store.get_user(connection, name)
        store.set_password(connection, found.name, hashed, scram=scram, now=time.time())
    _print_password(found.name, "has a new password", password, as_json)


@user.command()
@click.argument("name")
@click.option(
    "--queued", type=click.Choice(["keep", "drop"]), default="keep", help="What happens to their queued mail: keep (deliver it), or drop."
)
@click.pass_obj
def delete(operation: Operation, name: str, queued: Any) -> None:
    """Delete a user."""
    from smtpplus.accounts import store

    with operation.transaction() as connection:
        found = store.get_user(connection, name)
        dropped = store.delete_user(connection, found.name, queued=queued)
    click.echo(f"User {found.name} was deleted." + (f" Queued messages dropped: {dropped}." if queued == "drop" else ""))


@user.command()
@click.argument("name")
@click.pass_obj
def activate(operation: Operation, name: str) -> None:
    """Let a user in."""
    _set_active(operation, name, True)
    click.echo(f"User {name.strip().lower()} is active.")


@user.command()
@click.argument("name")
@click.pass_obj
def deactivate(operation: Operation, name: str) -> None:
    """Keep a user out; nothing is deleted."""
    _set_active(operation, name, False)
    click.echo(f"User {name.strip().lower()} is not active.")


def _set_active(operation: Operation, name: str, active: bool) -> None:
    from smtpplus.accounts import store

    with operation.transaction() as connection:
        store.set_active(connection, name, active, now=time.time())


def _new_password(from_stdin: bool) -> tuple[str | None, str, str | None]:
    """The password to print, None if the caller knows it; and what is kept of it: its hash and its SCRAM verifier."""
    from smtpplus.accounts import passwords

    if not from_stdin:
        password = passwords.generate()
        return password, passwords.hash_password(password), passwords.scram_verifier(password)
    line = sys.stdin.buffer.readline(PASSWORD_LIMIT + 1)
    given = line.removesuffix(b"\n").removesuffix(b"\r")
    if len(line) > PASSWORD_LIMIT:
        raise click.UsageError(f"The password on standard input is longer than {PASSWORD_LIMIT} octets.")
    if not given:
        raise click.UsageError("There is no password on the first line of standard input.")
    try:
        if "\0" in given.decode("utf-8"):
            raise ValueError
    except ValueError:
        raise click.UsageError("The password on standard input is no text in UTF-8; mail clients could not send it.") from None
    return None, passwords.hash_password(given), passwords.scram_verifier(given)


def _print_password(name: str, what: str, password: str | None, as_json: bool) -> None:
    if as_json:
        print_json({"user": name, "password": password})
    elif password is None:
        click.echo(f"User {name} {what}; the password is the one given.")
    else:
        click.echo(f"User {name} {what}. The password, shown only now:\n{password}")


def _hints(operation: Operation, changed: User) -> None:
    """Say on standard error what will not work as it stands."""
    from smtpplus.accounts import fields

    for sentence in fields.near_misses([*changed.senders]):
        click.echo(f"Note: {sentence}.", err=True)
    if not operation.configuration.senders.require_verified:
        return
    pending = [str(entry) for entry in changed.senders if not entry.verified]
    if pending:
        click.echo(
            f"Note: not verified and refused until then: {'; '.join(pending)}. "
            f"If they belong to the user, vouch for them: smtpplus user edit {changed.name} --vouch",
            err=True,
        )
    elif not changed.senders:
        click.echo(
            f"Note: {changed.name} has no domains and no senders, which allows every verified sender, and none is verified. "
            f"Name some: smtpplus user edit {changed.name} --domains LIST --vouch",
            err=True,
        )


def _effective(operation: Operation, user: User) -> Effective:
    from smtpplus.accounts.settings import effective, server_settings

    return effective(server_settings(operation.configuration), user.list_settings, user.settings)


def _as_json(user: User, effective: Effective) -> dict[str, Any]:
    """What every reading command says of a user; the note is for `show` alone (A8)."""
    return {
        "name": user.name,
        "list": user.list,
        "active": user.active,
        "priority": effective.priority,
        "domains": [_entry_json(entry) for entry in user.senders if entry.kind != "address"],
        "senders": [_entry_json(entry) for entry in user.senders if entry.kind == "address"],
        "allow_any": user.allow_any,
        "created_at": user.created_at,
        "changed_at": user.changed_at,
    }


def _entry_json(entry: Sender) -> dict[str, Any]:
    return {
        "value": str(entry),
        "verified": entry.verified,
        "provenance": entry.provenance,
        "verified_at": entry.verified_at,
        "created_at": entry.created_at,
    }


def _entries(user: User, *, address: bool) -> str:
    chosen = (entry for entry in user.senders if (entry.kind == "address") == address)
    return "; ".join(str(entry) if entry.verified else f"{entry} (pending)" for entry in chosen)


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))
