"""Statements that run for many rows at a time."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from twisted.trial.unittest import TestCase

from smtpplus.storage import schema, writes
from smtpplus.storage.engine import create_engine, migrate
from smtpplus.storage.statement import Row, RowsGone


class StatementTests(TestCase):
    """A real SQLite with a hundred recipients."""

    def setUp(self) -> None:
        url = f"sqlite:///{Path(self.mktemp()) / 'smtpplus.sqlite'}"
        migrate(url)
        engine = create_engine(url)
        self.addCleanup(engine.dispose)
        self.connection = engine.connect()
        self.addCleanup(self.connection.close)
        self.asked = 0
        rows: list[Row] = [(1, number, "b@example.net", 3, "app", 0, 1.0, None, "default", "example.com") for number in range(100)]
        writes.INSERT_MESSAGE.run(self.connection, [(1, schema.QUEUED, "a@example.com", "app", 3, 1, 1.0, 1, None, b"x")])
        writes.INSERT_RECIPIENT.run(self.connection, rows)

    def give_way(self) -> None:
        self.asked += 1

    def attempts(self) -> list[int]:
        return list(self.connection.execute(sqlalchemy.select(schema.recipients.c.attempts)).scalars())

    def test_updates(self) -> None:
        """A27: an update runs for all its rows, some at a time, and gives way between them."""
        writes.RECORD_ATTEMPT.run(self.connection, [(1, 9.0, 1, number, 5.0) for number in range(100)], self.give_way)
        self.assertEqual((self.attempts(), self.asked), ([1] * 100, 2))

    def test_a_row_that_is_gone(self) -> None:
        """C3: of an exact statement each row must be there, among the last as among the first."""
        for left, gone in ((99, 0), (98, 99)):
            self.connection.execute(schema.recipients.delete().where(schema.recipients.c.number == gone))
            with self.assertRaises(RowsGone) as caught:
                writes.RECORD_ATTEMPT.run(self.connection, [(1, 2.0, 1, number, 5.0) for number in range(100)])
            self.assertIn(f"{left} rows of 100 changed", str(caught.exception))
