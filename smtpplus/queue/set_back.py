"""The clock on the wall when it is set back: times that were written down before lie too far ahead from then on.

It is noticed by looking, also at the start. Mail that waits for its next attempt is tried after the longest step of the retry schedule at
the latest, counted from now; what its sender or an operator put off to a time of the day stays there. Failure: the fault is logged, and
the mail waits as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, bindparam, select, update
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from smtpplus.queue import rows
from smtpplus.storage import schema
from smtpplus.storage.database import Database

Key = tuple[int, int]  # message id and number of the recipient


class SetBack:
    """`look` often, and `bring_forward` when it says so. `pick_up` is called with messages that are to be read again."""

    _log = Logger()

    def __init__(
        self, *, database: Database, pick_up: Callable[[Sequence[int]], None], schedule: Sequence[float], now: Callable[[], float]
    ) -> None:
        self._database = database
        self._pick_up = pick_up
        self._longest = max(schedule)  # seconds
        self._now = now
        self._seen = now()

    def look(self) -> bool:
        """Whether the clock was set back since the last look."""
        before, self._seen = self._seen, self._now()
        return self._seen < before

    def bring_forward(self) -> None:
        """Let nothing that failed wait for longer than the longest step from now."""
        due = self._now() + self._longest

        def found(keys: list[Key]) -> Deferred[None] | None:
            if not keys:
                return None
            moved = self._database.write(lambda connection: _move(connection, keys, due))
            return moved.addCallback(lambda _: self._pick_up(sorted({number for number, _ in keys})))

        def failed(failure: object) -> None:
            self._log.error("what waits too long, as the clock was set back, cannot be brought forward: {failure}", failure=failure)

        self._database.read(lambda connection: _beyond(connection, due)).addCallback(found).addErrback(failed)


def _beyond(connection: Connection, due: float) -> list[Key]:
    """The recipients who wait for a further attempt until after `due`, and were not put off so far. One look at each recipient."""
    m, r = schema.messages.c, schema.recipients.c
    query = select(r.message_id, r.number, r.due, m.parameters).join_from(schema.recipients, schema.messages, r.message_id == m.id)
    late = connection.execute(query.where(r.attempts > 0, r.due > due))
    return [(row.message_id, row.number) for row in late if row.due > rows.released_at(row.parameters)]


def _move(connection: Connection, keys: list[Key], due: float) -> None:
    r = schema.recipients.c
    change = update(schema.recipients).where(r.message_id == bindparam("key"), r.number == bindparam("index"), r.due > due).values(due=due)
    connection.execute(change, [{"key": number, "index": index} for number, index in keys])
