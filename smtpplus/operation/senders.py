"""`smtpplus sender`: the addresses and domains that users may send as, and how it is shown that they are theirs.

Every command changes the database in one transaction, DNS is asked between two. What is verified, how, when and by whom is shown by
`sender list`. A token is printed nowhere: it is in the mail to the address alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from smtpplus.mail.command_line import quoted
from smtpplus.operation.cli import Operation, console, date, operator, print_json

if TYPE_CHECKING:
    from smtpplus.accounts.user import Sender, User

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_user = click.argument("user")
_entries = click.argument("entries", nargs=-1, required=True, metavar="ADDRESS-OR-DOMAIN...")


@click.group()
def sender() -> None:
    """Senders: the addresses and domains that users may send as, and their verification."""


@sender.command()
@_user
@_entries
@click.option("--vouch", is_flag=True, help="Mark them as verified by you.")
@click.option("--verify", "verify_", is_flag=True, help="Ask for their verification at once, as `sender verify` does.")
@_json
@click.pass_obj
def add(operation: Operation, *, user: str, entries: tuple[str, ...], vouch: bool, verify_: bool, as_json: bool) -> None:
    """Let a user send as more addresses (x@a.com), domains (a.com), or domains with all below them (.a.com)."""
    from smtpplus.accounts import fields, store, verification

    if vouch and verify_:
        raise click.UsageError("--vouch and --verify exclude each other: what you vouch for needs no verification.")
    with operation.transaction() as connection:
        wanted = verification.entries(entries)
        before = store.get_user(connection, user)
        found = verification.add(connection, before, wanted, now=time.time())
        if vouch:
            found = verification.verified(connection, found, wanted, "vouched", now=time.time(), by=operator())
    for sentence in fields.near_misses(wanted):
        click.echo(f"Note: {sentence}.", err=True)
    if not before.senders:
        click.echo(f"Note: from now on user {found.name} may send as the senders named here only.", err=True)
    if verify_:
        _ask(operation, found.name, wanted, as_json)
        return
    _print(found, wanted, "may be used" if vouch else "was added", as_json)
    if not vouch and not as_json:
        pending = [str(entry) for entry in verification.of_user(found, wanted) if not entry.verified]
        if pending:
            click.echo(f"To be verified: `smtpplus sender verify {quoted(found.name, *pending)}`.")


@sender.command()
@click.argument("names", nargs=-1, required=True, metavar="[USER] ADDRESS-OR-DOMAIN...")
@_json
@click.pass_obj
def verify(operation: Operation, names: tuple[str, ...], as_json: bool) -> None:
    """Mail a token to an address; name the DNS record of a domain, and look for it. One name alone is a sender that one user has."""
    from smtpplus.accounts import verification

    if len(names) > 1:
        with operation.transaction(reading=True):
            wanted = verification.entries(names[1:])
        _ask(operation, names[0], wanted, as_json)
        return
    with operation.transaction(reading=True) as connection:
        wanted = verification.entries(names)
        if len(wanted) > 1:
            raise click.UsageError("Name the user in front of several senders: smtpplus sender verify USER ADDRESS-OR-DOMAIN...")
        name = verification.only_user(connection, wanted[0]).name
    _ask(operation, name, wanted, as_json)


@sender.command()
@click.argument("token")
@_json
@click.pass_obj
def confirm(operation: Operation, token: str, as_json: bool) -> None:
    """Use a token that was mailed: its address is verified."""
    from smtpplus.accounts import verification

    with operation.transaction() as connection:
        claim = verification.confirm(connection, token, now=time.time(), by=operator())
    _print(claim.user, [claim.entry], "is verified", as_json)


@sender.command()
@_user
@_entries
@_json
@click.pass_obj
def vouch(operation: Operation, user: str, entries: tuple[str, ...], as_json: bool) -> None:
    """Mark senders of a user as verified by you."""
    from smtpplus.accounts import store, verification

    with operation.transaction() as connection:
        wanted = verification.entries(entries)
        found = store.get_user(connection, user)
        found = verification.verified(connection, found, wanted, "vouched", now=time.time(), by=operator())
    _print(found, wanted, "is verified", as_json)


@sender.command()
@_user
@_entries
@_json
@click.pass_obj
def revoke(operation: Operation, user: str, entries: tuple[str, ...], as_json: bool) -> None:
    """Take the verification of senders back: they are pending again, and tokens not yet used count no longer."""
    from smtpplus.accounts import store, verification

    with operation.transaction() as connection:
        wanted = verification.entries(entries)
        found = verification.revoke(connection, store.get_user(connection, user), wanted, now=time.time())
    _print(found, wanted, "is pending", as_json)


@sender.command()
@_user
@_entries
@click.option("--allow-any", is_flag=True, help="They are the last: from now on the user may use every sender that verification allows.")
@_json
@click.pass_obj
def remove(operation: Operation, user: str, entries: tuple[str, ...], allow_any: bool, as_json: bool) -> None:
    """Take senders away from a user."""
    from smtpplus.accounts import store, verification

    with operation.transaction() as connection:
        unwanted = verification.entries(entries)
        found = store.get_user(connection, user)
        gone = verification.of_user(found, unwanted)
        left = verification.remove(connection, found, unwanted, allow_any=allow_any, now=time.time())
    if as_json:
        print_json({"user": left.name, "removed": [str(entry) for entry in gone], "left": [str(entry) for entry in left.senders]})
        return
    for entry in gone:
        click.echo(f"{entry} was removed from user {left.name}.")


@sender.command("list")
@click.argument("user", required=False)
@click.option("--pending", is_flag=True, help="Only those that are not verified.")
@_json
@click.pass_obj
def list_senders(operation: Operation, user: str | None, pending: bool, as_json: bool) -> None:
    """List the senders of one user or of all: verified or pending; how, when and by whom."""
    from smtpplus.accounts import store

    with operation.transaction(reading=True) as connection:
        found = store.list_users(connection) if user is None else [store.get_user(connection, user)]
    rows = [_as_json(each, entry) for each in found for entry in each.senders if not (pending and entry.verified)]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("User", "Sender", "State", "By", "Since", "Who")
    for row in rows:
        since = "" if row["verified_at"] is None else date(row["verified_at"])
        state = "verified" if row["verified"] else "pending"
        table.add_row(*(Text(cell) for cell in (row["user"], row["sender"], state, row["provenance"], since, row["verified_by"])))
    console().print(table)


def _ask(operation: Operation, name: str, wanted: list[Sender], as_json: bool) -> None:
    from smtpplus.operation import proof

    asked = proof.ask(operation, name, wanted)
    if as_json:
        print_json(proof.as_json(asked))
    else:
        proof.say(asked)
    if any(each.refused for each in asked):
        raise click.exceptions.Exit(1)


def _print(user: User, wanted: list[Sender], what: str, as_json: bool) -> None:
    """The entries of `user` named in `wanted` as they stand now."""
    from smtpplus.accounts import verification

    entries = verification.of_user(user, wanted)
    if as_json:
        print_json([_as_json(user, entry) for entry in entries])
        return
    for entry in entries:
        click.echo(f"{entry} {what} for user {user.name}.")


def _as_json(user: User, entry: Sender) -> dict[str, Any]:
    return {
        "user": user.name,
        "sender": str(entry),
        "kind": entry.kind,
        "verified": entry.verified,
        "provenance": entry.provenance,
        "verified_at": entry.verified_at,
        "verified_by": entry.verified_by,
        "created_at": entry.created_at,
    }
