"""`smtpplus explain`: what became of a message, what it waits for now, and what changes that; or why mail was refused (D3).

What is asked for may be a queue ID, the reference of a refusal (they look alike), a Message-ID, or a user's mail since a time. The
history says what was decided, the queue's tables and the daemon's status what is going on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation.cli import Operation, Refused, date, print_json
from smtpplus.operation.explain_text import print_told
from smtpplus.operation.listing import span

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.observation.record import Life, Refusal
    from smtpplus.operation.gates import Gate
    from smtpplus.operation.narration import FirstWait
    from smtpplus.queue.rules import Rules
    from smtpplus.queue.selection import Queued, QueueView
    from smtpplus.queue.standing import Standing

_LIMIT = 20  # messages and refusals of a user that are told
_URGENT = 20  # messages told that go first
_LOOKED = 200  # that may
_INDEXED = 2  # see schema, ix_recipients_urgent
_TRIED = frozenset(("under-way", "stopped", "retry"))  # gates of mail that was attempted
_CLOSE = 5.0  # seconds: what began so short a time ago may not be said to run yet
_WORTH = 1.0  # seconds that a message waited, from which on it is asked what went before it
_BACK = 600.0  # seconds of that which are looked at: all that was accepted meanwhile is read


@click.command()
@click.argument("what", required=False, metavar="[ID|MESSAGE-ID|REFERENCE]")
@click.option("--user", metavar="NAME", help="Mail of this user, refused and failed logins among it.")
@click.option("--since", metavar="TIME", default="1d", show_default=True, help='With --user: "2h" (ago) or "2026-11-20 10:00".')
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def explain(operation: Operation, what: str | None, user: str | None, since: str, as_json: bool) -> None:
    """Tell what became of a message: every decision in order, what it waits for now, what happens next, and the command that changes it.

    It takes a queue ID, a Message-ID, or the reference "(ref …)" of a refusal.
    """
    from smtpplus.accounts.unknown import UNKNOWN
    from smtpplus.operation.absent import need
    from smtpplus.operation.checks import moment

    if (what is None) is (user is None):
        raise click.UsageError("Name a queue ID, a Message-ID or a reference; or --user.")
    if what is not None and what.startswith(UNKNOWN):
        what, user = None, what
    now = time.time()
    start = moment(since, now)
    with operation.transaction(reading=True) as connection:
        found: list[dict[str, Any]] = []
        if what is not None:
            found = _named(operation, connection, what, now)
            if not found:
                raise Refused(_unknown(operation, what))
        else:
            found = _of_user(operation, connection, str(user).lower(), start, now)
            if not found:
                need(connection, user=user)
    if as_json:
        print_json(found[0] if what is not None and len(found) == 1 else found)
        return
    if not found:
        click.echo(f"Nothing was accepted from {user}, and nothing refused, since {date(start)}.")
    if found and found[0].get("shared"):
        click.echo(f"So many were refused at once that {what} has no entry of its own. It is counted in one of these.\n")
    for number, each in enumerate(found):
        if number:
            click.echo("")
        print_told(each)
    if user is not None and any(sum(each["kind"] == kind for each in found) == _LIMIT for kind in ("message", "refusal")):
        click.echo(f"\nOnly the last {_LIMIT} messages and the last {_LIMIT} refusals are told; smtpplus stats --by user counts all.")


def _named(operation: Operation, connection: Connection, what: str, now: float) -> list[dict[str, Any]]:
    from smtpplus.mail.envelope import parse_queue_id
    from smtpplus.observation import record

    text = what.strip().removeprefix("(").removesuffix(")").removeprefix("ref ").strip()
    try:
        number = parse_queue_id(text)
    except ValueError:
        lives = record.by_message_id(connection, text)
        ours, at, host = text.strip("<>").partition("@")
        if not lives and at and host == operation.configuration.hostname:  # the Message-ID of a notification is made of its queue ID
            return _named(operation, connection, ours, now)
        return [_message(operation, connection, life, now, before=True) for life in lives]
    refusal = record.refusal(connection, number)
    if refusal is not None:
        return [_refusal(refusal)]
    life = record.message(connection, number) or _queued_only(connection, number)
    if life is not None:
        return [_message(operation, connection, life, now, before=True)]
    return [{**_refusal(each), "shared": True} for each in record.sharing(connection, number)]


def _queued_only(connection: Connection, number: int) -> Life | None:
    """A message that waits and of which the history knows nothing."""
    from smtpplus.observation.record import Life
    from smtpplus.queue.rows import envelope

    found = envelope(connection, number)
    if found is None:
        return None
    from smtpplus.mail.envelope import queue_id

    addresses = tuple(recipient.address for recipient in found.recipients)
    return Life(queue_id(number), found.received_at, False, [], found.user, found.list, found.sender, addresses, found.level, found.size)


def _of_user(operation: Operation, connection: Connection, user: str, since: float, now: float) -> list[dict[str, Any]]:
    from smtpplus.observation import record

    told = [_message(operation, connection, life, now) for life in record.of_user(connection, user, since, _LIMIT)]
    for name in (user, _mark(operation, user)):
        if name:
            told += [_refusal(each) for each in record.refusals_since(connection, since, user=name, limit=_LIMIT)]
    return sorted(told, key=lambda each: float(each["at"]))


def _mark(operation: Operation, name: str) -> str:
    """What failed logins with that name are kept under if nobody had it then; "" where the key cannot be read."""
    from smtpplus.accounts import unknown

    try:
        return unknown.mark(operation.configuration.state_directory.joinpath(unknown.KEY).read_bytes(), name)
    except OSError:
        return ""


def _unknown(operation: Operation, what: str) -> str:
    kept = operation.configuration.queue.history
    if not kept:
        return f'Nothing is known of {what}: [queue] history is "0s", so that nothing is kept.'
    back = f"The history goes back {span(kept)}"
    return f"Nothing is known of {what}. {back}; what never reached this server is not in it: try smtpplus doctor HOST at the client."


def _message(operation: Operation, connection: Connection, life: Life, now: float, *, before: bool = False) -> dict[str, Any]:
    """All about one message; `before`: also what went before it."""
    import msgspec

    from smtpplus.mail.envelope import parse_queue_id
    from smtpplus.operation import holds, narration
    from smtpplus.queue import actions

    life = narration.completed(life, actions.noted(connection, parse_queue_id(life.id), now))
    stands, since = daemon = _standing(connection)
    waiting = _gates(operation, connection, life, now, daemon)
    untried = bool(waiting) and not any(each.gate in _TRIED for each in waiting)
    first = narration.first_wait(life, now if untried else None)
    told = narration.decisions(life, date)
    if life.accepted:
        destination = operation.router.destination
        spells = holds.holds(connection, life, destination, waits=bool(waiting), now=now)
        told = narration.merged(told, holds.told(spells, date))
    return {
        "id": life.id,
        "kind": "message",
        "at": life.at,
        "state": "queued" if waiting else "done",
        "user": life.user,
        "list": life.list,
        "sender": life.sender,
        "recipients": list(life.recipients),
        "level": life.level,
        "size": life.size,
        "message_id": life.message_id,
        "subject": life.subject,
        "campaign": life.campaign,
        "decisions": [{"at": each.at, "what": each.what, "text": each.text} for each in told],
        "first_wait": None
        if first is None
        else {**msgspec.structs.asdict(first), "urgent_before": _urgent_before(operation, connection, life, first) if before else []},
        "paused": [msgspec.to_builtins(each) for each in narration.pauses(life.events, now, since if stands is not None else now)],
        "waiting": [
            {
                "recipient": each.recipient,
                "gate": each.gate,
                "why": each.text,
                "next": each.following,
                "at": each.at,
                "command": each.command,
            }
            for each in waiting
        ],
    }


def _gates(operation: Operation, connection: Connection, life: Life, now: float, daemon: tuple[Standing | None, float]) -> list[Gate]:
    """Where its recipients wait; `daemon` is what `_standing` found."""
    from smtpplus.mail.envelope import parse_queue_id
    from smtpplus.operation.gates import Around, gate
    from smtpplus.operation.narration import stopped_until, under_way
    from smtpplus.queue import rulebook
    from smtpplus.queue import under_way as running
    from smtpplus.queue.rules import Rules
    from smtpplus.queue.selection import QueueView, Selection

    stands, since = daemon
    said = running.read(connection)
    rules = Rules(rulebook.load(connection, since=now - operation.configuration.queue.lifetime), now)
    view = QueueView(connection, rules, operation.router.destination, now, said)
    waiting = list(view.select(Selection(ids=(parse_queue_id(life.id),))))
    urgent = () if not waiting or stands is None or stands.preempting is None else _urgent(connection, view, stands, now)
    max_pause = operation.configuration.priority.max_pause
    begun = {each.address: _begun(operation, life, each) for each in waiting if each.attempts}
    cut_off = {
        each.address
        for each in waiting
        if each.attempts and not said.has(each.id, each.number, each.destination) and not since <= begun[each.address] <= now + _CLOSE
    }
    gained = _gained(connection, waiting[0], rules, operation.configuration.priority.aging, now) if waiting else 0
    around = Around(urgent, stopped_until(life.events, max_pause), max_pause, under_way(life.events, since), cut_off, gained)
    return [gate(each, stands, date, around) for each in waiting]


def _begun(operation: Operation, life: Life, queued: Queued) -> float:
    """When the last attempt at a recipient began: as was stated, or as its next time tells, which may have been moved since."""
    from smtpplus.events import Rescheduled, Started
    from smtpplus.queue import retry

    moved = False
    for event in reversed(life.events):
        if isinstance(event, Started) and event.attempt == queued.attempts and queued.address in event.recipients:
            return event.at
        moved = moved or (isinstance(event, Rescheduled) and event.recipient == queued.address)
    return 0.0 if moved else queued.due - retry.delay(operation.configuration.queue.retry, queued.attempts)


def _gained(connection: Connection, queued: Queued, rules: Rules, aging: float, now: float) -> int:
    """How many levels a message has gained by waiting: as queue.ready counts."""
    from smtpplus.queue import rows
    from smtpplus.queue.ready import GAIN
    from smtpplus.queue.rules import Facts

    found = rows.envelope(connection, queued.id) if aging else None
    if found is None:
        return 0
    begun = max(found.received_at, found.release_at)
    domains = (rows.domain_of(queued.address),)
    facts = Facts(queued.id, queued.user, queued.list, queued.sender_domain, queued.level, queued.destination, domains)
    return min(GAIN, max(0, int((now - begun - rules.held(facts, begun, now)) / aging)))


def _urgent_before(operation: Operation, connection: Connection, life: Life, wait: FirstWait) -> list[str]:
    """The queue IDs of mail that stopped lower levels, or could, while the message waited for its first attempt."""
    from smtpplus.observation import record

    levels = [level for level in operation.configuration.priority.preempting_levels if level < life.level]
    end = wait.since + wait.seconds
    if not levels or wait.seconds < _WORTH:
        return []
    return record.urgent(connection, levels, max(wait.since, end - _BACK), end)


def _urgent(connection: Connection, view: QueueView, stands: Standing, now: float) -> list[str]:
    """The queue IDs of mail that stops others and may go or is under way; none that is held or over a rate."""
    from sqlalchemy import literal_column, or_, select

    from smtpplus.operation.gates import over_rate
    from smtpplus.queue.selection import Selection
    from smtpplus.storage.schema import recipients

    level = stands.preempting or 0

    c = recipients.c
    under_way = (c.attempts > 0) & c.reply.is_(None)
    query = select(c.message_id).where(c.level <= level, or_(c.due <= now, under_way)).distinct().order_by(c.message_id).limit(_LOOKED)
    if level <= _INDEXED:  # said as the index says it, or it is not used
        query = query.where(c.level <= literal_column(str(_INDEXED)))
    numbers = tuple(connection.scalars(query))
    found = view.select(Selection(ids=numbers)) if numbers else iter(())
    left_alone = {each.destination for each in stands.backing_off}

    def demands(each: Queued) -> bool:
        free = over_rate(each, stands) is None and each.destination not in left_alone
        return each.state == "trying" or (each.state == "waiting" and free)

    return list(dict.fromkeys(each.name for each in found if demands(each)))[:_URGENT]


def _standing(connection: Connection) -> tuple[Standing | None, float]:
    """What the running daemon said last, and since when it runs; None if none runs."""
    from smtpplus.operation.health import started_at
    from smtpplus.queue import standing

    found = standing.read(connection)
    if found is None or not standing.alive(found[0].process):
        return None, 0.0
    return found[0].standing, started_at(found[0].process)


def _refusal(refusal: Refusal) -> dict[str, Any]:
    from smtpplus.observation.problems import about, advice, command
    from smtpplus.operation import narration

    why, remedy = narration.remedy(refusal.reason)
    return {
        "id": refusal.reference,
        "kind": "refusal",
        "at": refusal.at,
        "state": "refused",
        "user": refusal.user,
        "sender": refusal.sender,
        "address": about(refusal.sender, refusal.reply)[0],
        "recipient": refusal.recipient,
        "client": refusal.client,
        "session": refusal.session,
        "reason": refusal.reason,
        "reply": refusal.reply,
        "why": why,
        "remedy": remedy or advice(refusal.reason, refusal.reply),
        "command": command(refusal.reason, refusal.user, refusal.sender, refusal.reply),
        "count": refusal.count,
    }
