"""The options by which `smtpplus queue` is told what is meant, the same for every verb; and the queue that they select from."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.operation.cli import Operation
    from smtpplus.queue.rules import Kind, Rule
    from smtpplus.queue.selection import QueueView, Selection

F = TypeVar("F", bound=Callable[..., Any])

_SELECTORS = {  # parameter: option, metavar and help
    "ids": ("--id", "ID", "A message, by its queue ID."),
    "users": ("--user", "NAME", "Mail of this user."),
    "lists": ("--list", "LIST", "Mail of the users of this list, as it was when they sent it."),
    "sender_domains": ("--sender-domain", "DOMAIN", "Mail whose envelope sender is of this domain."),
    "destinations": ("--destination", "DOMAIN|VIA", "Mail to this domain, or by this `via` of a [[route]]."),
    "levels": ("--level", "1..5", "Mail of this priority."),
}
_KINDS: dict[str, Kind] = {
    "ids": "message",
    "users": "user",
    "lists": "list",
    "sender_domains": "sender-domain",
    "destinations": "destination",
    "levels": "level",
}


def selectors(command: F) -> F:
    """Give a command the selectors; they arrive as tuples of texts, by parameter."""
    for parameter, (option, metavar, text) in reversed(_SELECTORS.items()):
        command = click.option(option, parameter, metavar=metavar, multiple=True, help=f"{text} May be repeated.")(command)
    return command


def everything(command: F) -> F:
    """Give a command --all."""
    return click.option("--all", "all_", is_flag=True, help="Everything that is queued.")(command)


def named(texts: dict[str, Any], *, all_: bool = False) -> list[tuple[Kind, str]]:
    """The selectors given, normalized, and everything if `all_`; wrong usage if one cannot be."""
    from smtpplus.queue.rules import normalized

    found: list[tuple[Kind, str]] = [("everything", "")] if all_ else []
    for parameter, kind in _KINDS.items():
        for text in texts[parameter]:
            try:
                found.append((kind, normalized(kind, text)))
            except ValueError as error:
                raise click.UsageError(f"{_SELECTORS[parameter][0]}: {error}.") from None
    return found


def selection(texts: dict[str, Any], *, state: Any = None) -> Selection:
    """What the options select."""
    from smtpplus.mail.envelope import parse_queue_id
    from smtpplus.queue.selection import Selection

    values: dict[Kind, list[str]] = {}
    for kind, value in named(texts):
        values.setdefault(kind, []).append(value)
    return Selection(
        users=tuple(values.get("user", ())),
        lists=tuple(values.get("list", ())),
        sender_domains=tuple(values.get("sender-domain", ())),
        destinations=tuple(values.get("destination", ())),
        levels=tuple(int(value) for value in values.get("level", ())),
        ids=tuple(parse_queue_id(value) for value in values.get("message", ())),
        state=state,
    )


def explicit(texts: dict[str, Any], *, all_: bool, state: Any = None) -> Selection:
    """As `selection`; wrong usage unless something was selected, or --all was. A state narrows what is meant, and selects nothing."""
    from smtpplus.queue.selection import Selection

    found = selection(texts, state=state)
    nothing = Selection(state=state)
    if all_ and found != nothing:
        raise click.UsageError("--all means everything that is queued; leave it out, and the selectors say what is meant.")
    if not all_ and found == nothing:
        instead = f", or --all --state {state} for everything in that state" if state else ""
        raise click.UsageError(f"Name what is meant by selectors, or --all for everything that is queued{instead}.")
    return found


def view_of(operation: Operation, connection: Connection) -> tuple[QueueView, list[Rule]]:
    """The queue as it stands now, and the rules in force."""
    from smtpplus.queue import rulebook, under_way
    from smtpplus.queue.rules import Rules
    from smtpplus.queue.selection import QueueView

    now = time.time()
    rules = rulebook.in_force(connection, now)
    return QueueView(connection, Rules(rules, now), operation.router.destination, now, under_way.read(connection)), rules
