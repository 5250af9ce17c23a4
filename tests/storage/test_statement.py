"""Statements that run for many rows at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import sqlalchemy
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from twisted.trial.unittest import TestCase

from smtpplus.storage import schema, writes
from smtpplus.storage.statement import Row, RowsGone
from tests.rig.database import connect


class StatementTests(TestCase):
    """A real SQLite with a hundred recipients."""

    def setUp(self) -> None:
        self.connection = connect(self)
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

    def test_parameters_with_names(self) -> None:
        """A driver whose parameters have names, as PostgreSQL's, is given them by name; 64 rows at a time, counted all the same."""
        given: list[tuple[str, list[Any]]] = []

        class Connection:
            dialect = PGDialect_psycopg()

            def exec_driver_sql(self, statement: str, rows: list[Any]) -> SimpleNamespace:
                given.append((statement, rows))
                return SimpleNamespace(rowcount=len(rows))

        connection: Any = Connection()
        writes.RECORD_ATTEMPT.run(connection, [(1, 9.0, 1, number, 5.0) for number in range(70)])
        writes.INSERT_CHUNK.run(connection, [(1, 2, b"x")])
        self.assertEqual([len(rows) for _, rows in given], [64, 6, 1])
        self.assertEqual(given[0][1][1], {"attempts": 1, "due": 9.0, "key": 1, "index": 1, "now": 5.0})
        self.assertIn("%(index)s::INTEGER", given[0][0])
        self.assertEqual(given[2][1], [{"message_id": 1, "number": 2, "octets": b"x"}])
