"""What the webhook is owed: rows written in the transaction that counts and tells, deleted when taken. Functions over a connection.

A row is a body that does not change from one attempt to the next. At most WAITING rows wait, none longer than KEPT; the oldest give way.
Why the last attempt failed is kept until one succeeds, for those who wonder where their alerts are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import Connection, delete, func, insert, or_, select, update

from smtpplus.observation.letters import Told
from smtpplus.storage.schema import status, webhook_posts

WAITING = 1_000
KEPT = 2 * 86_400.0  # seconds
LONGEST = 3_600.0  # seconds from one attempt to the next: what is due later was written before the clock was set back
_NAME = "webhook"  # of the row of status that has the last fault
_C = webhook_posts.c


class Owing(msgspec.Struct, frozen=True):
    """How the webhook stands. `why` is empty if the last attempt succeeded, or there was none. Times: seconds since the epoch."""

    waiting: int
    tried: int  # of the one tried most often
    since: float  # when the oldest was owed, 0 without one
    why: str = ""
    at: float = 0.0  # of the last fault


def state(connection: Connection) -> Owing:
    """How the webhook stands now."""
    found = connection.execute(select(func.count(), func.max(_C.tried), func.min(_C.created_at))).one()
    fault = connection.execute(select(status.c.value, status.c.at).where(status.c.name == _NAME)).one_or_none()
    why = "" if fault is None else msgspec.json.decode(fault.value, type=str)
    return Owing(found[0], found[1] or 0, found[2] or 0.0, why, 0.0 if fault is None else fault.at)


class Post(msgspec.Struct, frozen=True):
    """One body that is to be posted; `tried` is how often it was."""

    id: int
    body: bytes
    tried: int
    created_at: float


def owe(connection: Connection, told: Sequence[Told], *, digest: bool, name: str, now: float) -> None:
    """Let `told` be posted from now on; `name` tells it from all others."""
    body = msgspec.json.encode({"type": "digest" if digest else "alert", "id": name, "at": now, "problems": told})
    connection.execute(insert(webhook_posts).values(body=body, tried=0, due=now, created_at=now))


def due(connection: Connection, now: float, limit: int, without: Collection[int]) -> list[Post]:
    """Up to `limit` posts that are due, the oldest first, `without` those under way."""
    query = select(_C.id, _C.body, _C.tried, _C.created_at).where(or_(_C.due <= now, _C.due > now + LONGEST))
    rows = connection.execute(query.order_by(_C.id).limit(limit + len(without)))
    return [Post(*row) for row in rows if row.id not in without][:limit]


def taken(connection: Connection, number: int) -> None:
    """It was taken."""
    connection.execute(delete(webhook_posts).where(_C.id == number))
    connection.execute(delete(status).where(status.c.name == _NAME))


def give_up(connection: Connection, number: int, why: str, now: float) -> None:
    """It was not taken, and is not tried again."""
    _failed(connection, why, now)
    connection.execute(delete(webhook_posts).where(_C.id == number))


def _failed(connection: Connection, why: str, now: float) -> None:
    connection.execute(delete(status).where(status.c.name == _NAME))
    connection.execute(insert(status).values(name=_NAME, value=msgspec.json.encode(why).decode(), at=now))


def put_off(connection: Connection, number: int, tried: int, until: float, *, why: str, now: float) -> None:
    """It was not taken because of `why`, and is tried again."""
    _failed(connection, why, now)
    connection.execute(update(webhook_posts).where(_C.id == number).values(tried=tried, due=until))


def forget(connection: Connection, now: float) -> int:
    """Delete what waits too long, or too many; how many."""
    newest = connection.scalar(select(func.max(_C.id))) or 0
    return connection.execute(delete(webhook_posts).where(or_(_C.created_at < now - KEPT, _C.id <= newest - WAITING))).rowcount
