"""`smtpplus top`: the daemon as it runs, drawn anew every second or two: throughput, levels, refusals, destinations, what is stopped.

It reads `/metrics` and the database as anybody may, so that it shows what monitoring shows, and ends with Ctrl-C. Without a
terminal, or with --once, it prints one picture.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation.cli import Operation, Refused

if TYPE_CHECKING:
    from rich.console import RenderableType
    from sqlalchemy import Connection

    from smtpplus.queue.standing import Standing

Sample = dict[tuple[str, ...], float]  # name and the values of its labels
PATIENCE = 5.0  # seconds
SAMPLE = 10_000  # recipients looked at for the busiest destinations
_LEVELS = "12345"
_SHOWN = 8  # rows of reasons and of destinations


@click.command()
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="One picture, after one interval, and end.")
@click.pass_obj
def top(operation: Operation, interval: float, once: bool) -> None:
    """Watch the daemon: throughput, levels, preemption, destinations. Ctrl-C ends it."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    before, at = _sample(operation), time.monotonic()
    time.sleep(interval)
    if once or not console.is_terminal:
        console.print(_picture(operation, before, _sample(operation), time.monotonic() - at))
        return
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                now, moment = _sample(operation), time.monotonic()
                live.update(_picture(operation, before, now, moment - at), refresh=True)
                before, at = now, moment
                time.sleep(interval)
    except KeyboardInterrupt:
        return


def _sample(operation: Operation) -> Sample:
    """What /metrics says now."""
    import urllib.error
    import urllib.request

    from prometheus_client.parser import text_string_to_metric_families

    endpoint = operation.configuration.http.listen
    if endpoint is None:
        raise Refused('[http] listen is "", so that nothing is measured; give it an address, such as "127.0.0.1:8025".')
    host, port = endpoint
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=PATIENCE) as answer:
            text = answer.read().decode("utf-8")
    except (urllib.error.URLError, OSError) as fault:
        why = getattr(fault, "reason", fault)
        raise Refused(f"{url} does not answer: {why}. Does the daemon run? smtpplus status") from None
    families = text_string_to_metric_families(text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def _picture(operation: Operation, before: Sample, now: Sample, seconds: float) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    stands, busy = _standing(operation)
    parts: list[RenderableType] = [Text(_head(before, now, seconds)), _levels(before, now, seconds), _reasons(before, now, seconds)]
    if busy:
        parts.append(_destinations(busy))
    if stands is not None:
        parts += _stopped(stands)
    return Group(*parts)


def _rate(name: str, before: Sample, now: Sample, seconds: float, *labels: str) -> float:
    """Per second, over all samples of `name` that begin with these labels."""
    keys = [key for key in now if key[0] == name and key[1 : 1 + len(labels)] == labels]
    return sum(now[key] - before.get(key, 0.0) for key in keys) / max(seconds, 0.001)


def _head(before: Sample, now: Sample, seconds: float) -> str:
    rates = {
        word: _rate(f"smtpplus_{word}_total", before, now, seconds)
        for word in ("accepted", "delivered", "deferred", "failed", "refusals", "pauses")
    }
    commits = _rate("smtpplus_commit_seconds_count", before, now, seconds)
    units = _rate("smtpplus_committed_units_total", before, now, seconds)
    memory = now.get(("process_resident_memory_bytes",), 0.0) / 1024**2
    lag = now.get(("smtpplus_reactor_lag_seconds",), 0.0)
    return (
        "  ".join(f"{word} {rate:.1f}/s" for word, rate in rates.items())
        + f"\nconnections {now.get(('smtpplus_sessions_open',), 0):.0f}  commits {commits:.1f}/s of {units / commits if commits else 0:.1f}"
        + f"  lag {lag * 1000:.0f} ms  memory {memory:.0f} MiB"
    )


def _levels(before: Sample, now: Sample, seconds: float) -> RenderableType:
    from rich.table import Table

    from smtpplus.operation.listing import span

    table = Table("Level", "Accepted/s", "Delivered/s", "Queued", "Held", "Oldest waits")
    for level in _LEVELS:
        oldest = now.get(("smtpplus_queue_oldest_seconds", level), 0.0)
        table.add_row(
            level,
            f"{_rate('smtpplus_accepted_total', before, now, seconds, level):.1f}",
            f"{_rate('smtpplus_delivered_total', before, now, seconds, level):.1f}",
            f"{now.get(('smtpplus_queue_recipients', level), 0):.0f}",
            f"{now.get(('smtpplus_queue_held_recipients', level), 0):.0f}",
            span(oldest) if oldest else "",
        )
    return table


def _reasons(before: Sample, now: Sample, seconds: float) -> RenderableType:
    from rich.table import Table

    table = Table("Refused because of", "in all", "/s")
    found = {key[1]: value for key, value in now.items() if key[0] == "smtpplus_refusals_total"}
    for reason, count in sorted(found.items(), key=lambda each: -each[1])[:_SHOWN]:
        table.add_row(reason, f"{count:.0f}", f"{_rate('smtpplus_refusals_total', before, now, seconds, reason):.1f}")
    return table


def _standing(operation: Operation) -> tuple[Standing | None, list[tuple[str, int, int]]]:
    """How the daemon stands, if it runs, and the destinations for which most is queued."""
    import msgspec

    from smtpplus.operation.status import waits_for_its_time
    from smtpplus.queue import standing

    with operation.transaction(reading=True) as connection:
        found = standing.read(connection)
        busy = _busiest(connection)
        if found is None or not standing.alive(found[0].process):
            return None, busy
        stands = found[0].standing
        return msgspec.structs.replace(stands, delayed=waits_for_its_time(connection, time.time(), stands.running)), busy


def _busiest(connection: Connection) -> list[tuple[str, int, int]]:
    """Domains with their recipients queued, and how many of these were put off; of the SAMPLE that came first."""
    from collections import Counter

    from sqlalchemy import select

    from smtpplus.queue.rows import domain_of
    from smtpplus.storage.schema import recipients

    queued: Counter[str] = Counter()
    put_off: Counter[str] = Counter()
    c = recipients.c
    for address, reply in connection.execute(select(c.address, c.reply).order_by(c.message_id, c.number).limit(SAMPLE)):
        domain = domain_of(address)
        queued[domain] += 1
        put_off[domain] += reply is not None
    return [(domain, count, put_off[domain]) for domain, count in queued.most_common(_SHOWN)]


def _destinations(busy: list[tuple[str, int, int]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table("Most is queued for", "recipients", "put off")
    for domain, count, put_off in busy:
        table.add_row(Text(domain), str(count), str(put_off))
    return table


def _stopped(stands: Standing) -> list[Any]:
    from rich.text import Text

    from smtpplus.operation.cli import date

    told = [f"under way {stands.running}, ready or held {stands.ready}, waiting for their time {stands.delayed}"]
    if stands.preempting is not None:
        told.append(f"urgent mail: nothing below level {stands.preempting} starts")
    told += [f"stopped: {each.id} to {each.destination}, by {each.cause}" for each in stands.stopped[:10]]
    told += [f"left alone until {date(each.until)}: {each.destination}" for each in stands.backing_off[:10]]
    return [Text("\n".join(told))]
