"""How queued recipients and rules are shown, to people and to programs, and how times and places in the queue are written."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation.cli import console, date, print_json

if TYPE_CHECKING:
    from smtpplus.queue.rules import Rule
    from smtpplus.queue.selection import Key, Queued


def written_key(found: Queued) -> str:
    """The place of a recipient in the order of pages."""
    return f"{found.name}:{found.number}"


def parse_key(text: str) -> Key:
    """The place that `written_key` writes; wrong usage if it is none."""
    from smtpplus.mail.envelope import parse_queue_id

    name, _, number = text.partition(":")
    try:
        return parse_queue_id(name), int(number)
    except ValueError:
        raise click.UsageError(f'--after takes what a list ends with, such as "01H8XGJWBWB3V:0", not "{text}".') from None


def parse_span(text: str) -> float:
    """Seconds; wrong usage if they cannot be read, or are more than mail may wait."""
    from smtpplus.config.values import hold_time

    try:
        return hold_time(text)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None


def parse_moment(text: str) -> float:
    """Seconds since the epoch of a local time, or of one with its zone; wrong usage if it cannot be read, or is too far off."""
    from smtpplus.config.values import LONGEST_HOLD

    try:
        at = datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.UsageError(f'"{text}" is no time; write it as "2026-12-24 08:00" or "2026-12-24T08:00:00+01:00".') from None
    if at > time.time() + LONGEST_HOLD:
        raise click.UsageError(f'"{text}" is too far off; mail waits for {LONGEST_HOLD:,} seconds (31 years) at most.')
    return at


def meant(rule: Rule) -> str:
    """What a rule selects."""
    return "everything" if rule.kind == "everything" else f"{rule.kind} {rule.value}"


def rule_json(rule: Rule) -> dict[str, Any]:
    """A rule for programs; `expires_at` is null for one without an end."""
    return {
        "id": rule.id,
        "kind": rule.kind,
        "value": rule.value,
        "running": rule.running,
        "reason": rule.reason,
        "who": rule.who,
        "created_at": rule.created_at,
        "expires_at": rule.expires_at or None,
        "count_time": rule.keep_expiry,
    }


def queued_json(found: Queued) -> dict[str, Any]:
    """A queued recipient for programs; `due` is null if it may go at once."""
    return {
        "id": found.name,
        "number": found.number,
        "recipient": found.address,
        "destination": found.destination,
        "state": found.state,
        "rule": found.rule.id if found.rule is not None else None,
        "rules": [rule.id for rule in found.rules],
        "level": found.level,
        "user": found.user,
        "list": found.list,
        "sender_domain": found.sender_domain,
        "received_at": found.received_at,
        "attempts": found.attempts,
        "due": found.due or None,
        "reply": found.reply,
    }


def print_rules(rules: Iterable[Rule]) -> None:
    """A table of rules; nothing if there is none."""
    from rich.table import Table
    from rich.text import Text

    table = Table("Rule", "Holds", "Running", "Until", "Reason", "Who", "Since")
    for rule in rules:
        until = date(rule.expires_at) if rule.expires_at else "released"
        cells = (str(rule.id), meant(rule), rule.running, until, rule.reason, rule.who, date(rule.created_at))
        table.add_row(*map(Text, cells))
    if table.row_count:
        console().print(table)


def print_queued(found: Iterable[Queued]) -> None:
    """A table of recipients."""
    from rich.table import Table
    from rich.text import Text

    now = time.time()
    table = Table("ID", "State", "Level", "User", "Recipient", "Waits", "Attempts", "Next", "Last reply")
    for each in found:
        more = f" and {len(each.rules) - 1} more" if len(each.rules) > 1 else ""
        state = each.state if each.rule is None else f"{each.state}, {each.rule.name}{more}"
        following = date(each.due) if each.due > now else "now"
        since = each.received_at if each.due > now else max(each.received_at, each.due)
        waits = "" if each.state == "scheduled" else span(now - since)
        cells = (each.name, state, str(each.level), each.user, each.address, waits, str(each.attempts), following, each.reply)
        table.add_row(*map(Text, cells))
    console().print(table)


def span(seconds: float) -> str:
    """A time as people say it, in its two largest units."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for name, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (name == "s" and not parts):
            parts.append(f"{left // size}{name}")
            left %= size
    return " ".join(parts[:2])


def print_count(count: int, what: str, as_json: bool) -> None:
    """How many recipients something was done to."""
    if as_json:
        print_json({"recipients": count})
    else:
        click.echo(f"{count} recipient{'' if count == 1 else 's'} {what}.")
