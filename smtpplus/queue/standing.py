"""How the daemon stands, for those who ask the database: what is under way, stopped, or left alone.

Only memory knows this. Once a second it is written as one row if it changed, so that an idle daemon writes nothing. A row of a daemon
that is gone is told by its process id. What has gone under quotas, and was spent of budgets, is read at the start, and written whole now
and then and at the end; in between what has changed since then is written beside it, once a second. A crash forgets a second of it, or
two under load. All that is written at a time is one unit of the next group commit, for which the disk is not waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
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
WHOLE = 10  # looks after which all that has gone under quotas is written
RECENT = " lately"  # behind the name of counts: those that have changed since all were written
alive = under_way.alive


class Counts(Protocol):
    """What is counted, and must not begin anew with a restart."""

    touched: set[str]  # what was counted under since the last look: emptied by who looks

    def save(self, now: float, names: Collection[str] | None = None) -> Saved:
        """What counts still: of all, or of these alone."""

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
        self._recent: dict[str, set[str]] = {name: set() for name in counts}  # what has changed since all was written
        self._whole = dict.fromkeys(counts, -WHOLE)  # the look at which all was written
        self._known = False  # what had gone before
        self._failed = False  # to write what was to be written last
        self._looks = 0
        self._now = now
        self._written = ""
        self._writing = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> Deferred[Any]:
        """Write now, and whenever something changed. Fires when what had gone under quotas and budgets before a restart is known."""
        self._loop.start(EVERY)
        names = [row for name in self._counts for row in (name, name + RECENT)]
        found = self._database.read(lambda connection: {name: _value(connection, name) for name in names})
        return found.addCallback(self._restore).addBoth(self._restored)

    def stop(self) -> Deferred[Any]:
        """Write that the daemon has stopped; fires when that is done or cannot be."""
        if self._loop.running:
            self._loop.stop()
        self._looks += WHOLE
        return self._write({**self._count(), NAME: msgspec.json.encode(Row(0, Standing(0, 0, 0))).decode()}, durable=True)

    def _restore(self, found: dict[str, str | None]) -> None:
        for name, counts in self._counts.items():
            whole, recent = (msgspec.json.decode(found[row] or "{}", type=Saved) for row in (name, name + RECENT))
            counts.restore({**whole, **recent}, self._now())

    def _restored(self, _: object) -> None:
        self._known = True

    def _look(self) -> None:
        self._looks += 1
        if self._writing:
            return
        text = msgspec.json.encode(Row(os.getpid(), self._standing())).decode()
        changed = {**self._count(), **({NAME: text} if text != self._written else {})}
        if changed:
            self._write(changed)

    def _count(self) -> dict[str, str]:
        """What is to be written of the counts; nothing if nothing was counted."""
        rows: dict[str, str] = {}
        for name, counts in self._counts.items():
            if not self._known or not (counts.touched or self._failed):
                continue
            recent = self._recent[name]
            recent |= counts.touched
            counts.touched.clear()
            if self._failed or self._looks - self._whole[name] >= WHOLE:
                self._whole[name] = self._looks
                recent.clear()
                rows[name], rows[name + RECENT] = msgspec.json.encode(counts.save(self._now())).decode(), "{}"
            else:
                rows[name + RECENT] = msgspec.json.encode(counts.save(self._now(), recent)).decode()
        return rows

    def _write(self, rows: Mapping[str, str], *, durable: bool = False) -> Deferred[Any]:
        at = self._now()
        self._writing = True

        def work(connection: Connection) -> None:
            s = schema.status
            for name, text in rows.items():
                if connection.execute(update(s).where(s.c.name == name).values(value=text, at=at)).rowcount == 0:
                    connection.execute(insert(s).values(name=name, value=text, at=at))

        def written(result: Any) -> None:
            self._writing = False
            self._failed = result is not None
            if not self._failed:
                self._written = rows.get(NAME, self._written)

        return self._database.write(work, durable=durable).addBoth(written)


def _value(connection: Connection, name: str) -> str | None:
    s = schema.status.c
    return connection.execute(select(s.value).where(s.name == name)).scalar()


def read(connection: Connection) -> tuple[Row, float] | None:
    """What the daemon wrote last, and when; None if there never was one."""
    s = schema.status.c
    found = connection.execute(select(s.value, s.at).where(s.name == NAME)).one_or_none()
    return None if found is None else (msgspec.json.decode(found.value, type=Row), found.at)
