"""The pages that machines look at: `/metrics` for Prometheus, `/healthz` for who restarts what hangs, `/readyz` for who sends traffic here.

`/healthz` says that the process lives: the reactor turns. A database that fails is no reason to kill it. `/readyz` says whether mail
that comes now could be taken, and if not, why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, insert, update
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.python.failure import Failure

from smtpplus.observation.metrics import Measures
from smtpplus.operation.http import Answer, Asked, Page, plain
from smtpplus.storage.database import Database
from smtpplus.storage.engine import told
from smtpplus.storage.schema import status

OPENMETRICS = "text/plain; version=0.0.4; charset=utf-8"
GOOD = 2.0  # seconds for which it is known that the database commits, or does not
PATIENCE = 5.0  # seconds that a commit may take
_MARK = "readiness"  # row of `status` that is written to see whether it can be


class Readiness:
    """Whether mail should be sent here. `why_not` is said by the composition root, "" when all has started; each of `looks` says what
    is in the way, or "". That the writer commits is tried, at most once in GOOD seconds however often somebody asks."""

    def __init__(self, database: Database, clock: Any, *, now: Callable[[], float], looks: Sequence[Callable[[], str]]) -> None:
        self.why_not = "it is starting"
        self._database = database
        self._clock = clock
        self._now = now
        self._looks = looks
        self._known = ""
        self._known_until = float("-inf")
        self._waiting: list[Deferred[str]] = []

    def page(self) -> Page:
        """`/readyz`: 200 from the moment the queue is lined up until the stop begins, unless something is in the way; else 503 with the
        reason."""
        return Page(self._answer, counted=False)

    def _answer(self, _: Asked) -> Answer | Deferred[Answer]:
        for why in (self.why_not, *(look() for look in self._looks)):
            if why:
                return _said(why)
        return self._commits().addCallback(_said)

    def _commits(self) -> Deferred[str]:
        """Fires with "" if the writer commits, else with why not."""
        if self._clock.seconds() < self._known_until:
            return succeed(self._known)
        waiting: Deferred[str] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            asked = self._database.write(partial(_write, at=self._now())).addCallback(lambda _: "")
            asked.addTimeout(PATIENCE, self._clock).addErrback(_why_not).addCallback(self._answered)
        return waiting

    def _answered(self, why: str) -> None:
        self._known, self._known_until = why, self._clock.seconds() + GOOD
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(why)


def _said(why: str) -> Answer:
    return plain(503, f"not ready: {why}") if why else plain(200, "ready")


def _why_not(failure: Failure) -> str:
    if failure.check(TimeoutError):
        return f"the database does not commit within {PATIENCE:.0f} s"
    fault = failure.value
    return f"the database does not commit: {told(fault)}"


def _write(connection: Connection, at: float) -> None:
    if connection.execute(update(status).where(status.c.name == _MARK).values(at=at)).rowcount == 0:
        connection.execute(insert(status).values(name=_MARK, value="", at=at))


def health() -> Page:
    """`/healthz`: 200 as long as the reactor turns."""
    return Page(lambda _: plain(200, "ok"), counted=False)


def metrics(measures: Measures) -> Page:
    """`/metrics`, in the text format of Prometheus."""

    def answer(_: Asked) -> Deferred[Answer]:
        return measures.read().addCallback(lambda text: Answer(200, text, OPENMETRICS))

    return Page(answer)
