"""The queue put together: the one place that knows which of its rooms needs which."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from smtpplus.config import Configuration
from smtpplus.events import Events
from smtpplus.mail.disposition import DeliveryAgent
from smtpplus.mail.envelope import Content, Envelope
from smtpplus.queue.bounce import Notifier
from smtpplus.queue.entry import EnvelopeIds
from smtpplus.queue.outbox import Outbox
from smtpplus.queue.preemption import Preemption
from smtpplus.queue.ready import Ready
from smtpplus.queue.scheduler import Scheduler
from smtpplus.queue.settlement import Settlement
from smtpplus.queue.spool import Spool
from smtpplus.queue.standing import Report
from smtpplus.queue.watch import Watch
from smtpplus.storage.database import Database

CACHE = 64 * 1024 * 1024  # octets of content just accepted that are kept in memory


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
        self.report.start()
        return self.watch.start().addCallback(lambda _: self.scheduler.start())

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
) -> Queue:
    """A queue over `database` that sends by `agent`. `destination` says for a domain what groups it; `process` goes into ids."""
    levels = frozenset(configuration.priority.preempting_levels)
    delivery, settings = configuration.delivery, configuration.queue
    new_id = EnvelopeIds(process, now)

    def arrived(envelope: Envelope, content: Content) -> None:
        scheduler.accepted(envelope, content)

    spool = Spool(database, arrived, cache=CACHE)
    settlement = Settlement(
        database=database,
        spool=spool,
        notifier=Notifier(configuration.hostname, new_id, now),
        warn_after=settings.warn_after,
        lifetime=settings.lifetime,
        new_id=new_id,
        clock=clock,
        now=now,
        events=events,
    )
    scheduler = Scheduler(
        database=database,
        spool=spool,
        agent=agent,
        destination=destination,
        ready=Ready(
            delivery.per_destination,
            delivery.reserved_for_preempting,
            levels,
            initial=delivery.initial_per_destination,
            aging=configuration.priority.aging,
            now=now,
        ),
        preemption=Preemption(levels=levels, max_pause=configuration.priority.max_pause, clock=clock, now=now, events=events),
        settlement=settlement,
        schedule=settings.retry,
        connections=delivery.connections,
        reserved=delivery.reserved_for_preempting,
        clock=clock,
        now=now,
        events=events,
    )
    outbox = Outbox(database=database, spool=spool, new_id=new_id, clock=clock, now=now, events=events)
    watch = Watch(database=database, scheduler=scheduler, lifetime=settings.lifetime, clock=clock, now=now, events=events)
    report = Report(database=database, standing=scheduler.standing, clock=clock, now=now)
    return Queue(spool, scheduler, new_id, outbox, watch, report)
