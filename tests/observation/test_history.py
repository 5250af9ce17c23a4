"""The history on a real database with its real writer: few rows, nothing lost, bounded."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpplus import events
from smtpplus.events import (
    Accepted,
    AuthenticationFailed,
    Bounced,
    Deferred,
    Delivered,
    Disconnected,
    Event,
    Paused,
    Refused,
    RefusedMore,
    Started,
    WouldRefuse,
)
from smtpplus.mail.envelope import parse_queue_id, queue_id
from smtpplus.observation import marks, record, story
from smtpplus.observation.folded import Folded
from smtpplus.observation.history import DIFFERENT, GATHER, PAGE, SEPARATE, History
from smtpplus.storage.database import Database
from smtpplus.storage.engine import migrate

NOW = 1_800_000_000.0
DAY = 86_400.0


def name(number: int, at: float = NOW) -> str:
    return queue_id((int(at * 1000) << 20) + number)


def accepted(number: int, at: float = NOW, **more: Any) -> Accepted:
    return Accepted(at, name(number, at), "s", "192.0.2.1:5", "app", "x@a.com", ("y@b.com",), 3, 4096, "<1@a.com>", "Hello", **more)


def delivered(number: int, at: float = NOW) -> Delivered:
    return Delivered(at, name(number), "y@b.com", "b.com", "mx.b.com[192.0.2.2]:25", "250 2.0.0 ok", 1, 0.1)


def started(number: int, at: float = NOW) -> Started:
    return Started(at, name(number), "b.com", ("y@b.com",), 1, 3)


def refused(number: int, sender: str = "x@b.com", client: str = "192.0.2.1:5") -> Refused:
    return Refused(NOW, "s", client, "app", sender, "", "domain_not_authorized", "550 5.7.1 no", name(number))


class HistoryTests(TestCase):
    """An observer on a database."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "smtpplus.sqlite"
        url = f"sqlite:///{self.path}"
        migrate(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.clock = Clock()
        self.now = NOW
        numbers = itertools.count((int(NOW * 1000) << 20) + 500_000)
        self.folded = Folded()
        self.history = History(
            self.database, self.clock, kept=7 * DAY, now=lambda: self.now, new_id=lambda: next(numbers), folded=self.folded
        )

    def tearDown(self) -> Any:
        return self.database.stop()

    def rows(self, query: str) -> list[Any]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    @inlineCallbacks
    def write(self, *stated: Event) -> Any:
        """State events, let a batch pass, and wait for the writer."""
        for event in stated:
            if isinstance(event, Folded.kinds):
                self.folded(event)
            if isinstance(event, History.kinds):
                self.history(event)
        self.now += GATHER
        self.clock.advance(GATHER)
        yield self.database.write(lambda _: None)  # the writer takes work in order

    @inlineCallbacks
    def test_a_life_within_a_batch_is_one_row(self) -> Any:
        """Cost: a thousand messages accepted, started and delivered at once are a thousand rows in one unit of work, and no more."""
        stated: list[Event] = []
        for number in range(1000):
            stated += [accepted(number, list="news", campaign="spring"), started(number), delivered(number)]
        yield self.write(*stated)
        self.assertEqual(self.database.writer.committed, 2)  # it, and the one of `write`
        self.assertEqual(self.rows("SELECT count(*) FROM history_steps"), [(0,)])
        found = self.rows('SELECT "user", list, sender, recipients, level, size, subject, campaign, story FROM history ORDER BY id')
        self.assertEqual(len(found), 1000)
        self.assertEqual(found[7][:8], ("app", "news", "x@a.com", '["y@b.com"]', 3, 4096, "Hello", "spring"))
        self.assertEqual(story.decode(name(7), [found[7][8]]), [delivered(7)])

    @inlineCallbacks
    def test_what_happens_later_is_one_row_per_batch(self) -> Any:
        """B6, D3: pauses, deferrals and the rest are kept in their order; an attempt of more than a second is told when it starts."""
        later = [
            Paused(NOW + 1.5, name(1), "b.com", "URGENT"),
            Deferred(NOW + 2, name(1), "y@b.com", "b.com", "", "451 4.4.1 no", "x", 1, NOW + 60),
        ]
        yield self.write(accepted(1), started(1))
        self.assertEqual(self.rows("SELECT count(*), max(story) FROM history"), [(1, "")])
        self.now = NOW + 1
        yield self.write()
        yield self.write(*later)
        told = [row[0] for row in self.rows("SELECT story FROM history_steps ORDER BY number")]
        self.assertEqual(len(told), 2)
        self.assertEqual(story.decode(name(1), told), [started(1), *later])

    @inlineCallbacks
    def test_what_alert_mode_let_through_is_told(self) -> Any:
        """A19: that a message was let through though its sender is not authorized belongs to its story, and to no other's."""
        let_through = WouldRefuse(NOW, "s", "192.0.2.1:5", "app", "x@b.com", "domain_not_authorized", "550 5.7.1 no")
        yield self.write(let_through, accepted(1), accepted(2))
        told = [story.decode("", [row[0]]) for row in self.rows("SELECT story FROM history ORDER BY id")]
        self.assertEqual(told, [[let_through], []])

    @inlineCallbacks
    def test_urgent_mail_that_was_on_its_way_is_found(self) -> Any:
        """D3: of the mail of some levels, that is found which was attempted in a span of time, or before it and had not ended; what only
        waited, as it was held or over its rate, was not on its way."""
        told: list[Event] = [msgspec.structs.replace(accepted(number, NOW - 20 + number), level=1) for number in range(5)]
        told.append(accepted(9, NOW - 18))
        told.append(Delivered(NOW - 19.5, told[0].id, "y@b.com", "b.com", "", "250", 1, 0.1, 1))  # type: ignore[attr-defined]  # all have an id
        told.append(Delivered(NOW - 17.5, told[1].id, "y@b.com", "b.com", "", "250", 1, 0.1, 1))  # type: ignore[attr-defined]  # all have an id
        told.append(Started(NOW - 17, told[2].id, "b.com", ("y@b.com",), 1, 1))  # type: ignore[attr-defined]  # all have an id
        yield self.write(*told)
        found = yield self.database.read(lambda connection: record.urgent(connection, [1, 2], NOW - 18.5, NOW - 16.5))
        self.assertEqual(found, [name(number, NOW - 20 + number) for number in (1, 2)])

    @inlineCallbacks
    def test_a_notification_has_a_row_of_its_own(self) -> Any:
        """A bounce is found under its own id too, and names the message that it is about. Mail of our own is of no list."""
        yield self.write(msgspec.structs.replace(accepted(4), user="", session=""), accepted(5))
        self.assertEqual(self.rows("SELECT list FROM history ORDER BY id"), [("",), ("default",)])
        yield self.database.write(lambda connection: connection.exec_driver_sql("DELETE FROM history") and None)
        yield self.write(Bounced(NOW, name(1), name(2), "x@a.com", "failed"))
        self.assertEqual(
            self.rows("SELECT id, recipients, subject FROM history"),
            [(parse_queue_id(name(2)), '["x@a.com"]', f"Delivery status notification (failed) for {name(1)}")],
        )

    @inlineCallbacks
    def test_refusals_are_kept_under_their_reference(self) -> Any:
        """D3: a refusal and a failed login with its true reason are found by the reference in the reply. One without is kept for its
        user, but not that a connection was idle, nor how strangers speak."""
        login = AuthenticationFailed(NOW, "s", "192.0.2.1:5", 587, "app", "PLAIN", "wrong_password", name(2))
        unnamed = [
            Refused(NOW, "s", "c:1", user, "", "", reason, "4") for user in ("", "app") for reason in ("idle", "too_many_recipients")
        ]
        yield self.write(refused(1), login, *unnamed, unnamed[-1])
        self.assertEqual(
            self.rows('SELECT id, "user", sender, reason, reply, count FROM refusals ORDER BY id'),
            [
                (parse_queue_id(name(1)), "app", "x@b.com", "domain_not_authorized", "550 5.7.1 no", 1),
                (parse_queue_id(name(2)), "app", "", "wrong_password", "PLAIN on port 587", 1),
                (parse_queue_id(name(500_000)), "app", "", "too_many_recipients", "4", 2),
            ],
        )

    @inlineCallbacks
    def test_a_storm_is_bounded_and_counted(self) -> Any:
        """B6: ten thousand refusals in a batch, equal or all different, are some rows whose counts add up exactly."""
        yield self.write(*(refused(number, client=f"192.0.2.1:{number}") for number in range(10_000)))
        self.assertEqual(self.rows("SELECT count(*), sum(count) FROM refusals"), [(SEPARATE + 1, 10_000)])
        (shared,) = yield self.database.read(lambda connection: record.sharing(connection, parse_queue_id(name(9_999))))
        self.assertEqual((shared.count, shared.reason), (10_000 - SEPARATE, "domain_not_authorized"))
        yield self.write(*(refused(20_000 + number, f"{number}@b.com") for number in range(5_000)))
        rows = 2 * SEPARATE + DIFFERENT + 2
        self.assertEqual(self.rows("SELECT count(*), sum(count) FROM refusals"), [(rows, 15_000)])
        self.assertEqual(
            self.rows("SELECT \"user\", reason, count FROM refusals WHERE client = ''"),
            [("app", "domain_not_authorized", 5_000 - SEPARATE - DIFFERENT)],
        )
        total = self.rows("SELECT sum(count) FROM refusals WHERE \"user\" = 'app'")
        self.assertEqual(total, [(15_000,)])  # so that stats --by user is exact

    @inlineCallbacks
    def test_what_a_session_only_counts_is_counted(self) -> Any:
        """B6: refusals that a session states as a number are counted with the last one that it stated, and for its user."""
        yield self.write(refused(1), RefusedMore(NOW, "s", "192.0.2.1:5", "app", 40), RefusedMore(NOW, "s", "192.0.2.1:5", "app", 2))
        self.assertEqual(
            self.rows("SELECT sender, reason, count FROM refusals ORDER BY count"),
            [
                ("x@b.com", "domain_not_authorized", 1),
                ("x@b.com", "domain_not_authorized", 42),
            ],
        )
        yield self.write(Refused(NOW, "t", "c:1", "", "", "", "syntax", "500"), RefusedMore(NOW, "t", "c:1", "", 9))
        self.assertEqual(self.rows("SELECT sum(count) FROM refusals"), [(43,)])  # how strangers speak is not kept
        yield self.write(Disconnected(NOW, "s", "192.0.2.1:5", 0, ""), RefusedMore(NOW, "s", "192.0.2.1:5", "app", 5))
        self.assertEqual(self.rows("SELECT user, sender, reason, count FROM refusals WHERE count = 5"), [("app", "", "", 5)])

    @inlineCallbacks
    def test_old_rows_go_in_small_steps(self) -> Any:
        """What is older than `history` is deleted a page at a time, except what still waits; mail goes on between two pages."""
        past = NOW - 8 * DAY
        yield self.write(
            *(accepted(number, past) for number in range(PAGE + 10)), accepted(1), Paused(past, name(3, past), "b.com", "rule")
        )
        waiting = parse_queue_id(name(5, past))
        yield self.database.write(
            lambda connection: connection.exec_driver_sql(
                f"INSERT INTO recipients (message_id, number, address, level, user, attempts, due) VALUES ({waiting}, 0, 'y', 3, '', 0, 0)"
            )
        )
        self.history.start()
        for expected in (11, 2):
            self.clock.advance(GATHER)
            for _ in range(3):
                yield self.database.write(lambda _: None)
            self.assertEqual(self.rows("SELECT count(*) FROM history"), [(expected,)])
        self.assertEqual(self.rows("SELECT id FROM history ORDER BY id")[0], (waiting,))
        self.assertEqual(self.rows("SELECT count(*) FROM history_steps"), [(0,)])
        yield self.history.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @inlineCallbacks
    def test_a_message_id_is_found_without_an_index(self) -> Any:
        """D3: a batch writes one row of marks, whatever its size, by which a Message-ID leads to its messages; what was written before
        there were marks is found all the same, and marks go with what they are about."""
        past = NOW - 8 * DAY

        def found(message_id: str) -> Any:
            return self.database.read(lambda connection: [life.id for life in record.by_message_id(connection, message_id)])

        for number, at in ((1, past), (2, past), (3, NOW), (4, NOW)):
            yield self.write(
                *(msgspec.structs.replace(accepted(10 * number + each, at), message_id=f"<{each}.x@a.com>") for each in range(3))
            )
        yield self.write(Bounced(NOW, name(31), name(60), "x@a.com", "failed"))  # has no Message-ID
        self.assertEqual(self.rows("SELECT count(*), sum(length(marks)) FROM message_ids"), [(4, 4 * 3 * 12)])
        expected = [name(11, past), name(21, past), name(31), name(41)]
        for asked in ("<1.x@a.com>", " 1.x@a.com"):
            self.assertEqual((yield found(asked)), expected)
        self.assertEqual((yield found("<3.x@a.com>")), [])
        oldest = parse_queue_id(name(20, past))
        yield self.database.write(
            lambda connection: connection.exec_driver_sql("DELETE FROM message_ids WHERE first < ?", (oldest,)) and None
        )
        self.assertEqual((yield found("<1.x@a.com>")), expected)
        self.history.start()
        self.clock.advance(GATHER)
        for _ in range(3):
            yield self.database.write(lambda _: None)
        self.assertEqual(self.rows("SELECT count(*) FROM message_ids"), [(2,)])
        self.assertEqual((yield found("<1.x@a.com>")), expected[2:])
        yield self.history.close()

    @inlineCallbacks
    def test_a_fault_of_the_database_is_tried_once_more(self) -> Any:
        """A batch that could not be written is there after the next try."""
        yield self.database.write(lambda connection: connection.exec_driver_sql("ALTER TABLE history RENAME TO elsewhere"))
        yield self.write(accepted(1))
        self.assertIn("no such table", str(self.flushLoggedErrors()))
        yield self.database.write(lambda connection: connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO history"))
        self.clock.advance(5)
        yield self.database.write(lambda _: None)
        self.assertEqual(self.rows("SELECT count(*) FROM history"), [(1,)])

    @inlineCallbacks
    def test_close_writes_what_is_left(self) -> Any:
        """What happened until the daemon stops is in the database when `close` fires; no timer is left."""
        self.history.start()
        self.history(accepted(1))
        self.history(started(1))
        yield self.history.close()
        self.assertEqual(self.rows("SELECT count(*) FROM history"), [(1,)])
        self.assertEqual(self.clock.getDelayedCalls(), [])


def test_marks_may_lie_across_two() -> None:
    """A checksum is looked for at the beginning of a mark alone, and octets that only look like one lead nowhere."""
    first = marks.row([(1, "<a@x>")])
    assert first is not None
    checksum = first[2][:4]
    shifted = marks.row([(int.from_bytes(b"\0\0" + checksum + b"\0\0", "big"), "<b@x>"), (7, "a@x")])
    assert shifted is not None
    assert list(marks.candidates(shifted[2], "<a@x>")) == [7]
    assert marks.row([(1, "")]) is None


def test_every_event_of_a_message_survives_the_short_form() -> None:
    """A story gives back what was stated, for each class of event that is about a message; damaged stories are left out."""
    samples = {"float": 1.5, "int": 2, "str": "x", "tuple[str, ...]": ("a", "b"), "bool": True}
    for kind in story.kinds():
        fields: dict[str, Any] = {field: samples[kind.__annotations__.get(field, "float")] for field in kind.__struct_fields__}
        event = kind(**fields)
        assert story.decode("x", [story.encode([story.chapter(event)])]) == [event]
    assert story.decode("x", ['[["Gone",1.0]]', "[[]]", "{", '[["Paused","when"]]', ""]) == []
    assert events.Accepted not in story.kinds()
