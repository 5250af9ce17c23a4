"""Whole messages read back from the database."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from smtpplus.mail.envelope import Recipient
from smtpplus.queue import rows
from smtpplus.storage import writes
from tests.queue.fixtures import envelope
from tests.rig.database import connect


class FetchTests(TestCase):
    """A real SQLite with 50 messages of two recipients each."""

    def setUp(self) -> None:
        self.connection = connect(self)
        self.envelopes = [envelope(number, 3, "app", "b@example.net", "c@example.net", size=10) for number in range(1, 51)]
        writes.INSERT_MESSAGE.run(self.connection, [rows.insertion(each, 1, b"x" * 10)[1] for each in self.envelopes])
        writes.INSERT_RECIPIENT.run(self.connection, [row for each in self.envelopes for _, row in rows.recipients(each)])
        self.asked = 0

    def give_way(self) -> None:
        self.asked += 1

    def test_way_is_given(self) -> None:
        """A27: the messages, their recipients and what is made of both come a few at a time, with way given before each few."""
        fetched = rows.fetch(self.connection, [*range(1, 51)], 10_000, self.give_way)
        self.assertEqual([found[0].id for found in fetched], [*range(1, 51)])
        self.assertEqual(self.asked, 3 + 5 + 3)  # by 20 of 50, 100 and 50

    def test_what_was_kept_comes_back(self) -> None:
        """C2: envelope, content up to the room there is, and who is not settled."""
        fetched = rows.fetch(self.connection, [3, 1, 99], 15, self.give_way)
        self.assertEqual([found[0] for found in fetched], [self.envelopes[0], self.envelopes[2]])
        self.assertEqual(
            [(chunks, in_file, octets) for _, chunks, in_file, octets, _ in fetched], [(1, False, b"x" * 10), (1, False, None)]
        )
        pending = [(each.number, each.recipient, each.attempts) for each in fetched[0][4]]
        self.assertEqual(pending, [(0, Recipient("b@example.net"), 0), (1, Recipient("c@example.net"), 0)])

    def test_way_is_given_by_a_scan(self) -> None:
        """A27: so it is while the daemon goes through all that waits, at its start."""
        found = rows.scan(self.connection, (3, 0), 90, self.give_way, urgent=False)
        self.assertEqual([row[:2] for row in found][:3], [(3, 1), (4, 0), (4, 1)])
        self.assertEqual((len(found), self.asked), (90, 5))
