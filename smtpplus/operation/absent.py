"""What a selector names that is not there: in an incident a slip of the pen must not look like success."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from smtpplus.mail.command_line import quoted

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.operation.cli import Operation
    from smtpplus.queue.rules import Kind
    from smtpplus.queue.selection import QueueView, Selection


def absent(operation: Operation, connection: Connection, view: QueueView, chosen: Iterable[tuple[Kind, str]]) -> list[str]:
    """A sentence for each selector (rules.normalized) that names nothing known here, and which no queued mail meets."""
    unknown = [(selected(kind, value), _unknown(operation, connection, kind, value)) for kind, value in chosen]
    return [said for selection, said in unknown if said and not _queued(view, selection)]


def missing(connection: Connection, numbers: Iterable[int]) -> list[str]:
    """The queue IDs of those messages that are not in the queue."""
    from sqlalchemy import select

    from smtpplus.mail.envelope import queue_id
    from smtpplus.storage.schema import recipients

    wanted = sorted(set(numbers))
    query = select(recipients.c.message_id).where(recipients.c.message_id.in_(wanted))
    there = set(connection.scalars(query))
    return [queue_id(number) for number in wanted if number not in there]


def gone(names: list[str]) -> str:
    """That these messages are not in the queue, for people."""
    which = f"Message {names[0]} is" if len(names) == 1 else f"Messages {', '.join(names)} are"
    return f"{which} not in the queue; smtpplus explain {quoted(names[0])} tells what became of it."


def need(connection: Connection, *, user: str | None = None, list_: str | None = None) -> None:
    """AccountError if a user or list that is named is not there: for those of whom nothing was found."""
    from smtpplus.accounts import lists, store

    if user is not None:
        store.get_user(connection, user)
    if list_ is not None:
        lists.get_list(connection, list_)


def _queued(view: QueueView, selection: Selection) -> bool:
    return next(view.select(selection, limit=1), None) is not None


def selected(kind: Kind, value: str) -> Selection:
    """The queued mail that one selector means."""
    from smtpplus.mail.envelope import parse_queue_id
    from smtpplus.queue.selection import Selection

    if kind == "user":
        return Selection(users=(value,))
    if kind == "list":
        return Selection(lists=(value,))
    if kind == "sender-domain":
        return Selection(sender_domains=(value,))
    if kind == "destination":
        return Selection(destinations=(value,))
    if kind == "level":
        return Selection(levels=(int(value),))
    return Selection(ids=(parse_queue_id(value),)) if kind == "message" else Selection()


def _unknown(operation: Operation, connection: Connection, kind: Kind, value: str) -> str:
    """Why nobody here knows what a selector names; "" if it may be right."""
    from sqlalchemy import select

    from smtpplus.mail.reply import printable
    from smtpplus.storage.schema import lists, users

    shown = printable(value)
    if kind == "user" and connection.scalar(select(users.c.id).where(users.c.name == value)) is None:
        return f"there is no user {shown}, and nothing queued matches; smtpplus user list names the users"
    if kind == "list" and connection.scalar(select(lists.c.name).where(lists.c.name == value)) is None:
        return f"there is no list {shown}, and nothing queued matches; smtpplus list list names the lists"
    if kind == "destination" and ":" in value:
        ours = value in {route.via for route in operation.configuration.route}
        return "" if ours else f"no [[route]] has via {shown}, and nothing queued matches"
    return f"nothing queued matches {kind} {shown} now" if kind in ("destination", "sender-domain") else ""
