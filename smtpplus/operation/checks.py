"""`smtpplus check` and `smtpplus who-may-send`: who may send as whom, asked of the functions that the server itself uses (D4, D5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from smtpplus.mail.command_line import quoted
from smtpplus.operation.cli import Operation, Refused, console, date, print_json
from smtpplus.operation.user_view import in_force

if TYPE_CHECKING:
    from smtpplus.accounts.permission import Answer, Permit
    from smtpplus.accounts.user import User

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.command()
@click.option("--user", "name", metavar="USER", help="The user who would send.")
@click.option("--from", "sender", metavar="ADDRESS", help='The envelope sender; "" for the null one.')
@click.option(
    "--header-from", "from_", metavar="ADDRESS", multiple=True, help="An address of the header From, if it is another one; repeat it."
)
@click.option("--sender", "header_sender", metavar="ADDRESS", help="The address of the header Sender, if there is one.")
@click.option("--would-block", is_flag=True, help="List what alert mode let through and block mode would have refused.")
@click.option(
    "--since",
    metavar="TIME",
    help='With --would-block: only what was sent again since then, such as "7d"; all of its messages are counted.',
)
@_json
@click.pass_obj
def check(
    operation: Operation,
    /,
    *,
    name: str | None,
    sender: str | None,
    from_: tuple[str, ...],
    header_sender: str | None,
    would_block: bool,
    since: str | None,
    as_json: bool,
) -> None:
    """Say whether a user would be allowed to send a message, why not, and what to do. Exit status 1 if it would be refused."""
    if would_block:
        if sender is not None or from_ or header_sender:
            raise click.UsageError("--would-block lists what was sent; leave out --from, --header-from and --sender.")
        from smtpplus.operation.would_block import listing

        listing(operation, name, since, as_json)
        return
    if name is None or sender is None:
        raise click.UsageError("Name the user and the envelope sender: smtpplus check --user USER --from ADDRESS.")
    if since is not None:
        raise click.UsageError("--since belongs to --would-block.")
    from smtpplus.accounts import permission, store

    with operation.transaction(reading=True) as connection:
        user = store.get_user(connection, name)
    from_fields = [", ".join(from_)] if from_ else [sender] if sender else None
    given = permission.answer(user, in_force(operation, user), sender, from_fields, [] if header_sender is None else [header_sender])
    if as_json:
        print_json(_answer_json(operation, user, sender, given))
    else:
        click.echo(_told(operation, user, sender, given))
    if not given.sent:
        raise click.exceptions.Exit(Refused.exit_code)


@click.command("who-may-send")
@click.argument("address")
@_json
@click.pass_obj
def who_may_send(operation: Operation, address: str, as_json: bool) -> None:
    """List the users who are authorized to send as ADDRESS, and by which entry."""
    from smtpplus.accounts import permission
    from smtpplus.accounts.settings import server_settings
    from smtpplus.mail.address import AddressError

    try:
        with operation.transaction(reading=True) as connection:
            permits = permission.who_may_send(connection, address, server_settings(operation.configuration))
    except AddressError as error:
        raise click.UsageError(f'"{address}" is no address: {error}.') from None
    if as_json:
        print_json([_permit_json(permit) for permit in permits])
        return
    if not permits:
        click.echo(f"Nobody may send as {address}. `smtpplus sender add USER {quoted(address)}` authorizes a user.")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("User", "List", "By", "Verified")
    for permit in permits:
        entry = permit.entry
        by = "any sender" if entry is None else str(entry)
        verified = (
            "" if entry is None else "not asked for" if not entry.verified else f"{entry.provenance} {date(entry.verified_at or 0.0)}"
        )
        table.add_row(*map(Text, (permit.user.name, permit.user.list, by, verified)))
    console().print(table)


def _told(operation: Operation, user: User, sender: str, given: Answer) -> str:
    """The answer, for people."""
    who = f"{user.name} may send as {sender or 'the null sender'}"
    if given.outcome == "accepted":
        return f"Yes: {who}."
    from smtpplus.mail.reasons import REASONS

    verdict = given.verdict
    reason = REASONS[verdict.reason]
    text = reason.explanation if reason.reply_code == 535 or verdict.refusal is None else str(verdict.refusal.reply)
    lines = [f"Why: {text}", f"Reason: {verdict.reason}"] + ([f"Remedy: {verdict.remedy}"] if verdict.remedy else [])
    if given.outcome == "refused":
        return "\n".join([f"No: the message would be refused; {user.name} is not allowed to send it.", *lines])
    origin = in_force(operation, user).origins["unauthorized"]
    said_by = {"user": "set for the user", "list": f"set by the list {user.list}", "server": "set by the configuration"}[origin]
    return "\n".join([f"Yes, but not authorized: it is sent because of alert mode ({said_by}), and raises an alert.", *lines])


def _answer_json(operation: Operation, user: User, sender: str, given: Answer) -> dict[str, Any]:
    from smtpplus.mail.reasons import REASONS

    verdict, effective = given.verdict, in_force(operation, user)
    reason = REASONS.get(verdict.reason)
    return {
        "user": user.name,
        "from": sender,
        "outcome": given.outcome,
        "authorized": verdict.allowed,
        "reason": verdict.reason or None,
        "address": verdict.address if not verdict.allowed else None,
        "reply": None if verdict.refusal is None else str(verdict.refusal.reply),
        "explanation": None if reason is None else reason.explanation,
        "remedy": verdict.remedy or None,
        "mode": effective.unauthorized,
        "require_verified": effective.require_verified,
    }


def _permit_json(permit: Permit) -> dict[str, Any]:
    entry = permit.entry
    return {
        "user": permit.user.name,
        "list": permit.user.list,
        "entry": None if entry is None else str(entry),
        "kind": None if entry is None else entry.kind,
        "verified": None if entry is None else entry.verified,
        "provenance": None if entry is None else entry.provenance,
    }


def moment(text: str, now: float) -> float:
    """A time, in seconds since the epoch: "7d" ago, or a date with or without time of day, in local time. UsageError."""
    from datetime import datetime

    from smtpplus.config.values import duration

    try:
        return now - duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.UsageError(f'"{text}" is no time; write one such as "7d" (ago) or "2026-11-20 10:00".') from None
