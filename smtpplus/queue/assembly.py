"""The queue put together: the one place that knows which of its rooms needs which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec
from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from smtpplus.config import Configuration, Limits, values
from smtpplus.events import Events
from smtpplus.mail.disposition import DeliveryAgent
from smtpplus.queue.bounce import Notifier
from smtpplus.queue.entry import EnvelopeIds
from smtpplus.queue.outbox import Outbox
from smtpplus.queue.preemption import Preemption
from smtpplus.queue.rates import DAY, MINUTE, Rates, Terms, Unit, limits
from smtpplus.queue.ready import Ready
from smtpplus.queue.scheduler import Promptly, Scheduler
from smtpplus.queue.settlement import Settlement
from smtpplus.queue.spool import Spool
from smtpplus.queue.standing import Counts, Report
from smtpplus.queue.watch import Watch
from smtpplus.storage.database import Database

CACHE = 64 * 1024 * 1024  # octets of content just accepted that are kept in memory
Allowance = tuple[tuple[int, float, Unit], ...]  # amounts, seconds and units


class Allowances(Protocol):
    """What users and lists may send; see rates.Terms."""

    @property
    def everybody(self) -> Allowance: ...
    @property
    def users(self) -> Mapping[str, Allowance]: ...
    @property
    def lists(self) -> Mapping[str, Allowance]: ...
    @property
    def every_list(self) -> Allowance: ...
    @property
    def sums(self) -> Mapping[str, Allowance]: ...


class Queue(msgspec.Struct, frozen=True):
    """What the floors above use of the queue."""

    spool: Spool
    scheduler: Scheduler
    new_id: EnvelopeIds
    outbox: Outbox
    watch: Watch
    report: Report

    def start(self) -> Deferred[int]:
        """Put the rules in force, then line up what the database holds. Fires with the number of recipients found."""
        started = self.spool.newest().addCallback(self.new_id.beyond).addCallback(lambda _: self.report.start())
        return started.addCallback(lambda _: self.watch.start()).addCallback(lambda _: self.scheduler.start())

    def stop(self, grace: float) -> Deferred[None]:
        """See Scheduler.stop."""
        return self.watch.stop().addCallback(lambda _: self.scheduler.stop(grace)).addCallback(lambda _: self.report.stop())


def assemble(
    *,
    configuration: Configuration,
    database: Database,
    agent: DeliveryAgent,
    destination: Callable[[str], str],
    clock: IReactorTime,
    now: Callable[[], float],
    process: int,
    events: Events,
    allowances: Callable[[Connection], Allowances] | None = None,
    counts: Mapping[str, Counts] | None = None,
    promptly: Promptly | None = None,
) -> Queue:
    """A queue over `database` that sends by `agent`. `destination` says for a domain what groups it; `process` goes into ids.

    Without `allowances` the limits are those of the configuration. `counts` are kept over restarts, by name. `promptly` is that of
    right_of_way; without it urgent mail takes its turn.
    """
    levels = frozenset(configuration.priority.preempting_levels)
    delivery, settings = configuration.delivery, configuration.queue
    new_id = EnvelopeIds(process, now)

    spool = Spool(database, cache=CACHE, clock=clock)
    settlement = _settlement(configuration, database, spool, new_id=new_id, clock=clock, now=now, events=events)
    terms = _plain(configuration.limits)
    rates = Rates(terms, limits(delivery.rate))
    scheduler = Scheduler(
        database=database,
        spool=spool,
        agent=agent,
        destination=destination,
        ready=_ready(configuration, levels, now),
        preemption=Preemption(levels=levels, max_pause=configuration.priority.max_pause, clock=clock, now=now, events=events),
        settlement=settlement,
        rates=rates,
        schedule=settings.retry,
        connections=delivery.connections,
        reserved=delivery.reserved_for_preempting,
        promptly=promptly or partial(clock.callLater, 0),
        clock=clock,
        now=now,
        events=events,
    )
    spool.arrivals = scheduler
    outbox = Outbox(database=database, spool=spool, new_id=new_id, clock=clock, now=now, events=events)
    told = (lambda connection: terms) if allowances is None else (lambda connection: _terms(allowances(connection)))
    watch = Watch(database=database, scheduler=scheduler, terms=told, lifetime=settings.lifetime, clock=clock, now=now, events=events)
    report = Report(database=database, standing=scheduler.standing, counts={"rates": rates, **(counts or {})}, clock=clock, now=now)
    return Queue(spool, scheduler, new_id, outbox, watch, report)


def _settlement(
    configuration: Configuration,
    database: Database,
    spool: Spool,
    *,
    new_id: EnvelopeIds,
    clock: IReactorTime,
    now: Callable[[], float],
    events: Events,
) -> Settlement:
    return Settlement(
        database=database,
        spool=spool,
        notifier=Notifier(configuration.hostname, new_id, now, configuration.queue.postmaster),
        warn_after=configuration.queue.warn_after,
        lifetime=configuration.queue.lifetime,
        new_id=new_id,
        clock=clock,
        now=now,
        events=events,
    )


def _ready(configuration: Configuration, levels: frozenset[int], now: Callable[[], float]) -> Ready:
    delivery = configuration.delivery
    return Ready(
        delivery.per_destination,
        delivery.reserved_for_preempting,
        levels,
        initial=delivery.initial_per_destination,
        aging=configuration.priority.aging,
        now=now,
    )


def _plain(settings: Limits) -> Terms:
    own: Allowance = ((settings.rate, MINUTE, "recipients"), (settings.quota, DAY, "recipients"), *values.rates(settings.per_user))
    return Terms(limits(own), every_list=limits(values.rates(settings.per_list)))


def _terms(found: Allowances) -> Terms:
    users, lists, sums = ({name: limits(each) for name, each in some.items()} for some in (found.users, found.lists, found.sums))
    return Terms(limits(found.everybody), users, lists, limits(found.every_list), sums)
