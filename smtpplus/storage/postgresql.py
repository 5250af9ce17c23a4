"""PostgreSQL: what a connection is set to, and what makes its transactions those that the daemon and the command line count on.

As with SQLite one transaction writes at a time, daemon and commands alike: who writes holds an advisory lock until its end, so that what
it read is still true when it commits, and no two wait for each other. Who reads sees one moment for the length of a transaction.

One daemon serves a database: its writer holds another advisory lock as long as its connection lives (`Tenure`), which the server
releases however the process ends. After the connection was lost the lock is taken anew before anything is written. Both locks are
those of the schema that the connection works in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

PATIENCE = 10.0  # seconds to wait for another's lock, for an answer when connecting, and for a server that restarts
AGAIN = 0.1  # seconds between two attempts
_WRITING, _SERVING = (f"({number}, hashtext(current_schema()))" for number in (0x736D7471, 0x736D7472))
# A server that answers before a commit is on disk would have us lose mail; one that does not notice that we are gone would keep our locks.
_SETTLE = (
    f"SELECT set_config('lock_timeout', '{PATIENCE:.0f}s', false), set_config('tcp_keepalives_idle', '20', false), "
    "set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '4', false), "
    "CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END"
)
_OURSELVES = {
    "connect_timeout": round(PATIENCE),
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 40_000,  # milliseconds: as long for what is not acknowledged, which keep-alives do not count
}


class Served(Exception):
    """Another daemon serves the database; str() is a sentence with its remedy."""


def create_engine(url: sqlalchemy.URL) -> sqlalchemy.Engine:
    """An engine for `postgresql+psycopg://…`. ImportError if there is no driver."""
    said = {key: value for key, value in _OURSELVES.items() if key not in url.query}
    engine = sqlalchemy.create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args=said)

    @event.listens_for(engine, "connect")
    def settle(connection: Any, _record: Any) -> None:
        _without_nul(connection)
        connection.execute(_SETTLE).close()
        connection.commit()

    @event.listens_for(engine, "set_connection_execution_options")
    def read(_connection: sqlalchemy.Connection, options: dict[str, Any]) -> None:
        if options.get("reading"):
            options["isolation_level"] = "REPEATABLE READ"

    @event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        if not connection.get_execution_options().get("reading", False):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock{_WRITING}").close()

    return engine


def _without_nul(connection: Any) -> None:
    """PostgreSQL's text holds no NUL, and what others wrote (subjects, Message-IDs, replies) may: U+FFFD stands for it."""
    from psycopg.types.string import StrDumperUnknown

    class Dumper(StrDumperUnknown):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)

    connection.adapters.register_dumper(str, Dumper)


def await_end_of_others(engine: sqlalchemy.Engine) -> None:
    """Return when no daemon serves the database. One that was killed does so until the server has noticed. Served."""
    until = time.monotonic() + PATIENCE
    with engine.connect().execution_options(reading=True) as connection:
        while not connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock{_SERVING}").scalar():
            connection.rollback()
            if time.monotonic() > until:
                raise _served(engine)
            time.sleep(AGAIN)


def _served(engine: sqlalchemy.Engine) -> Served:
    shown = engine.url.render_as_string(hide_password=True)
    return Served(f"another smtpplus uses the database {shown}; stop it, or wait until it has ended")


class Tenure:
    """The writer's: that its daemon alone serves the database, and what became of its last transaction when the server was lost."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection
        self._driver: Any = None  # the connection that holds the lock
        self._number = 0  # of the last transaction; 0: it did not begin

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As Connection.begin. Served, if another daemon came in while the server was lost."""
        self._number = 0
        with self._connection.begin():
            self._hold()
            self._number = self._connection.exec_driver_sql("SELECT txid_current()").scalar_one()
            yield

    def _hold(self) -> None:
        connection = self._connection
        driver = connection.connection.dbapi_connection
        if driver is not self._driver:
            if not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock{_SERVING}").scalar():
                raise _served(connection.engine)
            self._driver = driver

    def regained(self) -> bool:
        """Whether the server, lost a moment ago, serves us again; waits for it a while, and for the end of what it still does for us."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with self._connection.begin():
                    self._hold()
                    return True
            except (SQLAlchemyError, Served):
                if time.monotonic() > until:
                    return False
                time.sleep(AGAIN)

    def committed(self) -> bool:
        """Whether the last transaction is committed, though nobody said so."""
        if not self._number:
            return False
        with self._connection.begin():
            return bool(self._connection.exec_driver_sql(f"SELECT txid_status({self._number})").scalar() == "committed")
