"""`smtpplus user`: accounts, their senders and their passwords.

A password is printed once, where it is made, and nowhere else. The database is changed in one transaction per command: a command
that is refused has changed nothing.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Sequence, TypeVar

import click

from smtpplus.mail.command_line import quoted
from smtpplus.operation.cli import Operation, Refused, console, need_output, operator, print_json
from smtpplus.operation.exchange import export_users, import_users
from smtpplus.operation.setting_options import settings_named, user_setting_options
from smtpplus.operation.user_view import as_json as user_json
from smtpplus.operation.user_view import details, in_force, overview

if TYPE_CHECKING:
    from smtpplus.accounts.user import User
    from smtpplus.operation.proof import Asked

PASSWORD_LEAST = 8  # characters, NIST SP 800-63B section 5.1.1.2
PASSWORD_LIMIT = 1024  # octets read with --password-stdin
F = TypeVar("F", bound=Callable[..., Any])

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_password_stdin = click.option("--password-stdin", is_flag=True, help="Take the password from the first line of standard input.")
_FIELDS = (
    click.option("--domains", metavar="LIST", help='Authorized domains, separated by ";": "a.com; .b.com" (.b.com: and all below it).'),
    click.option("--senders", metavar="LIST", help='Authorized addresses, separated by ";": "x@c.com; y@d.com".'),
    click.option("--note", metavar="TEXT", help="A note about the user; `user show` alone shows it."),
    click.option("--list", "list_", metavar="LIST", help='The list the user belongs to; "default" at first.'),
    click.option("--vouch", is_flag=True, help="Mark the domains and senders as verified by you."),
    click.option("--allow-any", is_flag=True, help="No domains and no senders: the user may use every sender that is verified."),
)


def _fields(command: F) -> F:
    command = user_setting_options(command)
    for option in reversed(_FIELDS):
        command = option(command)
    return command


@click.group()
def user() -> None:
    """Users: who may log in, and as whom they may send."""


user.add_command(import_users)
user.add_command(export_users)


@user.command()
@click.argument("name")
@_fields
@click.option("--inactive", is_flag=True, help="Do not let the user in yet.")
@click.option("--verify", is_flag=True, help="Ask for the verification of the domains and senders at once, as `sender verify` does.")
@_password_stdin
@_json
@click.pass_obj
def add(
    operation: Operation,
    /,
    *,
    name: str,
    domains: str | None,
    senders: str | None,
    note: str | None,
    list_: str | None,
    vouch: bool,
    allow_any: bool,
    inactive: bool,
    verify: bool,
    password_stdin: bool,
    as_json: bool,
    **settings: str | None,
) -> None:
    """Add a user and print the password that is made for them."""
    from smtpplus.accounts import fields, forms, store
    from smtpplus.accounts.settings import UNSET

    if vouch and verify:
        raise click.UsageError("--vouch and --verify exclude each other: what you vouch for needs no verification.")
    password, hashed, scram = _new_password(password_stdin)
    with operation.transaction() as connection:
        made = store.add_user(
            connection,
            name,
            hashed,
            scram=scram,
            now=time.time(),
            list="default" if list_ is None else list_,
            settings=forms.changed(UNSET, settings_named(settings)),
            note=note or "",
            active=not inactive,
            domains=fields.domains(domains or ""),
            addresses=fields.addresses(senders or ""),
            allow_any=allow_any,
            vouch=vouch,
            by=operator(),
        )
    _hints(operation, made, asking=verify)
    asked: list[Asked] = []
    try:
        asked = _ask(operation, made) if verify else []
    finally:  # the user is there, whatever DNS says
        _print_password(made.name, "was added", password, as_json, asked)


@user.command()
@click.argument("name")
@_fields
@click.pass_obj
def edit(
    operation: Operation,
    /,
    *,
    name: str,
    domains: str | None,
    senders: str | None,
    note: str | None,
    list_: str | None,
    vouch: bool,
    allow_any: bool,
    **settings: str | None,
) -> None:
    """Change a user. --domains and --senders replace what was there; entries that stay keep their verification.

    A setting given as `inherit` is what the list says, or else the configuration.
    """
    from smtpplus.accounts import fields, store

    with operation.transaction() as connection:
        changes = store.Changes(
            list=list_,
            settings=settings_named(settings) or None,
            note=note,
            domains=None if domains is None else fields.domains(domains),
            addresses=None if senders is None else fields.addresses(senders),
            allow_any=allow_any,
            vouch=vouch,
            by=operator(),
        )
        if changes == store.Changes(by=changes.by):
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
    from smtpplus.accounts import fields, lists, store

    with operation.transaction(reading=True) as connection:
        name = None if list_ is None else lists.get_list(connection, fields.list_name(list_)).name
        users = store.list_users(connection, list=name)
    shown = [(each, in_force(operation, each)) for each in users]
    if as_json:
        print_json([user_json(*each) for each in shown])
    else:
        console().print(overview(shown))


@user.command()
@click.argument("name")
@_json
@click.pass_obj
def show(operation: Operation, name: str, as_json: bool) -> None:
    """Show one user, with the note, and with every setting that is in force and where it comes from."""
    from smtpplus.accounts import store

    with operation.transaction(reading=True) as connection:
        found = store.get_user(connection, name)
    effective = in_force(operation, found)
    if as_json:
        print_json(user_json(found, effective) | {"note": found.note})
    else:
        console().print(details(found, effective))


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
    "--queued",
    type=click.Choice(["keep", "drop"]),
    default="keep",
    show_default=True,
    help="What happens to their queued mail: keep (deliver it), or drop (as `queue cancel`).",
)
@click.pass_obj
def delete(operation: Operation, name: str, queued: Any) -> None:
    """Delete a user. What they have queued is delivered, unless --queued says otherwise."""
    from smtpplus.accounts import store
    from smtpplus.operation.queues import cancel_selected
    from smtpplus.queue.selection import Selection

    with operation.transaction() as connection:
        found = store.get_user(connection, name)
        store.delete_user(connection, found.name)
    click.echo(f"User {found.name} was deleted.")
    if queued == "drop":
        dropped = cancel_selected(operation, Selection(users=(found.name,)), reason=f"user {found.name} was deleted")
        click.echo(f"Queued recipients dropped: {dropped}.")


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
        need_output()
        password = passwords.generate()
        return password, passwords.hash_password(password), passwords.scram_verifier(password)
    if sys.stdin is None:
        raise click.UsageError("Standard input is closed; the password is read from its first line.")
    line = sys.stdin.buffer.readline(PASSWORD_LIMIT + 1)
    given = line.removesuffix(b"\n").removesuffix(b"\r")
    if len(line) > PASSWORD_LIMIT:
        raise click.UsageError(f"The password on standard input is longer than {PASSWORD_LIMIT} octets.")
    if not given:
        raise click.UsageError("There is no password on the first line of standard input.")
    try:
        text = given.decode("utf-8")
        if "\0" in text:
            raise ValueError
    except ValueError:
        raise click.UsageError("The password on standard input is no text in UTF-8; mail clients could not send it.") from None
    if len(text) < PASSWORD_LEAST:
        raise click.UsageError(
            f"The password on standard input has fewer than {PASSWORD_LEAST} characters and is soon guessed; "
            "leave out --password-stdin, and a good one is made and shown."
        )
    return None, passwords.hash_password(given), passwords.scram_verifier(given)


def _print_password(name: str, what: str, password: str | None, as_json: bool, asked: Sequence[Asked] = ()) -> None:
    """Print what was made, and what became of the verifications `asked` for."""
    from smtpplus.operation import proof

    try:
        if as_json:
            print_json({"user": name, "password": password} | ({"verification": proof.as_json(asked)} if asked else {}))
        elif password is None:
            click.echo(f"User {name} {what}; the password is the one given.")
        else:
            click.echo(f"User {name} {what}. The password, shown only now:\n{password}")
    except OSError as error:
        lost = "" if password is None else f"; `smtpplus user reset-password {quoted(name)}` makes another password"
        raise Refused(f"The output cannot be written ({error.strerror}), but the user exists{lost}.") from None
    if not as_json:
        proof.say(asked)


def _ask(operation: Operation, made: User) -> list[Asked]:
    """Ask for the verification of all that the user has."""
    from smtpplus.operation import proof

    return proof.ask(operation, made.name, made.senders)


def _hints(operation: Operation, changed: User, *, asking: bool = False) -> None:
    """Say on standard error what will not work as it stands; `asking`: verification is asked for anyway."""
    from smtpplus.accounts import fields

    for sentence in fields.near_misses([*changed.senders]):
        click.echo(f"Note: {sentence}.", err=True)
    if not in_force(operation, changed).require_verified:
        return
    pending = [str(entry) for entry in changed.senders if not entry.verified]
    if pending and not asking:
        click.echo(
            f"Note: not verified and refused until then: {'; '.join(pending)}. "
            f"Ask for it: smtpplus sender verify {quoted(changed.name, '; '.join(pending))}. "
            f"Or, if they belong to the user, vouch for them: smtpplus user edit --vouch {quoted(changed.name)}",
            err=True,
        )
    elif not changed.senders:
        click.echo(
            f"Note: {changed.name} has no domains and no senders, which allows every verified sender, and none is verified. "
            f"Name some: smtpplus sender add --verify {quoted(changed.name)} ADDRESS-OR-DOMAIN",
            err=True,
        )
