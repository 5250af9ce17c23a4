"""`smtpplus stats`: what was sent, by list, user, sender, subject and more, as table, JSON, CSV, bars or an SVG file (C12)."""

from __future__ import annotations

import csv
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation.cli import Operation, Refused, console, date, print_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.observation.statistics import By, Sums

_DIMENSIONS = ("list", "user", "sender", "subject", "subject-pattern", "campaign", "destination", "day", "level")


@click.command()
@click.option("--by", type=click.Choice(_DIMENSIONS), default="day", show_default=True, help="What each row is about.")
@click.option("--since", metavar="TIME", default="7d", show_default=True, help='"2h" (ago) or "2026-11-20 10:00".')
@click.option("--until", metavar="TIME", default="0s", help="Likewise; without it: now.")
@click.option("--list", "list_", metavar="LIST", help="Mail of this list alone.")
@click.option("--user", metavar="NAME", help="Mail of this user alone.")
@click.option("--top", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Rows; all others are one more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for spreadsheets.")
@click.option("--plot", is_flag=True, help="Print bars.")
@click.option("--svg", metavar="FILE", type=click.Path(dir_okay=False), help="Also draw it into this file.")
@click.pass_obj
def stats(
    operation: Operation,
    /,
    *,
    by: By,
    since: str,
    until: str,
    top: int,
    as_json: bool,
    as_csv: bool,
    plot: bool,
    svg: str | None,
    **only: str | None,
) -> None:
    """Sum up what was accepted and what became of it. The rows add up to the total.

    It goes back as far as the history does ([queue] history); by list, user, day and level two years: of days whose history is gone, whole
    days are counted. By destination a recipient counts where it was tried, and a message once for each; what was never tried, refused or
    cancelled has no destination and is left out, so that these totals differ from the others.
    """
    from smtpplus.observation import statistics, sums
    from smtpplus.operation.absent import need
    from smtpplus.operation.checks import moment

    if as_json + as_csv + plot > 1:
        raise click.UsageError("--json, --csv and --plot exclude each other; name one.")
    now = time.time()
    begin, end = moment(since, now), moment(until, now)
    with operation.transaction(reading=True) as connection:
        found = _count(connection, by, begin, end, only)
        known = sums.known_since(connection, by, begin, kept=operation.configuration.queue.history, now=now)
        if not found:
            need(connection, user=only["user"], list_=only["list_"])
    rows, total = statistics.ordered(by, found, top), statistics.total(found.values())
    if svg is not None:
        _draw(svg, f"Recipients by {by}, {date(begin)} to {date(end)}", rows)
    if as_json:
        told = [{by: key, **_values(summed)} for key, summed in rows]
        whole = {"known_since": known, "complete": known <= begin}
        print_json({"by": by, "since": begin, "until": end, **whole, "rows": told, "total": _values(total)})
    elif as_csv:
        _csv(by, rows)
    elif plot:
        from smtpplus.operation.plot import lines

        click.echo("\n".join(lines(rows)))
    else:
        _table(by, rows, total)
    if known > begin and not as_json:
        click.echo(f"Note: {_gone(by, known)}", err=as_csv)


def _csv(by: str, rows: list[tuple[str, Sums]]) -> None:
    from smtpplus.observation.statistics import FIELDS

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((by, *FIELDS))
    writer.writerows((_harmless(key), *_values(summed).values()) for key, summed in rows)


def _gone(by: By, known: float) -> str:
    from smtpplus.observation.sums import OUTLIVING

    if by in OUTLIVING:
        return f"of days whose history is gone only whole ones are counted; these sums begin at {date(known)}."
    return (
        f"what was accepted or refused before {date(known)} is not counted, as by {by} the sums go with the history ([queue] history). "
        f"By {', '.join(sorted(OUTLIVING))} they outlive it."
    )


def _count(connection: Connection, by: By, begin: float, end: float, only: dict[str, str | None]) -> dict[str, Sums]:
    from sqlalchemy import select

    from smtpplus.observation import statistics, sums, tally
    from smtpplus.storage.schema import users

    lists = {row.name: row.list for row in connection.execute(select(users.c.name, users.c.list))}
    user, list_ = (str(only[name]).lower() if only[name] is not None else None for name in ("user", "list_"))
    span = tally.Span(begin, end, list_, user)
    found = tally.count(connection, by, span, lists)
    for key, past in sums.count(connection, by, span).items():
        found[key] = statistics.total([past, found.get(key, statistics.Sums())])
    return found


def _values(sums: Sums) -> dict[str, int]:
    from smtpplus.observation.statistics import FIELDS

    return {name: getattr(sums, name) for name in FIELDS}


def _harmless(text: str) -> str:
    """A text that a spreadsheet takes for no formula."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t"} else text


def _draw(path: str, title: str, rows: list[tuple[str, Sums]]) -> None:
    from pathlib import Path

    from smtpplus.operation.plot import svg

    try:
        Path(path).write_text(svg(title, rows), "utf-8")
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}.") from None


def _table(by: str, rows: list[tuple[str, Sums]], total: Sums) -> None:
    from rich.table import Table
    from rich.text import Text

    from smtpplus.observation.statistics import FIELDS

    table = Table(by.capitalize(), show_footer=True)
    table.columns[0].footer = "Total"
    summed: dict[str, Any] = _values(total)
    for name in FIELDS:
        table.add_column(name.capitalize(), f"{summed[name]:,}", justify="right")
    for key, sums in rows:
        table.add_row(Text(key or "(none)"), *(f"{value:,}" for value in _values(sums).values()))
    console().print(table)
