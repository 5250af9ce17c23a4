"""A look at the server once a minute: what will stop mail soon, or does. Each trouble is an event; the alert centre tells it once.

What is looked at costs a few system calls and one question of the database. A look that fails is a trouble of its own in the log,
and the next comes all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from smtpplus.events import Events, Trouble
from smtpplus.storage.database import Database
from smtpplus.storage.schema import recipients

EVERY = 60.0  # seconds
FREE = 0.10  # of the file system
FREE_OCTETS = 1024**3
EXPIRES = 14 * 86_400.0  # seconds before its end that a certificate is worth an alert
SLOW = 0.5  # seconds of an average commit
GROWING = 5  # looks in a row with more queued than before
MANY = 1_000  # recipients below which growth is none


class Watchdog:
    """`start` it once the database is open. `certificates` and `skipped`, sentences about ports, are asked each time, and
    `unwritten`: why the mail log cannot be written, or ""."""

    _log = Logger()

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        *,
        events: Events,
        now: Callable[[], float],
        directory: Path,
        certificates: Callable[[], Sequence[Path]],
    ) -> None:
        self._database = database
        self._events = events
        self._now = now
        self._directory = directory
        self._certificates = certificates
        self.skipped: Callable[[], Sequence[str]] = list
        self.unwritten: Callable[[], str] = str
        self._commits = (0, 0.0)
        self._queued: list[int] = []
        self._loop = LoopingCall(self.look)
        self._loop.clock = clock

    def start(self) -> None:
        """Look now, and every minute."""
        self._loop.start(EVERY)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def look(self) -> Deferred[Any]:
        """One look."""
        return self._database.read(_queued).addCallback(self._judge).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        self._log.failure("the server could not be looked at; it is tried again", failure)

    def _judge(self, queued: int) -> None:
        machine = (*self._disk(), *self._expiry(), *self._ports(), *self._mail_log())
        for kind, what, why, remedy in (*machine, *self._commit_times(), *self._growth(queued)):
            self._events.state(Trouble(self._now(), kind, what, why, remedy))

    def _disk(self) -> Iterator[tuple[str, str, str, str]]:
        found = os.statvfs(self._directory)
        free = found.f_bavail * found.f_frsize
        if free < FREE_OCTETS or free < FREE * found.f_blocks * found.f_frsize:
            why = f"{free / 1024**2:.0f} MiB are free there; below [queue] minimum_free mail is refused"
            yield "disk_filling", str(self._directory), why, "free some space, or move state_directory"

    def _expiry(self) -> Iterator[tuple[str, str, str, str]]:
        for path in self._certificates():
            try:
                end = expiry(path)
            except (OSError, ValueError) as fault:
                yield "certificate_expiring", str(path), f"it cannot be read: {fault}", "put the certificate back"
                continue
            if end - self._now() < EXPIRES:
                ends = "expired" if end < self._now() else "expires"
                why = f"it {ends} on {datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC"
                yield "certificate_expiring", str(path), why, "renew it; the new one is used within seconds"

    def _ports(self) -> Iterator[tuple[str, str, str, str]]:
        for sentence in self.skipped():
            yield "port_taken", sentence, "a port of a range is held by another program", "stop that program, or name other ports"

    def _mail_log(self) -> Iterator[tuple[str, str, str, str]]:
        if fault := self.unwritten():
            remedy = "let the daemon's user write it, make room, or name another file with [log] mail; what is not written is lost"
            yield "mail_log_unwritable", "the mail log", f"it cannot be written: {fault}", remedy

    def _commit_times(self) -> Iterator[tuple[str, str, str, str]]:
        writer = self._database.writer
        commits, seconds = writer.commits - self._commits[0], writer.seconds - self._commits[1]
        self._commits = (writer.commits, writer.seconds)
        if commits and seconds / commits > SLOW:
            why = f"a commit took {seconds / commits:.2f} s on the average of the last minute"
            yield "database_slow", "the database", why, "look for what else uses its disk, or give it a faster one"

    def _growth(self, queued: int) -> Iterator[tuple[str, str, str, str]]:
        self._queued = [*self._queued[-GROWING:], queued]
        grows = all(one < other for one, other in zip(self._queued, self._queued[1:], strict=False))
        if len(self._queued) > GROWING and grows and queued >= MANY:
            why = f"{queued} recipients wait, {queued - self._queued[0]} more than {GROWING} minutes ago"
            yield "queue_growing", "the queue", why, "smtpplus status shows what it waits for"


def chains(directory: Path) -> list[Path]:
    """The certificates in directories of `[tls] directory`; see submission.tls."""
    return sorted(directory.glob("*/fullchain.pem"))


def expiry(certificate: Path) -> float:
    """When the first certificate of a PEM file ends, seconds since the epoch."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc.timestamp()


def _queued(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(recipients)).scalar_one()
