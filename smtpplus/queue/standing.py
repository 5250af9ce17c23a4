"""How the daemon stands, for those who ask the database: what is under way, stopped, or left alone.

Only memory knows this. Once a second it is written as one row if it changed, so that an idle daemon writes nothing. A row of a daemon
that is gone is told by its process id. What has gone under quotas, and was spent of budgets, is written now and then and at the end,
and read at the start: a crash forgets the last seconds of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection, insert, select, update
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from smtpplus.queue import under_way
from smtpplus.queue.rates import OverRate, Saved
from smtpplus.queue.under_way import NAME, RunningTransfer
from smtpplus.storage import schema
from smtpplus.storage.database import Database

EVERY = 1.0  # seconds between two looks
SHOWN = 100  # destinations and transfers named in one row
COUNTED = 10  # looks after which what has gone under quotas is written
alive = under_way.alive


class Counts(Protocol):
    """What is counted, and must not begin anew with a restart."""

    def save(self, now: float) -> Saved:
        """What counts still."""

    def restore(self, saved: Saved, now: float) -> None:
        """What `save` gave before a restart."""


class BackingOff(msgspec.Struct, frozen=True):
    """A destination that did not answer, and is left alone until then."""

    destination: str
    until: float  # seconds since the epoch
    failures: int  # in a row
    waiting: int  # entries in memory


class StoppedTransfer(msgspec.Struct, frozen=True):
    """A running transfer that urgent mail or a rule has stopped."""

    id: str
    destination: str
    level: int
    cause: str


class Crowded(msgspec.Struct, frozen=True):
    """A destination for which mail waits although attempts at it are under way."""

    destination: str
    running: int
    window: int  # how many may run there now, but for the reserved
    widest: int  # what the window may grow to
    reserved: int  # that preempting levels may have beyond the window; with `widest` it is [delivery] per_destination
    waiting: int  # entries in memory


class Slots(msgspec.Struct, frozen=True):
    """How many attempts may be under way at a time, and what for."""

    connections: int  # [delivery] connections: in all
    reserved: int  # of these, for preempting levels alone
    spare: int  # of the others, for destinations that have none
    preempting: tuple[int, ...]  # levels


class Standing(msgspec.Struct, frozen=True):
    """What only memory knows."""

    ready: int  # entries that wait for a slot, or are held
    delayed: int  # messages that wait for their time
    running: int
    backing_off: tuple[BackingOff, ...] = ()
    destinations_backing_off: int = 0
    stopped: tuple[StoppedTransfer, ...] = ()
    preempting: int | None = None  # nothing below this level starts, as urgent mail is ready or running
    over_rate: tuple[OverRate, ...] = ()
    slots: Slots | None = None
    crowded: tuple[Crowded, ...] = ()  # those for which most waits
    transfers: tuple[RunningTransfer, ...] | None = None  # under way, those that run longest; None if they are not said


class Row(msgspec.Struct, frozen=True):
    """What is written."""

    process: int  # 0: it has stopped
    standing: Standing


class Report:
    """Writes how the daemon stands. `start` it with the scheduler, `stop` it before the database."""

    def __init__(
        self,
        *,
        database: Database,
        standing: Callable[[], Standing],
        counts: Mapping[str, Counts],
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self._database = database
        self._standing = standing
        self._counts = counts
        self._counted = dict.fromkeys(counts, "{}")
        self._looks = 0
        self._now = now
        self._written = ""
        self._writing = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> Deferred[Any]:
        """Write now, and whenever something changed. Fires when what had gone under quotas and budgets before a restart is known."""
        self._loop.start(EVERY)
        return self._database.read(lambda connection: {name: _value(connection, name) for name in self._counts}).addCallbacks(
            self._restore, lambda failure: None
        )

    def stop(self) -> Deferred[Any]:
        """Write that the daemon has stopped; fires when that is done or cannot be."""
        if self._loop.running:
            self._loop.stop()
        self._count()
        return self._write(NAME, msgspec.json.encode(Row(0, Standing(0, 0, 0))).decode())

    def _restore(self, found: dict[str, str | None]) -> None:
        for name, text in found.items():
            if text is not None:
                self._counts[name].restore(msgspec.json.decode(text, type=Saved), self._now())

    def _look(self) -> None:
        text = msgspec.json.encode(Row(os.getpid(), self._standing())).decode()
        if text != self._written and not self._writing:
            self._write(NAME, text)
        self._looks += 1
        if self._looks % COUNTED == 0:
            self._count()

    def _count(self) -> None:
        for name, counts in self._counts.items():
            text = msgspec.json.encode(counts.save(self._now())).decode()
            if text != self._counted[name]:
                self._counted[name] = text
                self._write(name, text)

    def _write(self, name: str, text: str) -> Deferred[Any]:
        at = self._now()
        self._writing = True

        def work(connection: Connection) -> None:
            s = schema.status
            if connection.execute(update(s).where(s.c.name == name).values(value=text, at=at)).rowcount == 0:
                connection.execute(insert(s).values(name=name, value=text, at=at))

        def written(result: Any) -> None:
            self._writing = False
            if result is None and name == NAME:
                self._written = text

        return self._database.write(work).addBoth(written)


def _value(connection: Connection, name: str) -> str | None:
    s = schema.status.c
    return connection.execute(select(s.value).where(s.name == name)).scalar()


def read(connection: Connection) -> tuple[Row, float] | None:
    """What the daemon wrote last, and when; None if there never was one."""
    s = schema.status.c
    found = connection.execute(select(s.value, s.at).where(s.name == NAME)).one_or_none()
    return None if found is None else (msgspec.json.decode(found.value, type=Row), found.at)
