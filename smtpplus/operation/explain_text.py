"""What `smtpplus explain` found, as people read it."""

from __future__ import annotations

from typing import Any

import click

from smtpplus.operation.cli import date
from smtpplus.operation.listing import span

_SHOWN = 5  # recipients named where many are meant


def print_told(told: dict[str, Any]) -> None:
    """One message, or one refusal."""
    if told["kind"] == "refusal":
        _print_refusal(told)
        return
    click.echo(f"Message {told['id']}" + (f': "{told["subject"]}"' if told["subject"] else ""))
    for label, value in (("From", told["sender"]), ("To", _some(told["recipients"])), ("Message-ID", told["message_id"])):
        if value:
            click.echo(f"  {label}: {value}")
    for each in told["decisions"]:
        click.echo(f"  {date(each['at'])}  {each['text']}")
    if told["first_wait"] is not None:
        click.echo(f"  {_first_wait(told['first_wait'])}.")
    for each in told["paused"]:
        click.echo(f"  {_stopped(each)}.")
    for why, following, command, addresses in _alike(told["waiting"]):
        click.echo(f"  Now: {_some(addresses)}: {why}.")
        click.echo(f"  Next: {following}.")
        click.echo(f"  To change that: {command}")
    if not told["waiting"]:
        click.echo("  Now: nothing of it waits here any more.")


def _stopped(pause: dict[str, Any]) -> str:
    by = pause["cause"] if pause["cause"].startswith("rule") else f"urgent message {pause['cause']}"
    lasts = "so far" if pause["since"] else "in all"
    told = f"Stopped {pause['times']} time(s) by {by}"
    if pause["cut"] < pause["times"]:
        told += f", {pause['seconds']:.1f} s {lasts}"
    if pause["cut"]:
        which = "the daemon ended" if pause["cut"] == pause["times"] else f"the daemon ended {pause['cut']} of these"
        told += f"; {which} meanwhile, and how long that lasted is not known"
    return told


def _first_wait(wait: dict[str, Any]) -> str:
    over = f"Waited {wait['seconds']:.1f} s for its first attempt" if wait["attempted"] else f"It has waited {span(wait['seconds'])} so far"
    since = f" since it was due at {date(wait['since'])}" if wait["scheduled"] else ""
    urgent = wait["urgent_before"]
    more = f" and {len(urgent) - _SHOWN} more" if len(urgent) > _SHOWN else ""
    went = f"; meanwhile urgent mail was on its way: {', '.join(urgent[:_SHOWN])}{more}" if urgent else ""
    return over + since + went


def _alike(waiting: list[dict[str, Any]]) -> list[tuple[str, str, str, list[str]]]:
    """Recipients that wait at the same gate for the same are told together: why, what follows, command, addresses."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for each in waiting:
        found.setdefault((each["why"], each["next"], each["command"]), []).append(each["recipient"])
    return [(*key, addresses) for key, addresses in found.items()]


def _some(addresses: list[str]) -> str:
    more = len(addresses) - _SHOWN
    return ", ".join(addresses[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _print_refusal(told: dict[str, Any]) -> None:
    times = f" ({told['count']} of this kind)" if told["count"] > 1 else ""
    click.echo(f"Refused {told['id']} on {date(told['at'])}{times}")
    labels = {"command": "To change that", "address": "About"}
    if not told["reply"][:1].isdigit():
        labels["reply"] = "Login"
    for label in ("user", "sender", "address", "recipient", "client", "reply", "reason", "why", "remedy", "command"):
        if told[label] and (label != "address" or told["address"] != told["sender"]):
            click.echo(f"  {labels.get(label, label.capitalize())}: {told[label]}")
