"""What is counted of the daemon for OpenMetrics: plain integers, raised by an observer and read when somebody asks.

Nothing of prometheus-client is touched on a message's path; its types are made when `/metrics` is read. Every label has few values:
reasons are a closed list, levels are five, destinations are told by the kind of their route alone, so that no client can make the
page grow. The queue's depth comes from the database and is asked for at most once in DEPTH seconds, however often the page is read.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from smtpplus import events
from smtpplus.events import Event
from smtpplus.observation.folded import Folded
from smtpplus.storage.database import Database

DEPTH = 5.0  # seconds for which the depth of the queue is good
LAG = 0.5  # seconds between two looks at the reactor's lag
BUCKETS = (0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 86_400.0)  # seconds waited
NOTIFICATIONS = 2  # their level, queue.bounce
_SCHEMES = frozenset(("smtp", "smtps", "maildir", "discard"))
Depth = list[tuple[int, int, int, float | None]]  # level, recipients, those held, since when the one waits that waits longest


@functools.lru_cache(maxsize=4096)
def route_kind(destination: str) -> str:
    """The class of a destination: "mx", or how its route delivers."""
    scheme, colon, _ = destination.partition(":")
    return scheme if colon and scheme in _SCHEMES else "mx"


class Measures(Collector):
    """The counters. Subscribe it to `Measures.kinds`; `start` and `stop` the look at the reactor."""

    kinds: tuple[type[Event], ...] = (
        events.Connected,
        events.Disconnected,
        events.Authenticated,
        events.AuthenticationFailed,
        events.Accepted,
        events.Refused,
        events.RefusedMore,
        events.WouldRefuse,
        events.Started,
        events.Paused,
        events.Resumed,
        events.Delivered,
        events.Deferred,
        events.Failed,
        events.Bounced,
        events.Cancelled,
        events.Fault,
    )

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        *,
        depth: Callable[[Connection], Depth],
        now: Callable[[], float],
        folded: Folded,
    ) -> None:
        self._ask = depth
        self._database = database
        self._clock = clock
        self._now = now
        self._counted_with = folded
        self.counts: Counter[type[Event]] = Counter()
        self.by_reason: dict[type[Event], Counter[str]] = {
            kind: Counter() for kind in (events.Refused, events.AuthenticationFailed, events.WouldRefuse)
        }
        self.accepted = [0] * 6  # messages from clients by level, as are the next
        self.addressed = [0] * 6  # their recipients
        self.own = [0] * 6  # messages that were made here: notifications, alerts, tokens
        self.own_addressed = [0] * 6
        self.octets = 0
        self.outcomes: Counter[tuple[type[Event], int, str]] = Counter()  # by level and kind of route
        self.waited = [[0] * (len(BUCKETS) + 1) for _ in range(6)]
        self.waited_sum = [0.0] * 6
        self.paused_seconds = 0.0
        self.lag = 0.0  # the longest since the page was read last
        self._expected = 0.0
        self._depth: Depth = []
        self._depth_at = float("-inf")
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def start(self) -> None:
        """Watch the reactor."""
        self._expected = self._clock.seconds()
        self._looking.start(LAG)

    def stop(self) -> None:
        """Watch it no more."""
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        now = self._clock.seconds()
        self.lag = max(self.lag, now - self._expected)
        self._expected = now + LAG

    def __call__(self, event: Any) -> None:
        """Count one event."""
        kind = type(event)
        self.counts[kind] += 1
        if kind is events.Accepted:
            (self.accepted if event.session else self.own)[event.level] += 1
            (self.addressed if event.session else self.own_addressed)[event.level] += len(event.recipients)
            self.octets += event.size
        elif kind is events.Bounced:  # nobody states the acceptance of a notification, which is a message to one recipient
            self.own[NOTIFICATIONS] += 1
            self.own_addressed[NOTIFICATIONS] += 1
        elif kind is events.Delivered:
            self.outcomes[kind, event.level, route_kind(event.destination)] += 1
            self.waited[event.level][bisect_left(BUCKETS, event.waited)] += 1
            self.waited_sum[event.level] += event.waited
        elif kind is events.Deferred or kind is events.Failed:
            self.outcomes[kind, event.level, route_kind(event.destination)] += 1
        elif kind in self.by_reason:
            self.by_reason[kind][event.reason] += 1
        elif kind is events.RefusedMore:
            self.by_reason[events.Refused][self._counted_with.like(event).reason or "(more)"] += event.count
        elif kind is events.Resumed:
            self.paused_seconds += event.stopped

    # reading

    def read(self) -> Deferred[str]:
        """The page, as text; the queue's depth is asked for first if it is old."""
        if self._clock.seconds() - self._depth_at < DEPTH:
            return succeed(self._page(self._depth))
        return self._database.read(self._ask).addErrback(lambda _: self._depth).addCallback(self._page)  # the rest is worth showing

    def _page(self, depth: Depth) -> str:
        if depth is not self._depth:
            self._depth, self._depth_at = depth, self._clock.seconds()
        text = generate_latest(self._registry).decode("utf-8")
        self.lag = 0.0
        return text

    def collect(self) -> Iterator[Metric]:
        """What prometheus-client asks for."""
        yield from self._sessions()
        yield from self._mail()
        yield from self._queue()
        writer = self._database.writer
        commits = SummaryMetricFamily("smtpplus_commit_seconds", "Time of group commits", writer.commits, writer.seconds)
        units = CounterMetricFamily("smtpplus_committed_units", "Units of work in group commits", writer.committed)
        lag = GaugeMetricFamily("smtpplus_reactor_lag_seconds", "Longest delay of the reactor since the last look", self.lag)
        faults = CounterMetricFamily("smtpplus_faults", "Faults of ours that were survived", self.counts[events.Fault])
        yield from (commits, units, lag, faults)

    def _sessions(self) -> Iterator[Metric]:
        begun, ended = self.counts[events.Connected], self.counts[events.Disconnected]
        yield CounterMetricFamily("smtpplus_sessions", "Connections of clients", begun)
        yield GaugeMetricFamily("smtpplus_sessions_open", "Connections of clients that are open", begun - ended)
        yield CounterMetricFamily("smtpplus_logins", "Successful logins", self.counts[events.Authenticated])
        for kind, name, text in (
            (events.AuthenticationFailed, "smtpplus_failed_logins", "Failed logins by their true reason"),
            (events.Refused, "smtpplus_refusals", "Refusals by reason"),
            (events.WouldRefuse, "smtpplus_would_refuse", "What alert mode let through, by reason"),
        ):
            family = CounterMetricFamily(name, text, labels=("reason",))
            for reason, count in self.by_reason[kind].items():
                family.add_metric((reason,), count)
            yield family

    def _mail(self) -> Iterator[Metric]:
        for name, text, from_clients, own in (
            ("smtpplus_accepted", "Messages accepted", self.accepted, self.own),
            ("smtpplus_accepted_recipients", "Recipients of messages accepted", self.addressed, self.own_addressed),
        ):
            family = CounterMetricFamily(name, text, labels=("level", "source"))
            for source, values in (("client", from_clients), ("own", own)):
                for level in range(1, 6):
                    family.add_metric((str(level), source), values[level])
            yield family
        yield CounterMetricFamily("smtpplus_accepted_octets", "Octets of messages accepted", self.octets)
        for kind, name, text in (
            (events.Delivered, "smtpplus_delivered", "Recipients delivered"),
            (events.Deferred, "smtpplus_deferred", "Recipients put off, each time"),
            (events.Failed, "smtpplus_failed", "Recipients given up"),
        ):
            family = CounterMetricFamily(name, text, labels=("level", "route"))
            for (outcome, level, route), count in self.outcomes.items():
                if outcome is kind:
                    family.add_metric((str(level), route), count)
            yield family
        yield CounterMetricFamily("smtpplus_cancelled", "Recipients taken out of the queue by hand", self.counts[events.Cancelled])
        waited = HistogramMetricFamily("smtpplus_waited_seconds", "Time from acceptance to delivery", labels=("level",))
        for level in range(1, 6):
            waited.add_metric((str(level),), _buckets(self.waited[level]), self.waited_sum[level])
        yield waited
        yield CounterMetricFamily("smtpplus_attempts", "Attempts begun", self.counts[events.Started])
        yield CounterMetricFamily("smtpplus_notifications", "Delivery status notifications sent", self.counts[events.Bounced])
        yield CounterMetricFamily("smtpplus_pauses", "Stops of running transfers", self.counts[events.Paused])
        yield CounterMetricFamily("smtpplus_paused_seconds", "Time for which running transfers were stopped", self.paused_seconds)

    def _queue(self) -> Iterator[Metric]:
        depth, held, oldest = [0] * 6, [0] * 6, [0.0] * 6
        for level, count, kept, since in self._depth:
            depth[level], held[level] = count, kept
            oldest[level] = 0.0 if since is None else max(0.0, self._now() - since)
        for name, text, values in (
            ("smtpplus_queue_recipients", "Recipients in the queue", depth),
            ("smtpplus_queue_held_recipients", "Recipients that are due and held by a rule", held),
            ("smtpplus_queue_oldest_seconds", "Longest wait of what may go: not held, not scheduled, not put off", oldest),
        ):
            yield _by_level(GaugeMetricFamily(name, text, labels=("level",)), values)


def _by_level(family: Any, values: Sequence[float]) -> Metric:
    for level in range(1, 6):
        family.add_metric((str(level),), values[level])
    metric: Metric = family
    return metric


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulated, as histograms are told."""
    total = 0
    told: list[tuple[str, float]] = []
    for limit, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
        total += count
        told.append((limit, total))
    return told
