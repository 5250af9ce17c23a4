"""`smtpplus user import` and `user export`: users from and to a TOML or CSV file (A12).

A file with a fault imports nothing, and every fault is told with its line. Generated passwords are printed once, when they are in the
database. An exported file holds what is kept of the passwords: it is made readable for its owner alone.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation.cli import Operation, Refused, console, need_output, operator, print_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.accounts.exchange import Import
    from smtpplus.accounts.user import User


class DamagedFile(Refused):
    """A file that cannot be imported: a line for each fault."""

    def __init__(self, path: str, faults: list[tuple[int, str]]) -> None:
        told = [f"{path}:{line}: {sentence[:1].upper()}{sentence[1:]}." for line, sentence in faults]
        super().__init__("\n".join([*told, "Nothing was imported."]))

    def show(self, file: Any = None) -> None:
        """Print the sentences as they are: each begins with its place."""
        click.echo(self.message, err=True)


@click.command("import")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.option("--grandfather", is_flag=True, help="Mark all their domains and senders as verified: they were in use before.")
@click.option("--dry-run", is_flag=True, help="Say what would be imported, and import nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def import_users(operation: Operation, path: str, grandfather: bool, dry_run: bool, as_json: bool) -> None:
    """Add the users of a TOML or CSV file, all or none. Users without a password in the file get one, which is printed."""
    from smtpplus.accounts import bulk

    given = _read(operation, path)
    now = time.time()
    new = [bulk.grandfathered(user, now=now, by=operator()) for user in given.users] if grandfather else given.users
    with operation.transaction(reading=True, making=True) as connection:
        _judge(connection, path, given)
    bare = [user.name for user in new if not user.password]
    if dry_run:
        _print(as_json, len(new), [each.name for each in given.lists], dict.fromkeys(bare, ""), dry_run=True)
        return
    if bare:
        need_output()
    made, hashed = _passwords(new)
    with operation.transaction() as connection:
        _judge(connection, path, given)
        lists = bulk.add_lists(connection, given.lists, now=now)
        bulk.add_users(connection, hashed, now=now)
    try:
        _print(as_json, len(new), lists, made, dry_run=False)
    except OSError as error:
        lost = f"; `smtpplus user reset-password` makes other passwords for {', '.join(made)}" if made else ""
        raise Refused(f"The output cannot be written ({error.strerror}), but the users were imported{lost}.") from None


@click.command("export")
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(dir_okay=False))
@click.option("--format", "kind", type=click.Choice(["toml", "csv"]), help="The format; else the ending of FILE says it, else TOML.")
@click.option("--list", "list_", metavar="LIST", help="Only the users of this list.")
@click.pass_obj
def export_users(operation: Operation, path: str | None, kind: Any, list_: str | None) -> None:
    """Write users, with the hashes of their passwords, as TOML or CSV that `user import` reads; to standard output if no FILE is named."""
    from smtpplus.accounts import fields, files, lists, store

    with operation.transaction(reading=True) as connection:
        if kind is None:
            kind = files.format_of(path) if path else "toml"
        name = None if list_ is None else fields.list_name(list_)
        users = store.list_users(connection, list=name)
        chosen = lists.list_lists(connection) if name is None else [lists.get_list(connection, name)]
    text = files.write(users, chosen, kind)
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        _write(Path(path), text)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}.") from None
    click.echo(f"{len(users)} users were written to {path}; it holds the hashes of their passwords.")


def _read(operation: Operation, path: str) -> Import:
    from smtpplus.accounts import files
    from smtpplus.accounts.exchange import FileFaults
    from smtpplus.accounts.fields import FieldError

    try:
        kind = files.format_of(path)
        return files.read(Path(path).read_bytes(), kind)
    except FileFaults as damaged:
        raise DamagedFile(path, damaged.faults) from None
    except FieldError as error:
        raise click.UsageError(f"{error}.") from None
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from None


def _judge(connection: Connection, path: str, given: Import) -> None:
    """Refuse the file if a user of it cannot be added."""
    from smtpplus.accounts import bulk

    faults = bulk.in_the_way(connection, given.users, given.lists)
    if faults:
        raise DamagedFile(path, sorted((given.lines[name], sentence) for name, sentence in faults.items()))


def _passwords(users: list[User]) -> tuple[dict[str, str], list[User]]:
    """The passwords made for those who have none, by user; and all users with what is kept of theirs."""
    import msgspec

    from smtpplus.accounts import passwords
    from smtpplus.accounts.user import Secret

    made = {user.name: passwords.generate() for user in users if not user.password}

    def kept(user: User) -> User:
        if user.password:
            return user
        scram = passwords.scram_verifier(made[user.name])
        return msgspec.structs.replace(
            user, password=Secret(passwords.hash_password(made[user.name])), scram=None if scram is None else Secret(scram)
        )

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # argon2 lets go of the interpreter
        return made, list(threads.map(kept, users))


def _print(as_json: bool, count: int, lists: list[str], made: dict[str, str], *, dry_run: bool) -> None:
    if as_json:
        shown = [{"user": name, "password": password or None} for name, password in made.items()]
        print_json({"imported": 0 if dry_run else count, "users": count, "lists": lists, "passwords": shown, "dry_run": dry_run})
        return
    if dry_run:
        click.echo(f"{count} users would be imported, {len(made)} of them with a password that is made. Nothing was imported.")
        return
    click.echo(f"{count} users were imported." + (" Passwords that were made, shown only now:" if made else ""))
    if made:
        from rich.table import Table
        from rich.text import Text

        table = Table("User", "Password")
        for name, password in made.items():
            table.add_row(Text(name), Text(password))
        console().print(table)


def _write(path: Path, text: str) -> None:
    """Write a file for its owner alone; what was there is replaced when all is written."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline="") as out:
            out.write(text)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
