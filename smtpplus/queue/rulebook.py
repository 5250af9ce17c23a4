"""Rules in the database: functions over a connection that is in a transaction; the caller commits.

Every change raises the generation of the queue, by which running daemons notice within a second. A rule that ended is kept until the
messages that it may have held have ended too, because its time is added to theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from smtpplus.queue.rules import Kind, Rule, Running
from smtpplus.storage import schema

GENERATION = "queue"
ACCOUNTS = "accounts"  # see accounts.store
_R = schema.rules.c


def raise_generation(connection: Connection) -> None:
    """Let running daemons look: part of every change."""
    g = schema.generation
    if connection.execute(update(g).where(g.c.name == GENERATION).values(number=g.c.number + 1)).rowcount == 0:
        connection.execute(insert(g).values(name=GENERATION, number=1))


def generations(connection: Connection) -> tuple[int, int]:
    """How often something of the queue, and something of the accounts, was changed."""
    g = schema.generation.c
    found = {row.name: row.number for row in connection.execute(select(g.name, g.number).where(g.name.in_((GENERATION, ACCOUNTS))))}
    return found.get(GENERATION, 0), found.get(ACCOUNTS, 0)


def load(connection: Connection, *, since: float) -> list[Rule]:
    """The rules in force, and those that ended after `since`, by id."""
    query = select(schema.rules).where(or_(_R.lifted_at == 0, _R.lifted_at > since), or_(_R.expires_at == 0, _R.expires_at > since))
    return [
        Rule(
            row.id,
            row.kind,
            row.value,
            row.running,
            row.reason,
            row.who,
            row.created_at,
            row.expires_at,
            row.keep_expiry,
            row.lifted_at,
        )
        for row in connection.execute(query.order_by(_R.id))
    ]


def in_force(connection: Connection, now: float) -> list[Rule]:
    """The rules in force at `now`, by id."""
    return [rule for rule in load(connection, since=now) if rule.in_force(now)]


def add(
    connection: Connection,
    kind: Kind,
    value: str,
    *,
    running: Running,
    reason: str,
    who: str,
    now: float,
    lasting: float = 0.0,
    keep_expiry: bool = False,
    lifetime: float = 0.0,
) -> Rule:
    """Make a rule; `value` is normalized (rules.normalized). `lasting` seconds, 0: until it is lifted. What ended longer than
    `lifetime` ago is forgotten on this occasion."""
    old = now - lifetime
    connection.execute(
        delete(schema.rules).where(or_(and_(_R.lifted_at > 0, _R.lifted_at < old), and_(_R.expires_at > 0, _R.expires_at < old)))
    )
    expires_at = now + lasting if lasting else 0.0
    row = {
        "kind": kind,
        "value": value,
        "running": running,
        "reason": reason,
        "who": who,
        "created_at": now,
        "expires_at": expires_at,
        "keep_expiry": keep_expiry,
    }
    made = connection.execute(insert(schema.rules).values(row)).inserted_primary_key
    assert made is not None
    raise_generation(connection)
    return Rule(made[0], kind, value, running, reason, who, now, expires_at, keep_expiry)


def lift(connection: Connection, numbers: Sequence[int], *, who: str, now: float) -> None:
    """End these rules now."""
    connection.execute(update(schema.rules).where(_R.id.in_(numbers), _R.lifted_at == 0).values(lifted_at=now, lifted_by=who))
    raise_generation(connection)
