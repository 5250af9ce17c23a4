"""`smtpplus alerts`: which problems there are, who is told of what and how, and a test that it arrives (B6)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from smtpplus.mail.command_line import quoted
from smtpplus.operation.cli import Operation, Refused, console, date, print_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.group()
def alerts() -> None:
    """The alert centre: what went wrong, and who is told."""


@alerts.command("list")
@click.option("--list", "list_", metavar="LIST", help="Problems of this list alone.")
@_json
@click.pass_obj
def list_alerts(operation: Operation, list_: str | None, as_json: bool) -> None:
    """List the problems of the last days with their exact counts, the latest first; and the channels that fail."""
    import msgspec
    from sqlalchemy import select

    from smtpplus.operation.absent import need
    from smtpplus.operation.channels import failing
    from smtpplus.storage.schema import problems

    query = select(problems).order_by(problems.c.last_at.desc())
    if list_ is not None:
        query = query.where(problems.c.list == list_.lower())
    with operation.transaction(reading=True) as connection:
        found = [{**row._mapping, "facts": msgspec.json.decode(row.facts)} for row in connection.execute(query)]
        silent = list(failing(connection, time.time()))
        if not found:
            need(connection, list_=list_)
    if as_json:
        print_json(found)  # the channels that fail are with the settings
        return
    for sentence in silent:
        click.echo(f"Not everybody is told: {sentence}.\n")
    if not found:
        click.echo("There are no problems.")
    for number, each in enumerate(found):
        if number:
            click.echo("")
        _tell(each)


def _tell(problem: dict[str, Any]) -> None:
    facts, count = problem["facts"], problem["count"]
    list_ = f" (list {problem['list']})" if problem["list"] else ""
    waits = count - problem["told"]
    waiting = f", {waits} of them to be told in the digest" if waits else ""
    click.echo(f"{problem['kind']}{list_}: {count} time{'' if count == 1 else 's'}{waiting}")
    click.echo(
        f"  When: from {date(problem['first_at'])} to {date(problem['last_at'])}" if count > 1 else f"  When: {date(problem['last_at'])}"
    )
    more = f"smtpplus explain {quoted(facts['reference'])}" if facts["reference"] else ""
    for label, value in (
        ("Who", facts["who"]),
        ("What", facts["what"]),
        ("Why", facts["why"]),
        ("Remedy", facts["remedy"]),
        ("More", more),
    ):
        if value:
            click.echo(f"  {label}: {value}")


@alerts.command()
@click.argument("kind", required=False)
@click.argument("mode", required=False, type=click.Choice(["off", "now", "digest", "inherit"]))
@click.option("--list", "list_", metavar="LIST", default="", help="For this list; else for the server.")
@_json
@click.pass_obj
def settings(operation: Operation, /, *, kind: str | None, mode: str | None, list_: str, as_json: bool) -> None:
    """Show the settings, or set how a KIND (or "*" for all) is told: off, now (at once), digest, inherit.

    What a list does not set is the server's; what the server does not set is the default. Addresses are set by `smtpplus list edit
    NAME --alerts`, `smtpplus user edit NAME --alerts`, and by [alerts] in the configuration.
    """
    from smtpplus.observation import desk
    from smtpplus.observation.problems import all_kinds

    if (kind is None) is not (mode is None):
        raise click.UsageError("Name a kind and how it is told: off, now, digest or inherit.")
    if kind is not None and kind != "*" and kind not in all_kinds():
        raise click.UsageError(f"{kind!r} is no kind; smtpplus alerts settings lists them.")
    with operation.transaction(reading=kind is None) as connection:
        _known(connection, list_)
        if kind is not None:
            desk.configure(connection, list_.lower(), kind, str(mode))
            whose = f"of list {list_}" if list_ else "of the server"
            if as_json:
                print_json({"list": list_ or None, "kind": kind, "mode": mode})
            else:
                click.echo(f"Alerts {whose} about {'all kinds' if kind == '*' else kind}: {mode}.")
        else:
            _show(operation, connection, list_.lower(), as_json)


def _show(operation: Operation, connection: Connection, list_: str, as_json: bool) -> None:
    from smtpplus.observation import desk
    from smtpplus.observation.problems import all_kinds
    from smtpplus.operation.channels import failing

    silent = list(failing(connection, time.time()))
    found = desk.Settings(connection)
    addresses = found.to(list_, "", operation.configuration.alerts.to)
    rows = [(kind, found.mode(list_, kind), meaning) for kind, meaning in all_kinds().items()]
    if as_json:
        kinds = {kind: mode for kind, mode, _ in rows}
        print_json({"list": list_ or None, "to": list(addresses), "kinds": kinds, "failing": silent})
        return
    from rich.table import Table
    from rich.text import Text

    whose = f"of list {list_}" if list_ else "of the server"
    click.echo(f"Alerts {whose} go to: {', '.join(addresses) or 'nobody (the log and the webhook alone)'}")
    for sentence in silent:
        click.echo(f"Not everybody is told: {sentence}.")
    table = Table("Kind", "Told", "What it means")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)


@alerts.command()
@click.option("--list", "list_", metavar="LIST", default="", help="To whom alerts of this list go.")
@click.pass_obj
def test(operation: Operation, list_: str) -> None:
    """Send an alert about nothing, on the way that real ones take."""
    from smtpplus.observation import desk, letters, owed
    from smtpplus.observation.problems import Facts
    from smtpplus.queue.outbox import post

    configuration, now = operation.configuration, time.time()
    with operation.transaction() as connection:
        _known(connection, list_)
        to = desk.Settings(connection).to(list_.lower(), "", configuration.alerts.to)
        if not to and not configuration.alerts.webhook:
            raise Refused("Alerts go to nobody: set addresses with [alerts] to, or smtpplus list edit NAME --alerts.")
        facts = Facts("you, at the command line", "this is a test", "somebody asked for it", "nothing is to be done")
        told = letters.Told("test", list_, "test", 1, 1, now, now, facts)
        name = f"test.{int(now * 1000):x}"
        if configuration.alerts.webhook:
            owed.owe(connection, [told], digest=False, name=name, now=now)
        if to:
            sender = configuration.alerts.from_
            content = letters.alert(told, hostname=configuration.hostname, sender=sender, to=to, message_id=name, now=now)
            post(connection, content, to, now=now)
    if to:
        click.echo(f"An alert to {', '.join(to)} is in the queue; the daemon sends it within a second.")
        click.echo(f"What became of it: smtpplus explain {quoted(f'{letters.MESSAGE_ID}{name}@{configuration.hostname}>')}")
    if configuration.alerts.webhook:
        click.echo(f"It is owed to {configuration.alerts.webhook}; the daemon posts it within a few seconds.")


def _known(connection: Connection, name: str) -> None:
    from sqlalchemy import select

    from smtpplus.storage.schema import lists

    if name and connection.execute(select(lists.c.name).where(lists.c.name == name.lower())).first() is None:
        raise Refused(f"There is no list {name}; smtpplus list list shows them.")
