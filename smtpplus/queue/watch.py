"""What other processes changed: the daemon's look at rules and at changed recipients, twice a second.

The command line writes both into the database and raises the generation "queue" in the same transaction; one look costs one question
about one row. Rules are read whole, as they are few; changed recipients are read and deleted in pages, and each is stated as
an event. A change is deleted after it was obeyed: a crash between the two repeats it, which does no harm, since the rows
of the queue say what is true and changes only where to look again. Failure: a look that fails is repeated; the fault is logged once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, delete, select
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from smtpplus.events import Events
from smtpplus.queue import rulebook
from smtpplus.queue.actions import CANCELLED, RETRIED, stated
from smtpplus.queue.rates import Terms
from smtpplus.queue.rules import Rule, Rules
from smtpplus.queue.scheduler import Scheduler
from smtpplus.storage import schema
from smtpplus.storage.database import Database

POLL = 0.5  # seconds between two looks
PAGE = 500  # changes read at once


class Watch:
    """`start` it once the database is open, and the scheduler when its Deferred has fired; `stop` it before the scheduler."""

    _log = Logger()

    def __init__(
        self,
        *,
        database: Database,
        scheduler: Scheduler,
        terms: Callable[[Connection], Terms],
        lifetime: float,
        clock: IReactorTime,
        now: Callable[[], float],
        events: Events,
    ) -> None:
        self._database = database
        self._scheduler = scheduler
        self._terms = terms
        self._lifetime = lifetime  # seconds that a rule of the past still counts
        self._now = now
        self._events = events
        self._seen = (-1, -1)
        self._looked = 0.0  # when, by the clock on the wall
        self._rules: list[Rule] | None = None
        self._next_end: float | None = None
        self._complained = False
        self._stopped: Deferred[Any] = succeed(None)
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> Deferred[Any]:
        """Look now, and from now on. Fires after the first look: the rules are in force. Nothing starts before."""
        self._scheduler.obey(Rules([Rule(0, "everything", "", reason="the rules are not read yet")]))
        first: Deferred[Any] = Deferred()
        self._first: Deferred[Any] | None = first
        self._stopped = self._loop.start(POLL)
        return first

    def stop(self) -> Deferred[Any]:
        """Look no more; fires when what is being read is obeyed."""
        ended: Deferred[Any] = Deferred()
        if self._loop.running:
            self._loop.stop()
        self._stopped.addCallback(ended.callback)
        return ended

    def again(self) -> None:
        """Look at the limits at the next look, although nothing in the database has changed."""
        self._seen = (self._seen[0], -1)

    @inlineCallbacks
    def _look(self) -> Any:
        before, self._looked = self._looked, self._now()
        if self._looked < before:  # the clock was set back: what had ended may be in force again
            self._rules = None
            self._seen = (-1, self._seen[1])
        try:
            numbers = yield self._database.read(rulebook.generations)
            if numbers[1] != self._seen[1]:
                self._scheduler.limit((yield self._database.read(self._terms)))
            if numbers[0] != self._seen[0]:
                yield self._read()
            if numbers != self._seen:
                self._seen = numbers
            elif self._next_end is not None and self._now() >= self._next_end:
                self._obey()
            self._complained = False
        except Exception:
            if not self._complained:
                self._complained = True
                self._log.failure("rules and changes of the queue cannot be read; it is tried again")
        first, self._first = self._first, None
        if first is not None:
            first.callback(None)

    @inlineCallbacks
    def _read(self) -> Any:
        since = self._now() - self._lifetime
        rules: list[Rule] = yield self._database.read(lambda connection: rulebook.load(connection, since=since))
        if rules != self._rules:
            self._rules = rules
            self._obey()
        more = True
        while more:
            rows: Sequence[Row[Any]] = yield self._database.read(_changes)
            if rows:
                self._take_note(rows)
                yield self._database.write(partial(_delete_changes, numbers=[row.id for row in rows]))
            more = len(rows) == PAGE and self._loop.running

    def _obey(self) -> None:
        rules = Rules(self._rules or (), self._now())
        self._next_end = rules.next_end
        self._scheduler.obey(rules)

    def _take_note(self, rows: Sequence[Row[Any]]) -> None:
        cancelled = {(row.message_id, row.number) for row in rows if row.what == CANCELLED}
        self._scheduler.changed({row.message_id for row in rows}, cancelled)
        self._scheduler.retry({row.address for row in rows if row.what == RETRIED})
        for row in rows:
            self._events.state(stated(row, self._now()))


def _changes(connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(select(schema.changes).order_by(schema.changes.c.id).limit(PAGE)).all()


def _delete_changes(connection: Connection, numbers: list[int]) -> None:
    connection.execute(delete(schema.changes).where(schema.changes.c.id.in_(numbers)))
