"""The alert centre on a real database: one alert for a problem, exact counts in the digest, settings by list and kind, and bounds."""

from __future__ import annotations

import email
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, insert, select
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from smtpplus import events
from smtpplus.mail.reasons import REASONS
from smtpplus.observation import desk
from smtpplus.observation.alerts import GATHER, LIMIT, Alerts
from smtpplus.observation.desk import AT_ONCE, DIFFERENT, OTHERS, QUIET, Terms
from smtpplus.observation.folded import Folded
from smtpplus.observation.problems import MODES, SIGNS, advice, all_kinds, command, default_mode
from smtpplus.storage import schema
from smtpplus.storage.database import Database
from smtpplus.storage.engine import migrate

NOW = 1_800_000_000.0
DIGEST = 3600.0


def refused(sender: str = "x@b.com", user: str = "app", reason: str = "domain_not_authorized") -> events.Refused:
    return events.Refused(NOW, "s", "192.0.2.1:5", user, sender, "", reason, "550 5.7.1 The sender is not authorized", "1M802096Y7G00")


class AlertTests(TestCase):
    """A centre whose outbox is a list; the user app is of the list news."""

    def setUp(self) -> Any:
        url = f"sqlite:///{Path(self.mktemp())}/smtpplus.sqlite"
        migrate(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.posted: list[tuple[Any, tuple[str, ...]]] = []
        self.looks = 0
        self.open()
        user = {"name": "app", "list": "news", "password": "", "created_at": 0.0, "changed_at": 0.0}
        return self.database.write(lambda connection: connection.execute(insert(schema.users).values(user)) and None)

    def open(self, digest: float = DIGEST) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        bus = events.Events()
        self.stated: list[events.Event] = []
        bus.subscribe(self.stated.append)
        numbers = iter(range(100_000))
        terms = Terms("mail.a.com", "smtpplus@mail.a.com", ("op@a.com",), digest, self.post, lambda: str(next(numbers)), True)
        folded = Folded()
        bus.subscribe(folded, *Folded.kinds)
        self.alerts = Alerts(self.database, self.clock, terms=terms, events=bus, now=self.clock.seconds, folded=folded, told=self.look)
        bus.subscribe(self.alerts, *Alerts.kinds)
        self.bus = bus

    def look(self) -> None:
        self.looks += 1

    def post(self, connection: Connection, content: bytes, to: Any) -> None:
        assert connection.in_transaction()
        self.posted.append((email.message_from_bytes(content), tuple(to)))

    def tearDown(self) -> Any:
        return self.database.stop()

    @inlineCallbacks
    def pass_by(self, seconds: float = GATHER) -> Any:
        """Let time pass, and the writer do what follows."""
        self.clock.advance(seconds)
        for _ in range(3):
            yield self.database.write(lambda _: None)

    def configure(self, *settings: tuple[str, str, str]) -> Any:
        def work(connection: Connection) -> None:
            for each in settings:
                desk.configure(connection, *each)

        return self.database.write(work)

    def subjects(self) -> list[str]:
        return [message["Subject"] for message, _ in self.posted]

    @inlineCallbacks
    def test_a_storm_is_one_alert_and_one_digest(self) -> Any:
        """B6: ten thousand equal refusals, in several seconds, are one alert and one digest with the exact count, by mail and owed to the
        webhook; then silence."""
        self.alerts.start()
        for _ in range(4):
            for _ in range(2500):
                self.bus.state(refused())
            yield self.pass_by()
        self.assertEqual(self.subjects(), ["[mail.a.com] domain not authorized: mail from x@b.com was refused"])
        message, to = self.posted[0]
        text = message.get_payload(decode=True).decode()
        self.assertEqual((to, message["Auto-Submitted"], message["X-Priority"]), (("op@a.com",), "auto-generated", "2"))
        for line in (
            "List:    news",
            "Who:     user app at 192.0.2.1",
            "Why:     550 5.7.1 The sender is not authorized",
            "Remedy:  smtpplus sender add --verify app b.com",
            "More:    smtpplus explain 1M802096Y7G00",
        ):
            self.assertIn(line, text)
        yield self.pass_by(DIGEST)
        self.assertEqual(len(self.posted), 2)
        digest = self.posted[1][0]
        self.assertEqual(digest["Subject"], "[mail.a.com] 9999 more: domain not authorized: mail from x@b.com was refused")
        self.assertIn("9999 times since the last report, 10000 in all", digest.get_payload(decode=True).decode())
        yield self.pass_by(DIGEST)
        yield self.pass_by(DIGEST)
        self.assertEqual(len(self.posted), 2)
        told = [event for event in self.stated if isinstance(event, events.Alerted)]
        self.assertEqual(
            [(event.kind, event.list, event.count) for event in told], [("domain_not_authorized", "news", n) for n in (1, 9999)]
        )
        query = select(schema.webhook_posts.c.body).order_by(schema.webhook_posts.c.id)
        bodies = yield self.database.read(lambda connection: connection.scalars(query).all())
        owed = [json.loads(body) for body in bodies]
        self.assertEqual([(each["type"], each["problems"][0]["count"]) for each in owed], [("alert", 1), ("digest", 9999)])
        self.assertEqual((self.looks, len({each["id"] for each in owed})), (2, 2))
        yield self.alerts.close()

    @inlineCallbacks
    def test_what_a_session_only_counts_is_counted(self) -> Any:
        """B6: refusals that a session states as a number count with the last one that it stated: one alert, one digest, exact."""
        self.alerts.start()
        self.bus.state(refused())
        self.bus.state(events.RefusedMore(NOW, "s", "192.0.2.1:5", "app", 9_999))
        yield self.pass_by()
        yield self.pass_by(DIGEST)
        self.assertEqual(len(self.posted), 2)
        self.assertIn("9999 more: domain not authorized", self.subjects()[1])
        yield self.alerts.close()

    @inlineCallbacks
    def test_a_problem_that_rested_is_new_again(self) -> Any:
        """What was quiet for a day is forgotten, and told at once when it comes again."""
        self.alerts.start()
        self.bus.state(refused())
        yield self.pass_by()
        for _ in range(int(QUIET / DIGEST) + 2):
            yield self.pass_by(DIGEST)
        self.bus.state(refused())
        yield self.pass_by()
        self.assertEqual(len(self.posted), 2)
        yield self.alerts.close()

    @inlineCallbacks
    def test_settings_by_list_and_kind(self) -> Any:
        """B6: off, at once or in the digest, and to whom, for the server, a list, a kind; the list's word comes first."""
        yield self.configure(("", "*", "off"), ("news", "domain_not_authorized", "digest"))
        settings = '{"alerts":["news@a.com","boss@a.com"]}'
        facts = {"name": "news", "settings": settings, "created_at": 0.0, "changed_at": 0.0}
        yield self.database.write(lambda connection: connection.execute(insert(schema.lists).values(facts)) and None)
        self.alerts.start()
        self.bus.state(refused())
        self.bus.state(refused(reason="sender_pending"))
        self.bus.state(refused(user="stranger"))
        yield self.pass_by()
        self.assertEqual(self.posted, [])
        yield self.pass_by(DIGEST)
        self.assertEqual([to for _, to in self.posted], [("news@a.com", "boss@a.com")])
        self.assertIn("1 more: domain not authorized", self.subjects()[0])
        yield self.configure(("", "*", "inherit"), ("news", "domain_not_authorized", "now"))
        self.bus.state(refused("new@b.com"))
        yield self.pass_by()
        self.assertEqual(len(self.posted), 2)
        yield self.alerts.close()

    @inlineCallbacks
    def test_a_bounce_is_told_with_its_reason(self) -> Any:
        """B6: mail that failed for good, and of which its sender was told, is one problem: that of the reason, which tells of the notice.
        Only a notice whose reason is not known is one by itself; its remedy does not repeat where to read more."""
        yield self.configure(("", "peer_refused", "now"), ("", "bounce", "now"), ("", "delay", "now"))
        self.bus.state(events.Failed(NOW, "ID", "y@b.com", "b.com", "mx", "550 5.1.1 nobody there", "peer_refused", 1, 3, "app", "news"))
        self.bus.state(events.Bounced(NOW, "ID", "DSN", "x@a.com", "failed", "app", "news"))
        yield self.pass_by()
        self.assertEqual(len(self.posted), 1)
        text = self.posted[0][0].get_payload(decode=True).decode()
        for line in ("What:    mail to y@b.com failed for good, and x@a.com was told", "Why:     550 5.1.1 nobody there"):
            self.assertIn(line, text)
        self.bus.state(events.Bounced(NOW, "ID2", "DSN", "x2@a.com", "failed", "app", "news"))
        self.bus.state(events.Deferred(NOW, "ID3", "y@b.com", "b.com", "mx", "451 4.2.0 later", "peer_deferred", 9, NOW + 60))
        self.bus.state(events.Bounced(NOW, "ID3", "DSN", "x@a.com", "delayed", "app", "news"))
        yield self.pass_by()
        texts = [message.get_payload(decode=True).decode() for message, _ in self.posted[1:]]
        self.assertEqual([text.count("smtpplus explain") for text in texts], [1, 1])
        self.assertNotIn("nobody there", texts[0])
        self.assertIn("Why:     451 4.2.0 later", texts[1])
        yield self.alerts.close()

    @inlineCallbacks
    def test_what_puts_mail_off_is_a_problem_of_its_destination(self) -> Any:
        """B6: every reason for which mail waits can be alerted about. A next hop that does not take our password is told at once, once
        for all mail that waits for it; what mostly passes by itself is off unless somebody wants it."""
        for number in range(50):
            for place in ("smtp://smart:25", "other.com"):
                self.bus.state(events.Deferred(NOW, str(number), "y@b.com", place, "", "454 4.7.0 no", "peer_login_failed", 1, NOW + 60))
            self.bus.state(events.Deferred(NOW, str(number), "y@b.com", "b.com", "mx", "451 4.2.0 later", "peer_deferred", 1, NOW + 60))
        yield self.pass_by()
        self.assertEqual(
            self.subjects(), [f"[mail.a.com] peer login failed: mail to {place} is put off" for place in ("smtp://smart:25", "other.com")]
        )
        yield self.configure(("", "peer_deferred", "now"))
        self.bus.state(events.Deferred(NOW, "1", "y@b.com", "b.com", "mx", "451 4.2.0 later", "peer_deferred", 1, NOW + 60))
        yield self.pass_by()
        self.assertEqual(self.subjects()[2:], ["[mail.a.com] peer deferred: mail to b.com is put off"])
        yield self.alerts.close()

    @inlineCallbacks
    def test_without_digest_each_is_told(self) -> Any:
        """`digest = "0s"` tells every second's signs at once."""
        self.open(digest=0.0)
        for _ in range(3):
            self.bus.state(refused())
            yield self.pass_by()
        self.assertEqual(len(self.posted), 3)

    @inlineCallbacks
    def test_alerts_never_alert_about_themselves(self) -> Any:
        """B6: mail of our own that fails is no sign, an alert or a notification, whether it was accepted now or before the start; a user's
        is."""
        number = int(NOW * 1000) << 20
        row = {"message_id": number, "number": 0, "address": "op@a.com", "level": 2, "user": "", "attempts": 1, "due": 0.0}
        yield self.database.write(lambda connection: connection.execute(insert(schema.recipients).values(row)) and None)
        yield self.alerts.start()
        mine = events.Accepted(NOW, "OWN", "", "", "", "", ("op@a.com",), 2, 5, "<alert.1@mail.a.com>", "")
        self.bus.state(mine)
        for name in ("OWN", "1M80000000000", "OTHER"):
            self.bus.state(events.Failed(NOW, name, "op@a.com", "a.com", "", "550 no", "expired", 3, 2, "", ""))
        self.bus.state(events.Bounced(NOW, "OTHER", "DSN", "x@a.com", "delivered", "app", "news"))
        self.bus.state(events.Failed(NOW, "DSN", "x@a.com", "a.com", "", "550 no", "peer_refused", 1, 2, "", ""))
        self.bus.state(events.Deferred(NOW, "OWN", "op@a.com", "a.com", "", "454 no", "peer_login_failed", 3, NOW + 60, 2))
        from smtpplus.mail.envelope import queue_id

        self.bus.state(events.Failed(NOW, queue_id(number), "op@a.com", "a.com", "", "550 no", "expired", 3, 2, "", ""))
        yield self.pass_by()
        found = yield self.database.read(lambda connection: connection.execute(select(schema.problems.c["count"])).all())
        self.assertEqual([row[0] for row in found], [2])
        yield self.alerts.close()

    @inlineCallbacks
    def test_different_ones_are_bounded(self) -> Any:
        """A storm of different problems fills neither memory nor the database: what is beyond the bound is one problem, counted."""
        for number in range(LIMIT + 500):
            self.bus.state(refused(f"{number}@b.com", reason="peer_refused"))
        yield self.pass_by()
        p = schema.problems.c
        found = yield self.database.read(
            lambda connection: connection.execute(select(p.what, p["count"]).order_by(p["count"].desc())).all()
        )
        self.assertLessEqual(len(found), DIFFERENT + 2)
        self.assertEqual(sum(row[1] for row in found), LIMIT + 500)
        self.assertEqual(found[0][0], f"{OTHERS} app")

    @inlineCallbacks
    def test_a_storm_of_one_user_hides_no_other(self) -> Any:
        """B6: thousands of different refusals of one user are AT_ONCE alerts and a digest; another user of the list, in the same second
        and later, has an alert of his own; what is beyond the bound is told of its user."""
        other = {"name": "zed", "list": "news", "password": "", "created_at": 0.0, "changed_at": 0.0}
        yield self.database.write(lambda connection: connection.execute(insert(schema.users).values(other)) and None)
        for number in range(3_000):
            self.bus.state(refused(f"{number}@b.com"))
        self.bus.state(refused("early@b.com", "zed"))
        yield self.pass_by()
        for second in range(3):
            for number in range(100):
                self.bus.state(refused(f"{second}.{number}@c.com"))
            yield self.pass_by()
        self.bus.state(refused("late@b.com", "zed"))
        yield self.pass_by()
        self.assertEqual(len(self.posted), AT_ONCE + 2)
        self.assertEqual([sum(f"from {each}@b.com" in one for one in self.subjects()) for each in ("early", "late")], [1, 1])
        p = schema.problems.c
        query = select(p.what, p["count"], p.facts).where(p.list == "news")
        found = {row.what: row for row in (yield self.database.read(lambda connection: connection.execute(query).all()))}
        self.assertLessEqual(len(found), DIFFERENT + 3)
        self.assertEqual(sum(row[1] for row in found.values()), 3_302)
        self.assertEqual(json.loads(found[f"{OTHERS} app"].facts)["user"], "app")
        self.assertNotIn(f"{OTHERS} zed", found)

    @inlineCallbacks
    def test_many_failed_logins_are_a_problem(self) -> Any:
        """Failed logins from one address, of whatever users, are told with their number once there are many."""
        for number in range(30):
            self.bus.state(events.AuthenticationFailed(NOW, "s", f"192.0.2.9:{number}", 25, f"u{number}", "PLAIN", "unknown_user", ""))
        yield self.pass_by()
        self.assertEqual(self.subjects(), ["[mail.a.com] failed logins: 20 logins failed, or more by now"])
        p = schema.problems.c
        query = select(p["count"]).where(p.kind == "failed_logins")
        self.assertEqual((yield self.database.read(lambda connection: connection.scalars(query).all())), [30])
        query = select(p.what, p["count"]).where(p.kind == "unknown_user")
        found = yield self.database.read(lambda connection: connection.execute(query).all())
        self.assertEqual([tuple(row) for row in found], [("at 192.0.2.9", 30)])

    @inlineCallbacks
    def test_a_fault_of_the_database_loses_nothing(self) -> Any:
        """Signs that could not be written are counted with the next; the log complains once, however long it lasts."""
        yield self.database.write(lambda connection: connection.exec_driver_sql("ALTER TABLE problems RENAME TO elsewhere") and None)
        self.bus.state(refused())
        with capturedLogs() as said:
            for _ in range(3):
                yield self.pass_by()
        self.assertEqual(sum(each["log_namespace"] == "smtpplus.observation.alerts.Alerts" for each in said), 1)
        self.flushLoggedErrors()
        yield self.database.write(lambda connection: connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO problems") and None)
        self.bus.state(refused())
        yield self.pass_by()
        found = yield self.database.read(lambda connection: connection.scalars(select(schema.problems.c["count"])).all())
        self.assertEqual(found, [2])


def test_every_reason_is_a_kind_with_a_mode() -> None:
    """B6, B8: each reason of the closed list but success can be alerted about, and so can what is the server's own."""
    assert set(REASONS) - {"delivered"} < set(all_kinds())
    assert {"bounce", "delay", "failed_logins", "queue_growing", "disk_filling", "certificate_expiring", "port_taken"} < set(all_kinds())
    assert all(meaning for meaning in all_kinds().values())
    assert all(default_mode(kind) in MODES for kind in all_kinds())
    assert (default_mode("syntax"), default_mode("domain_not_authorized"), default_mode("peer_refused")) == ("off", "now", "digest")


@pytest.mark.parametrize("kind", list(SIGNS))
def test_every_sign_says_who_what_why(kind: Any) -> None:
    """B6: whatever event raises an alert, it has who, what and why."""
    samples: dict[str, Any] = {"at": 1.0, "attempt": 1, "level": 3, "port": 25}
    named = {"reason": "peer_refused", "kind": "failed" if kind is events.Bounced else "disk_filling", "client": "192.0.2.1:5"}
    event = kind(**{field: samples.get(field, named.get(field, field)) for field in kind.__struct_fields__})
    problem = SIGNS[kind](event)
    assert problem is not None
    assert all(msgspec.structs.asdict(problem.facts)[field] for field in ("who", "what", "why"))
    assert problem.kind in all_kinds()


def test_the_remedy_is_about_the_address_that_is_refused() -> None:
    """A13, B3, D3: where an address of the header is refused, the remedy is Reply-To, or that address alone; never the domain of the
    envelope, which is authorized, nor that of a stranger. A shell takes nothing in it for its own."""
    stranger = 'x;reboot@"y".net'
    reply = str(REASONS["domain_not_authorized"].reply(where="header field From", address=stranger, domain="net", user="app"))
    event = events.Refused(NOW, "s", "192.0.2.1:5", "app", "ok@a.com", "", "domain_not_authorized", reply, "1M802096Y7G00")
    problem = SIGNS[events.Refused](event)
    assert problem is not None
    assert f"From {stranger} was refused" in problem.facts.what
    assert "Reply-To" in problem.facts.remedy
    assert problem.facts.remedy.endswith(f"smtpplus sender add --verify app '{stranger}'")
    assert command("domain_not_authorized", "app", "x@b.com", "550 5.7.1 The envelope sender x@b.com is not authorized") == (
        "smtpplus sender add --verify app b.com"
    )
    assert (command("domain_not_authorized", "", "x@b.com"), advice("near_domain", reply)) == ("", "")
