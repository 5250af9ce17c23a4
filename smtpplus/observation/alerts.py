"""The alert centre: signs of problems are gathered for a second, counted and told by the desk, then handed to log and webhook (B6).

Alerts never alert about themselves: what becomes of mail that no session brought is no sign of anything. Under a storm a sign costs
an entry in a dictionary; beyond OF_USER different ones of a kind and user in a second, or LIMIT in all, the rest of that kind and user
counts as one. If the database does not take a second's signs, they are kept for the next, which the log says once. Failure never reaches
the mail.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection, select
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.events import Accepted, Alerted, AuthenticationFailed, Bounced, Event, Events, Failed, Refused, RefusedMore
from smtpplus.events import Deferred as Delayed
from smtpplus.mail.envelope import queue_id
from smtpplus.observation import desk
from smtpplus.observation.desk import Sent, Signs, Terms
from smtpplus.observation.folded import Folded
from smtpplus.observation.problems import FAILED_LOGINS, SIGNS, Problem, failed_logins
from smtpplus.storage.database import Database
from smtpplus.storage.schema import recipients

GATHER = 1.0  # seconds from a sign to the database
LOOK = 60.0  # seconds between two looks for digests that are due, at most
LIMIT = 200  # different signs gathered in a second: each costs the writer a few statements
OF_USER = 50  # of one kind and user
OWN = 10_000  # queue IDs of our own mail that are remembered
ADDRESSES = 10_000  # clients whose failed logins are counted

Key = tuple[str, str | None, str, str]  # of a problem: kind, list, user while the list is not known, and what
_OF_MAIL: frozenset[type[Any]] = frozenset((Failed, Delayed))  # what becomes of our own mail is no sign


class Alerts:
    """Subscribe it to `Alerts.kinds`; `start` it once the database is open, `close` it before the database is."""

    _log = Logger()
    kinds: tuple[type[Event], ...] = (Accepted, RefusedMore, *SIGNS)

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        *,
        terms: Terms,
        events: Events,
        now: Callable[[], float],
        folded: Folded,
        told: Callable[[], None] | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._terms = terms
        self._events = events
        self._now = now
        self._counted_with = folded
        self._tell_webhook = told
        self._gathered: dict[tuple[str, str | None, str, str], Signs] = {}
        self._different: Counter[tuple[str, str]] = Counter()  # of them by kind and user
        self._complained = False
        self._failure: tuple[str, str, Key | None] = ("", "", None)  # the last message that failed or was put off, the reply, the problem
        self._own: set[str] = set()
        self._own_order: deque[str] = deque()
        self._logins: Counter[str] = Counter()  # failed ones by address
        self._logins_since = clock.seconds()
        self._timer: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None
        self._closed = False

    def start(self) -> Deferred[None]:
        """Learn which queued mail is our own, and look for digests from now on. Fires when that is learned."""
        self._looking = self._clock.callLater(self._pause, self._look)
        return self._database.read(_own_mail).addCallbacks(self._remember, self._failed)

    def close(self) -> Deferred[Any]:
        """Write what is left; fires when it is in the database, or cannot be."""
        self._closed = True
        for call in (self._timer, self._looking):
            if call is not None and call.active():
                call.cancel()
        return self._flush()

    def __call__(self, event: Any) -> None:
        """Take one event."""
        if event.__class__ is Accepted:
            if not event.session:
                self._remember([event.id])
            return
        if event.__class__ in _OF_MAIL and event.id in self._own:
            return
        if event.__class__ is RefusedMore:
            problem = SIGNS[Refused](self._counted_with.like(event))
            if problem is not None:
                self._sign(problem, event.at, event.count)
            return
        problem = SIGNS[type(event)](event)
        if problem is not None and event.__class__ is Bounced and self._failure[0] == event.id:  # stated just before
            problem = self._explained(event, problem)
        if problem is not None:
            self._sign(problem, event.at)
        if event.__class__ in _OF_MAIL:
            self._failure = (event.id, event.reply, _key(problem) if event.__class__ is Failed and problem is not None else None)
        if event.__class__ is Bounced:
            self._remember([event.dsn])
        elif event.__class__ is AuthenticationFailed:
            self._count_login(event)

    @property
    def _pause(self) -> float:
        return min(LOOK, max(self._terms.digest / 4, GATHER))

    def _remember(self, names: list[str]) -> None:
        for name in names:
            if name not in self._own:
                self._own.add(name)
                self._own_order.append(name)
        while len(self._own_order) > OWN:
            self._own.discard(self._own_order.popleft())

    def _count_login(self, event: AuthenticationFailed) -> None:
        host = event.client.rpartition(":")[0]
        if host in self._logins or len(self._logins) < ADDRESSES:
            self._logins[host] += 1
            failed = self._logins[host]
            if failed >= FAILED_LOGINS:
                self._sign(failed_logins(host, failed), event.at, failed if failed == FAILED_LOGINS else 1)

    def _explained(self, event: Bounced, problem: Problem) -> Problem | None:
        """The problem of a notification, with the reply for which it was sent; None if that failure is a problem; it tells of it."""
        _, reply, key = self._failure
        if key is None:
            return msgspec.structs.replace(problem, facts=msgspec.structs.replace(problem.facts, why=reply))
        signs = self._gathered.get(key)
        if signs is not None and signs.problem.facts.reference == event.id:
            facts = signs.problem.facts
            told = msgspec.structs.replace(facts, what=f"{facts.what}, and {event.to} was told")
            signs.problem = msgspec.structs.replace(signs.problem, facts=told)
        return None

    def _sign(self, problem: Problem, at: float, count: int = 1) -> None:
        key = _key(problem)
        signs = self._gathered.get(key)
        if signs is None and self._crowded(problem):
            problem = desk.others(problem)
            if len(self._gathered) >= 2 * LIMIT:
                problem = desk.others(msgspec.structs.replace(problem, list="", user=""))
            key = _key(problem)
            signs = self._gathered.get(key)
        if signs is None:
            self._different[problem.kind, problem.user] += 1
            self._gathered[key] = Signs(problem, count, at, at)
        else:
            signs.count += count
            signs.last_at = max(at, signs.last_at)
        if self._timer is None and not self._closed:
            self._timer = self._clock.callLater(GATHER, self._flush)

    def _crowded(self, problem: Problem) -> bool:
        """Whether another of its kind and user is one too many; each user has room for one."""
        of_user = self._different[problem.kind, problem.user]
        return of_user >= OF_USER or len(self._gathered) >= (LIMIT if of_user else 2 * LIMIT)

    def _flush(self) -> Deferred[Any]:
        self._timer = None
        taken, self._gathered = self._gathered, {}
        self._different.clear()
        if not taken:
            return succeed(None)
        work = partial(desk.record, signs=list(taken.values()), terms=self._terms, now=self._now())
        return self._database.write(work).addCallbacks(self._told, self._lost, errbackArgs=(taken,))

    def _look(self) -> None:
        if self._clock.seconds() - self._logins_since >= max(self._terms.digest, LOOK):
            self._logins.clear()
            self._logins_since = self._clock.seconds()
        work = partial(desk.digests, terms=self._terms, now=self._now())
        self._database.write(work).addCallbacks(self._told, self._failed).addBoth(self._look_again)

    def _look_again(self, _: object) -> None:
        if not self._closed:
            self._looking = self._clock.callLater(self._pause, self._look)

    def _told(self, sent: list[Sent]) -> None:
        """It is committed: say so in the log, and to the webhook, which finds it in the database."""
        self._complained = False
        for each in sent:
            for told in each.told:
                self._events.state(Alerted(self._now(), told.kind, told.list, told.what, told.count, each.to))
        if sent and self._tell_webhook is not None:
            self._tell_webhook()

    def _lost(self, failure: Failure, taken: dict[tuple[str, str | None, str, str], Signs]) -> None:
        self._failed(failure)
        for key, signs in taken.items():
            later = self._gathered.setdefault(key, signs)
            if later is not signs:
                later.count += signs.count
                later.first_at = min(later.first_at, signs.first_at)
        if self._timer is None and not self._closed:
            self._timer = self._clock.callLater(GATHER, self._flush)

    def _failed(self, failure: Failure) -> None:
        if not self._complained:
            self._log.failure("alerts cannot be written or read; it is tried again, and said no more until it succeeds", failure)
        self._complained = True


def _key(problem: Problem) -> Key:
    return problem.kind, problem.list, problem.user if problem.list is None else "", problem.what


def _own_mail(connection: Connection) -> list[str]:
    """Queue IDs of what waits and belongs to no user."""
    query = select(recipients.c.message_id).where(recipients.c.user == "").distinct().limit(OWN)
    return [queue_id(number) for number in connection.scalars(query)]
