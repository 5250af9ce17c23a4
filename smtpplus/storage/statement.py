"""A statement that runs many times, compiled once per dialect.

SQLite gives up the interpreter lock at every step of a statement, and a thread that gave it up waits its turn to get it back. So
many rows go into one statement, in powers of two: an INSERT gets several VALUES, a DELETE by one key gets `IN (…)`.
PostgreSQL's driver has a pipeline for the same purpose, and gets each row by the names of its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql.dml import Delete, Insert, UpdateBase

Row = tuple[Any, ...]
_AT_ONCE = (64, 16, 4, 1)  # rows in one statement; few sizes, so that the driver's statement cache holds them all


class Declined(Exception):
    """What a unit of work raises when it is not to be done, as foreseen: it is rolled back alone, and nothing is logged."""


class RowsGone(Declined):
    """A statement that must find each of its rows did not."""


class Statement:
    """A DML statement with the names of its parameters in the order in which rows give them; `rank` orders it in a group commit.

    One that is `exact` fails with RowsGone unless it changes one row of the table for each row it is given.
    """

    def __init__(self, rank: int, clause: UpdateBase, parameters: Sequence[str], *, exact: bool = False) -> None:
        self.rank = rank
        self.exact = exact
        self.clause = clause
        self.parameters = tuple(parameters)
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, rows: list[Row], give_way: Callable[[], None] = lambda: None) -> None:
        """Run for every row, in order; `give_way` is called before each time, which takes a fraction of a millisecond."""
        name = connection.dialect.name
        compiled = self._compiled.get(name)
        if compiled is None:
            compiled = self._compiled[name] = _Compiled(self, connection.dialect)
        compiled.run(connection, rows, give_way)


class _Compiled:
    __slots__ = ("exact", "many", "names", "one", "order")

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        self.exact = statement.exact
        columns = list(statement.parameters) if isinstance(statement.clause, Insert) else None
        compiled = statement.clause.compile(dialect=dialect, column_keys=columns)
        self.one = str(compiled)
        self.names = None if compiled.positional else statement.parameters  # psycopg's parameters have names
        positions = compiled.positiontup or list(statement.parameters)
        order = [statement.parameters.index(name) for name in positions]
        self.order = None if order == list(range(len(order))) else order
        self.many: dict[int, str] = {}
        if dialect.name == "sqlite":
            width = len(statement.parameters)
            for size in _AT_ONCE:
                if isinstance(statement.clause, Insert):
                    row = "(" + ", ".join("?" * width) + ")"
                    head = self.one[: self.one.rindex("VALUES") + 6]
                    self.many[size] = f"{head} {', '.join([row] * size)}"
                elif isinstance(statement.clause, Delete) and width == 1 and self.one.endswith("= ?"):
                    self.many[size] = f"{self.one.removesuffix('= ?')}IN ({', '.join('?' * size)})"

    def run(self, connection: Connection, rows: list[Row], give_way: Callable[[], None]) -> None:
        order = self.order
        if order is not None:
            rows = [tuple(row[index] for index in order) for row in rows]
        if not self.many:
            names = self.names
            given = rows if names is None else [dict(zip(names, row, strict=True)) for row in rows]
            self._run_one_by_one(connection, given, give_way)
            return
        start, left = 0, len(rows)
        for size in _AT_ONCE:
            while left >= size:
                give_way()
                flat = tuple(value for row in rows[start : start + size] for value in row)
                connection.exec_driver_sql(self.many[size], flat)
                start += size
                left -= size

    def _run_one_by_one(self, connection: Connection, rows: Sequence[Any], give_way: Callable[[], None]) -> None:
        changed = 0
        for start in range(0, len(rows), _AT_ONCE[0]):
            give_way()
            changed += connection.exec_driver_sql(self.one, rows[start : start + _AT_ONCE[0]]).rowcount
        if self.exact and changed != len(rows):
            raise RowsGone(f"{changed} rows of {len(rows)} changed by {self.one}")
