"""Counters on a real database, read as Prometheus' own parser reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpplus import events
from smtpplus.observation.folded import Folded
from smtpplus.observation.metrics import DEPTH, Depth, Measures, route_kind
from smtpplus.queue.depth import depth
from smtpplus.storage.database import Database
from smtpplus.storage.engine import migrate

NOW = 1_800_000_000.0
_METRIC = re.compile(r"\b(?:smtpplus|process)_\w+")


def told(connection: Connection) -> Depth:
    """As the daemon tells it."""
    return [(number, level.count, level.held, level.since) for number, level in depth(connection, str, NOW).items()]


class MeasuresTests(TestCase):
    """An observer on a database with two recipients queued at level 3, the older for a minute."""

    @inlineCallbacks
    def setUp(self) -> Any:  # type: ignore[override]  # trial waits for a Deferred
        url = f"sqlite:///{Path(self.mktemp())}/smtpplus.sqlite"
        migrate(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.clock = Clock()
        self.folded = Folded()
        self.measures = Measures(self.database, self.clock, depth=told, now=lambda: NOW, folded=self.folded)
        yield self.queued(60, 30)

    def tearDown(self) -> Any:
        return self.database.stop()

    def queued(self, *ages: float, level: int = 3, due: float = 0, attempts: int = 0) -> Any:
        rows = ", ".join(f"({int((NOW - age) * 1000) << 20}, 0, 'y', {level}, '', {attempts}, {due})" for age in ages)
        insert = f"INSERT INTO recipients (message_id, number, address, level, user, attempts, due) VALUES {rows}"
        return self.database.write(lambda connection: connection.exec_driver_sql(insert))

    @inlineCallbacks
    def values(self) -> Any:
        """Every sample: (name, labels) and its value."""
        text = yield self.measures.read()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    @inlineCallbacks
    def test_what_is_counted(self) -> Any:
        """C9: sessions, refusals by reason, mail by level and kind of route, waits, pauses and commits are on the page."""
        for event in (
            events.Connected(1.0, "s", "c", 25),
            events.Connected(1.0, "t", "c", 25),
            events.Disconnected(1.0, "t", "c", 1, ""),
            events.Refused(1.0, "s", "c", "", "", "", "too_large", "552"),
            events.RefusedMore(1.0, "s", "c", "", 7),
            events.RefusedMore(1.0, "unknown", "c", "", 5),
            events.AuthenticationFailed(1.0, "s", "c", 25, "u", "PLAIN", "wrong_password"),
            events.Accepted(1.0, "i", "s", "c", "u", "x", ("w", "y", "z"), 2, 500, "", ""),
            events.Accepted(1.0, "j", "", "", "", "", ("operator",), 2, 0, "", ""),
            events.Bounced(1.0, "i", "k", "x", "failed"),
            events.Cancelled(1.0, "j", "operator", "me", ""),
            events.Delivered(1.0, "i", "y", "b.com", "p", "250", 1, 0.3, 2),
            events.Delivered(1.0, "i", "z", "smtp://smart:25", "p", "250", 1, 100.0, 2),
            events.Failed(1.0, "i", "w", "b.com", "p", "550", "peer_refused", 1, 2),
            events.Resumed(1.0, "i", "b.com", 2.5, "urgent mail is sent"),
        ):
            if isinstance(event, Folded.kinds):
                self.folded(event)
            self.measures(event)
        found = yield self.values()
        expected = {
            ("smtpplus_sessions_total",): 2,
            ("smtpplus_sessions_open",): 1,
            ("smtpplus_refusals_total", "too_large"): 8,
            ("smtpplus_refusals_total", "(more)"): 5,
            ("smtpplus_failed_logins_total", "wrong_password"): 1,
            ("smtpplus_accepted_total", "2", "client"): 1,
            ("smtpplus_accepted_recipients_total", "2", "client"): 3,
            ("smtpplus_accepted_total", "2", "own"): 2,
            ("smtpplus_accepted_recipients_total", "2", "own"): 2,
            ("smtpplus_cancelled_total",): 1,
            ("smtpplus_accepted_octets_total",): 500,
            ("smtpplus_delivered_total", "2", "mx"): 1,
            ("smtpplus_delivered_total", "2", "smtp"): 1,
            ("smtpplus_failed_total", "2", "mx"): 1,
            ("smtpplus_waited_seconds_bucket", "0.5", "2"): 1,
            ("smtpplus_waited_seconds_bucket", "+Inf", "2"): 2,
            ("smtpplus_waited_seconds_sum", "2"): 100.3,
            ("smtpplus_paused_seconds_total",): 2.5,
            ("smtpplus_queue_recipients", "3"): 2,
            ("smtpplus_queue_oldest_seconds", "3"): 60,
            ("smtpplus_commit_seconds_count",): 1,
        }
        self.assertEqual({key: found[key] for key in expected}, expected)
        self.assertGreater(found["process_resident_memory_bytes",], 0)

    @inlineCallbacks
    def test_the_oldest_is_of_what_may_go(self) -> Any:
        """D1: what is scheduled, put off or held is not starved, and what came due waits since then."""
        yield self.queued(7200, level=5, due=NOW + 60)
        yield self.queued(7000, level=5, due=NOW + 60, attempts=1)
        yield self.queued(6000, level=5, due=NOW - 20)
        yield self.queued(10, level=5)
        yield self.queued(5000, level=4)
        hold = "INSERT INTO rules (kind, value, running, reason, who, created_at, expires_at, keep_expiry) "
        yield self.database.write(lambda connection: connection.exec_driver_sql(f"{hold} VALUES ('level', '4', 'finish', '', '', 1, 0, 0)"))
        found = yield self.values()
        names = ("smtpplus_queue_recipients", "smtpplus_queue_held_recipients", "smtpplus_queue_oldest_seconds")
        self.assertEqual([[found[name, level] for name in names] for level in "345"], [[2, 0, 60], [1, 1, 0], [4, 0, 20]])

    @inlineCallbacks
    def test_the_dashboard_asks_for_what_there_is(self) -> Any:
        """C9: every metric that etc/grafana-smtpplus.json draws is on the page."""
        page = yield self.measures.read()
        families = {
            f"{family.name}{end}" for family in text_string_to_metric_families(page) for end in ("", "_total", "_sum", "_count", "_bucket")
        }
        dashboard = json.loads((Path(events.__file__).parents[1] / "etc" / "grafana-smtpplus.json").read_text())
        asked = {name for panel in dashboard["panels"] for target in panel["targets"] for name in _METRIC.findall(target["expr"])}
        self.assertGreater(len(asked), 20)
        self.assertEqual(asked - families, set())

    @inlineCallbacks
    def test_cardinality_is_bounded(self) -> Any:
        """However many destinations, users and addresses there are, the page has no more lines than with one."""
        self.measures(events.Delivered(1.0, "i", "y", "b.com", "p", "250", 1, 0.3, 2))
        before = len((yield self.values()))
        for number in range(1000):
            self.measures(events.Delivered(1.0, "i", f"{number}@x", f"{number}.com", "p", "250", 1, 0.3, 2))
        self.assertEqual(len((yield self.values())), before)

    @inlineCallbacks
    def test_the_depth_is_asked_for_now_and_then(self) -> Any:
        """Reading the page often does not read the queue often."""
        yield self.values()
        yield self.queued(1, 2, 3)
        self.assertEqual((yield self.values())["smtpplus_queue_recipients", "3"], 2)
        self.clock.advance(DEPTH)
        self.assertEqual((yield self.values())["smtpplus_queue_recipients", "3"], 5)

    @inlineCallbacks
    def test_a_database_that_fails_hides_nothing_else(self) -> Any:
        """Where the queue cannot be read, everything else is on the page all the same."""
        yield self.database.write(lambda connection: connection.exec_driver_sql("DROP TABLE recipients"))
        self.measures(events.Connected(1.0, "s", "c", 25))
        found = yield self.values()
        self.assertEqual((found["smtpplus_sessions_total",], found["smtpplus_queue_recipients", "3"]), (1, 0))

    @inlineCallbacks
    def test_the_lag_is_the_longest_since_the_last_look(self) -> Any:
        """A reactor that was busy shows it once."""
        self.measures.start()
        self.clock.advance(2.0)
        self.assertEqual((yield self.values())["smtpplus_reactor_lag_seconds",], 1.5)
        self.assertEqual((yield self.values())["smtpplus_reactor_lag_seconds",], 0.0)
        self.measures.stop()


def test_route_kind() -> None:
    """A destination is told by the kind of its route alone."""
    kinds = {"b.com": "mx", "[192.0.2.1]": "mx", "[IPv6:2001:db8::1]": "mx", "smtps://u@h:465": "smtps", "maildir:/m": "maildir"}
    assert {destination: route_kind(destination) for destination in kinds} == kinds
