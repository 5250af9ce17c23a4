"""`smtpplus queue`: what waits, and what is to become of it.

Holds and pauses are rules (operation.holding); the other verbs change recipients in short transactions, with a rest after each as long
as it took, so that the mail keeps flowing however many are meant. A daemon that runs takes note within a second; none needs to run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation import absent
from smtpplus.operation.cli import Operation, Refused, console, date, operator, print_json
from smtpplus.operation.holding import hold, pause, release, resume
from smtpplus.operation.listing import (
    parse_key,
    parse_moment,
    parse_span,
    print_count,
    print_queued,
    print_rules,
    queued_json,
    rule_json,
    written_key,
)
from smtpplus.operation.selectors import everything, explicit, named, selection, selectors, view_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.queue.selection import Queued, Selection
    from smtpplus.queue.standing import Standing

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_reason = click.option("--reason", metavar="TEXT", default="", help="Why; kept with it.")
_state = click.option(
    "--state", type=click.Choice(["waiting", "held", "scheduled", "trying", "deferred"]), help="Only recipients in this state."
)


@click.group()
def queue() -> None:
    """The queue: what waits, and what is to become of it."""


for verb in (hold, pause, release, resume):
    queue.add_command(verb)


@queue.command("list")
@selectors
@_state
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Recipients listed at most.")
@click.option("--after", metavar="KEY", help="Go on behind this one: what a list that was cut ends with.")
@_json
@click.pass_obj
def list_queue(operation: Operation, /, *, state: Any, limit: int, after: str | None, as_json: bool, **texts: Any) -> None:
    """List queued recipients in the order in which they came, and the rules in force."""
    from smtpplus.queue.selection import FIRST

    start = FIRST if after is None else parse_key(after)
    with operation.transaction(reading=True) as connection:
        view, rules = view_of(operation, connection)
        chosen = selection(texts, state=state)
        found = list(view.select(chosen, after=start, limit=limit + 1))
        notes = [] if as_json or found else absent.absent(operation, connection, view, named(texts))
        notes += [] if as_json or found else [absent.gone(lost).rstrip(".")] if (lost := absent.missing(connection, chosen.ids)) else []
    following = written_key(found[limit - 1]) if len(found) > limit else None
    found = found[:limit]
    if as_json:
        print_json({"rules": [rule_json(rule) for rule in rules], "recipients": [queued_json(each) for each in found], "next": following})
        return
    print_rules(rules)
    print_queued(found)
    for note in notes:
        click.echo(f"Note: {note}.", err=True)
    if following is not None:
        click.echo(f"There are more: --after {following}")


@queue.command()
@click.argument("queue_id", metavar="ID")
@_json
@click.pass_obj
def show(operation: Operation, queue_id: str, as_json: bool) -> None:
    """Show one message: its envelope, and what each recipient waits for."""
    from smtpplus.mail.envelope import parse_queue_id
    from smtpplus.queue.rows import envelope
    from smtpplus.queue.selection import Selection

    try:
        number = parse_queue_id(queue_id)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    with operation.transaction(reading=True) as connection:
        found = envelope(connection, number)
        view, _ = view_of(operation, connection)
        recipients = list(view.select(Selection(ids=(number,))))
    if found is None:
        raise Refused(absent.gone([queue_id.upper()]))
    facts = {
        "id": queue_id.upper(),
        "sender": found.sender,
        "user": found.user,
        "list": found.list,
        "level": found.level,
        "size": found.size,
        "received_at": found.received_at,
        "campaign": found.campaign,
    }
    if as_json:
        print_json(facts | {"recipients": [queued_json(each) for each in recipients]})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    for label, value in facts.items():
        table.add_row(label.replace("_", " ").capitalize(), Text(date(found.received_at) if label == "received_at" else str(value)))
    console().print(table)
    print_queued(recipients)


def _acting(command: Callable[..., None]) -> Callable[..., None]:
    for option in (_json, _reason, _state, everything, selectors):
        command = option(command)
    return command


@queue.command()
@_acting
@click.pass_obj
def cancel(operation: Operation, /, *, all_: bool, state: Any, reason: str, as_json: bool, **texts: Any) -> None:
    """Take recipients out of the queue for good; their senders are not told. An attempt under way is given up before the end of its
    data, and finished after it."""
    chosen = explicit(texts, all_=all_, state=state)
    lost = _absent(operation, texts, chosen)
    _told(cancel_selected(operation, chosen, reason=reason), "cancelled", as_json, lost)


def cancel_selected(operation: Operation, chosen: Selection, *, reason: str) -> int:
    """Take what is selected out of the queue; how many recipients there were."""
    from smtpplus.queue import actions

    who = operator()
    return _act(
        operation,
        chosen,
        "Cancelling",
        lambda connection, some: actions.cancel(connection, some, who=who, reason=reason, now=time.time()),
    )


@queue.command()
@_acting
@click.pass_obj
def retry(operation: Operation, /, *, all_: bool, state: Any, reason: str, as_json: bool, **texts: Any) -> None:
    """Try now what waits for its next attempt or its schedule, also at destinations that are left alone for a while."""
    chosen = explicit(texts, all_=all_, state=state)
    lost = _absent(operation, texts, chosen)
    stays: Counter[str] = Counter()
    count = _move(operation, chosen, 0.0, reason, stays)
    for why, held in stays.items():
        click.echo(f"Note: {held} of {count} will not go now: {why}.", err=True)
    _told(count, "due now", as_json, lost)


@queue.command()
@_acting
@click.option("--at", "at", metavar="TIME", help='When, such as "2026-12-24 08:00" (local time) or "2026-12-24T08:00:00+01:00".')
@click.option("--in", "in_", metavar="TIME", help='When, counted from now, such as "2h".')
@click.pass_obj
def reschedule(
    operation: Operation, /, *, all_: bool, state: Any, reason: str, as_json: bool, at: str | None, in_: str | None, **texts: Any
) -> None:
    """Let mail wait until a time. An attempt that is under way is not disturbed; its retry is."""
    if at is None and in_ is None:
        raise click.UsageError("Say when: by --at or by --in.")
    if at is not None and in_ is not None:
        raise click.UsageError("Say when by --at or by --in, not by both.")
    now = time.time()
    due = parse_moment(at) if at is not None else now + parse_span(in_ or "")
    if due < now:
        raise click.UsageError(f"--at: {date(due)} is over; smtpplus queue retry lets mail go now.")
    chosen = explicit(texts, all_=all_, state=state)
    lost = _absent(operation, texts, chosen)
    _told(_move(operation, chosen, due, reason), f"due at {date(due)}", as_json, lost)


def _absent(operation: Operation, texts: Any, chosen: Selection) -> list[str]:
    """Tell of what is named and not there; the queue IDs among it."""
    with operation.transaction(reading=True) as connection:
        for note in absent.absent(operation, connection, view_of(operation, connection)[0], named(texts)):
            click.echo(f"Note: {note}.", err=True)
        return absent.missing(connection, chosen.ids)


def _told(count: int, what: str, as_json: bool, lost: list[str]) -> None:
    """How many recipients something was done to; exit status 1 if a message that was named is not there."""
    print_count(count, what, as_json)
    if lost:
        raise Refused(absent.gone(lost))


def _move(operation: Operation, chosen: Selection, due: float, reason: str, stays: Counter[str] | None = None) -> int:
    """Let recipients be due then, and count in `stays` why some of them do not go although they are."""
    from smtpplus.queue import actions, standing

    with operation.transaction(reading=True) as connection:
        row = standing.read(connection)
    stands = row[0].standing if row is not None and standing.alive(row[0].process) else None
    who = operator()

    def act(connection: Connection, some: list[Queued]) -> int:
        if stays is not None:
            stays.update(filter(None, (_stays(each, stands) for each in some)))
        return actions.move(connection, some, due, who=who, reason=reason, now=time.time())

    return _act(operation, chosen, "Changing", act)


def _stays(queued: Queued, stands: Standing | None) -> str:
    """Why a recipient does not go although it is due; "" if it does, as far as is known."""
    from smtpplus.operation import gates

    if queued.state == "trying":
        return ""
    if queued.rules:
        lift = "smtpplus queue release" + "".join(f" --rule {rule.id}" for rule in queued.rules)
        return f"held by {', '.join(rule.name for rule in queued.rules)}; {lift} lets it go"
    wait = gates.over_rate(queued, stands) if stands is not None else None
    return gates.used_up(wait, date) if wait is not None else ""


def _act(operation: Operation, chosen: Selection, what: str, act: Callable[[Connection, list[Queued]], int]) -> int:
    """Do something to all that is selected, batch by batch, showing how far it is."""
    from rich.console import Console
    from rich.progress import Progress

    from smtpplus.queue.actions import BATCH
    from smtpplus.queue.selection import FIRST

    done, after = 0, FIRST
    screen = Console(stderr=True)
    with operation.database() as engine, Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        with engine.connect().execution_options(reading=True) as connection:
            task = progress.add_task(what, total=view_of(operation, connection)[0].count(chosen))
        while True:
            with engine.connect().execution_options(reading=True) as connection:
                some = list(view_of(operation, connection)[0].select(chosen, after=after, limit=BATCH))
            if not some:
                return done
            begun = time.monotonic()
            with engine.begin() as connection:
                done += act(connection, some)
            progress.advance(task, len(some))
            after = some[-1].key
            if len(some) == BATCH:
                time.sleep(time.monotonic() - begun)  # the daemon's turn
