"""What the webhook is owed: rows written in the transaction that counts and tells, deleted when taken. Functions over a connection.

A row is a body that does not change from one attempt to the next. At most WAITING rows wait, none longer than KEPT; the oldest give way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import Connection, delete, func, insert, or_, select, update

from smtpplus.observation.letters import Told
from smtpplus.storage.schema import webhook_posts

WAITING = 1_000
KEPT = 2 * 86_400.0  # seconds
LONGEST = 3_600.0  # seconds from one attempt to the next: what is due later was written before the clock was set back
_C = webhook_posts.c


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
    """It was taken, or is given up."""
    connection.execute(delete(webhook_posts).where(_C.id == number))


def put_off(connection: Connection, number: int, tried: int, until: float) -> None:
    """It was not taken, and is tried again."""
    connection.execute(update(webhook_posts).where(_C.id == number).values(tried=tried, due=until))


def forget(connection: Connection, now: float) -> int:
    """Delete what waits too long, or too many; how many."""
    newest = connection.scalar(select(func.max(_C.id))) or 0
    return connection.execute(delete(webhook_posts).where(or_(_C.created_at < now - KEPT, _C.id <= newest - WAITING))).rowcount
