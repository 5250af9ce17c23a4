"""What alert mode let through and block mode would have refused, added up by user, sender and reason (D5).

Written in batches: what comes within a second is one unit of work for the writer, so that a message costs an entry in a dictionary. If
the database does not take it, it is tried again with the next second's; past LIMIT different entries, further ones are
dropped and counted in the log. What nobody sent for KEPT is forgotten.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from sqlalchemy import Connection, delete, insert, update
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.events import Event, WouldRefuse
from smtpplus.mail.reply import printable
from smtpplus.storage.database import Database
from smtpplus.storage.schema import would_refuse

GATHER = 1.0  # seconds from an event to the database
KEPT = 30 * 86_400.0  # seconds since the last time: long enough to decide on block mode
PURGE = 3_600.0  # seconds of events between two looks for what is to be forgotten
LIMIT = 10_000  # different entries waiting for the database


class Key(NamedTuple):
    """What is counted together."""

    user: str
    sender: str
    reason: str


class _Tally:
    __slots__ = ("count", "first", "last", "reply")

    def __init__(self, count: int, first: float, last: float, reply: str) -> None:
        self.count, self.first, self.last, self.reply = count, first, last, reply


class WouldBlock:
    """An observer of events; subscribe it to the bus. `close` writes what is left."""

    _log = Logger()

    def __init__(self, database: Database, clock: IReactorTime) -> None:
        self._database = database
        self._clock = clock
        self._gathered: dict[Key, _Tally] = {}
        self._timer: IDelayedCall | None = None
        self._dropped = 0
        self._purged = float("-inf")  # when it was last looked for what is to be forgotten

    def __call__(self, event: Event) -> None:
        """Count a would-be refusal; other events are none of ours."""
        if isinstance(event, WouldRefuse):
            self._add(Key(event.user, printable(event.sender), event.reason), _Tally(1, event.at, event.at, event.reply))
            if self._timer is None:
                self._timer = self._clock.callLater(GATHER, self._flush)

    def close(self) -> Deferred[None]:
        """Write what is left; fires when it is in the database, or cannot be."""
        if self._timer is not None:
            self._timer.cancel()
        return self._flush()

    def _add(self, key: Key, more: _Tally) -> None:
        tally = self._gathered.get(key)
        if tally is None:
            if len(self._gathered) >= LIMIT:
                self._dropped += 1
            else:
                self._gathered[key] = more
            return
        tally.count += more.count
        tally.first = min(tally.first, more.first)
        if more.last >= tally.last:
            tally.last, tally.reply = more.last, more.reply

    def _flush(self) -> Deferred[None]:
        self._timer = None
        taken, self._gathered = self._gathered, {}
        if not taken:
            return succeed(None)
        if self._dropped:
            self._log.warn("{count} would-be refusals were not counted: there were too many different ones", count=self._dropped)
            self._dropped = 0
        newest = max(tally.last for tally in taken.values())
        forget = newest - KEPT if newest >= self._purged + PURGE else None
        if forget is not None:
            self._purged = newest
        return self._database.write(_writing(taken, forget)).addErrback(self._lost, taken)

    def _lost(self, failure: Failure, taken: dict[Key, _Tally]) -> None:
        self._log.failure("would-be refusals could not be written; they are kept for the next time", failure)
        for key, tally in taken.items():
            self._add(key, tally)


def _writing(taken: dict[Key, _Tally], forget: float | None) -> Callable[[Connection], None]:
    """The work of one flush, which also forgets what is older than `forget`. Nothing in it changes `taken`: it may run twice."""

    def write(connection: Connection) -> None:
        table = would_refuse.c
        if forget is not None:
            connection.execute(delete(would_refuse).where(table.last_at < forget))
        for key, tally in taken.items():
            values: dict[str, Any] = {"reply": tally.reply, "last_at": tally.last}
            counted = connection.execute(
                update(would_refuse)
                .where(table.user == key.user, table.sender == key.sender, table.reason == key.reason)
                .values(**values, count=table.count + tally.count)
            )
            if counted.rowcount == 0:
                connection.execute(insert(would_refuse).values(**key._asdict(), **values, count=tally.count, first_at=tally.first))

    return write
