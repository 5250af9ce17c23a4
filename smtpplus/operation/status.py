"""`smtpplus status`: how the daemon and its queue stand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation.cli import Operation, console, date, print_json
from smtpplus.operation.listing import print_rules, rule_json, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from smtpplus.queue.depth import Level
    from smtpplus.queue.selection import Queued
    from smtpplus.queue.standing import Standing


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def status(operation: Operation, as_json: bool) -> None:
    """Show how the queue stands: depth and oldest wait per level, destinations left alone, rules, what runs and what is stopped."""
    import msgspec

    from smtpplus.operation.channels import failing
    from smtpplus.queue import rulebook, standing
    from smtpplus.queue.depth import depth

    now = time.time()
    with operation.transaction(reading=True) as connection:
        silent = list(failing(connection, now, past=False))
        levels = _levels(depth(connection, operation.router.destination, now), now)
        rules = rulebook.in_force(connection, now)
        found = standing.read(connection)
        delayed = waits_for_its_time(
            connection, now, 0 if found is None else found[0].standing.running, _running(operation, connection, now)
        )
    alive = found is not None and standing.alive(found[0].process)
    stands = msgspec.structs.replace(found[0].standing, delayed=delayed) if found is not None and alive else None
    if as_json:
        print_json(
            {
                "running": alive,
                "process": found[0].process if found is not None and alive else None,
                "levels": levels,
                "rules": [rule_json(rule) for rule in rules],
                "alerts_failing": silent,
                "daemon": None if stands is None else msgspec.to_builtins(stands),
            }
        )
        return
    click.echo(f"The daemon runs as process {found[0].process}." if found is not None and alive else "The daemon does not run.")
    for sentence in silent:
        click.echo(f"Alerts: {sentence}.")
    _print_levels(levels)
    print_rules(rules)
    if stands is not None:
        _print_standing(stands)


def _running(operation: Operation, connection: Connection, now: float) -> list[Queued]:
    """The recipients that the daemon says are under way."""
    from smtpplus.queue.depth import running

    return running(connection, operation.router.destination, now)


def waits_for_its_time(connection: Connection, now: float, running: int, named: Sequence[Queued] = ()) -> int:
    """How many recipients are scheduled or put off. The database knows: the daemon keeps times of mail that went meanwhile.

    Of `running` attempts, those that are neither `named` nor the first ones of their messages are not told from what waits, and taken
    off."""
    from sqlalchemy import distinct, func, select

    from smtpplus.storage.schema import recipients

    c = recipients.c
    first = (c.attempts > 0) & c.reply.is_(None)
    later = connection.scalar(select(func.count()).select_from(recipients).where(c.due > now, ~first)) or 0
    later -= sum(each.due > now and bool(each.reply) for each in named)
    trying = connection.scalar(select(func.count(distinct(c.message_id))).where(c.due > now, first)) or 0
    others = len({(each.id, each.destination) for each in named if each.due <= now or each.reply})  # attempts that are not among these
    return max(0, later - max(0, running - others - trying))


def _levels(levels: Mapping[int, Level], now: float) -> list[dict[str, Any]]:
    """Per level: recipients by state, and for how long the oldest has waited that may go."""
    return [
        {
            "level": number,
            "waiting": level.waiting,
            "held": level.held,
            "scheduled": level.scheduled,
            "deferred": level.deferred,
            "oldest": None if level.since is None else max(0.0, now - level.since),
        }
        for number, level in levels.items()
    ]


def _print_levels(levels: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("Level", "Waiting", "Oldest waits", "Held", "Scheduled", "Deferred or under way")
    for level in levels:
        oldest = "" if level["oldest"] is None else span(level["oldest"])
        table.add_row(*map(str, (level["level"], level["waiting"], oldest, level["held"], level["scheduled"], level["deferred"])))
    console().print(table)


def _print_standing(stands: Standing) -> None:
    from rich.table import Table
    from rich.text import Text

    most = f" of {stands.slots.connections} ([delivery] connections)" if stands.slots is not None else ""
    click.echo(f"Under way: {stands.running}{most}. Ready or held: {stands.ready}. Waiting for their time: {stands.delayed}.")
    if stands.preempting is not None:
        click.echo(f"Urgent mail: nothing below level {stands.preempting} starts.")
    if stands.backing_off:
        table = Table("Left alone as nobody answered", "Until", "Times", title=None)
        for each in stands.backing_off:
            table.add_row(*map(Text, (each.destination, date(each.until), str(each.failures))))
        console().print(table)
        if stands.destinations_backing_off > len(stands.backing_off):
            click.echo(f"{stands.destinations_backing_off} destinations are left alone in all.")
    full = [each for each in stands.crowded if each.running >= each.window]
    if full:
        table = Table("Takes no more at a time", "Under way", "Allowed now", "Wait in memory")
        for busy in full:
            table.add_row(*map(Text, (busy.destination, str(busy.running), str(busy.window), str(busy.waiting))))
        console().print(table)
    if stands.over_rate:
        table = Table("Waits for its limit", "", "Limit", "Until")
        for wait in stands.over_rate:
            table.add_row(*map(Text, (wait.kind, wait.name, wait.limit, date(wait.until))))
        console().print(table)
    if stands.stopped:
        table = Table("Stopped", "Destination", "Level", "By")
        for transfer in stands.stopped:
            table.add_row(*map(Text, (transfer.id, transfer.destination, str(transfer.level), transfer.cause)))
        console().print(table)
