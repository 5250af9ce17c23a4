"""Opening the database: the engine with its settings, and the schema brought up to date.

SQLite runs in WAL mode with synchronous=FULL: a commit returns after the fsync of the log (https://sqlite.org/pragma.html#pragma_synchronous).
Readers never block the writer. Two processes (daemon and command line) may share the file; each waits up to BUSY for the other.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import event

from smtpplus.mail.reply import printable
from smtpplus.storage import ownership, postgresql

BUSY = 10_000  # milliseconds to wait for another process's lock
CHECKPOINT = 4_000  # pages of log before it is folded into the file
PAGE = 8_192  # octets: a message of 4 KiB lies on one page with its envelope
CACHE = 32_768  # KiB of page cache per connection
_WAL = "journal_mode=WAL"
MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0008"  # the newest migration; a test compares it with the scripts


class UnusableDatabase(Exception):
    """What the URL names cannot be our database; str() is a sentence with its remedy."""


class NewerDatabase(UnusableDatabase):
    """The database was made by a newer release."""


def told(fault: BaseException | None) -> str:
    """What a fault of the database says, on one line and without the statement; a server's may have several."""
    return printable(str(getattr(fault, "orig", None) or fault)).strip()


def create_engine(url: str) -> sqlalchemy.Engine:
    """An engine for `sqlite:///PATH` or `postgresql+psycopg://…`; `postgresql://` means psycopg 3."""
    if url.startswith("postgresql://"):
        url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _server(parsed)
    engine = sqlalchemy.create_engine(
        parsed, connect_args={"cached_statements": 512, "check_same_thread": False, "isolation_level": None, "timeout": BUSY / 1000}
    )

    @event.listens_for(engine, "connect")
    def settle(connection: Any, _record: Any) -> None:
        for pragma in (
            f"page_size={PAGE}",
            _WAL,
            "synchronous=FULL",
            "foreign_keys=ON",
            f"wal_autocheckpoint={CHECKPOINT}",
            f"cache_size=-{CACHE}",
            "journal_size_limit=67108864",
        ):
            _set(connection, pragma)

    @event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        # IMMEDIATE: a transaction that will write takes its lock first and cannot fail half-way (https://sqlite.org/lang_transaction.html).
        immediate = not connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _server(url: sqlalchemy.URL) -> sqlalchemy.Engine:
    try:
        return postgresql.create_engine(url)
    except ImportError as fault:
        raise UnusableDatabase(f"PostgreSQL cannot be used without its driver ({fault}): pip install 'smtpplus[postgresql]'") from None


def _set(connection: Any, pragma: str) -> None:
    """Who makes a new file a WAL file waits for nobody, whatever the timeout: of several who do so at once, all but one try again."""
    patience = time.monotonic() + BUSY / 1000
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}").close()
            return
        except sqlite3.OperationalError:
            if pragma != _WAL or time.monotonic() > patience:
                raise
            time.sleep(0.01)


def database_file(url: str) -> Path | None:
    """The path of an SQLite database, None for others and for one in memory."""
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database)


def content_directory(url: str) -> Path | None:
    """Where files with content lie beside an SQLite database, None for others. Like its log it bears the database's name: two databases in
    one directory would clear away each other's files."""
    path = database_file(url)
    return None if path is None else path.with_name(path.name + "-content")


def migrate(url: str) -> None:
    """Create the database if there is none, and bring its schema up to date. Safe to call from several processes at once.

    UnusableDatabase if it cannot be brought there; NewerDatabase if this release does not know its schema.
    """
    path = database_file(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        ownership.ensure(path, 0o600)  # SQLite takes an empty file for a new database, and gives its log the same owner and mode
    engine = create_engine(url)
    try:
        version = _version(engine)
        if version == HEAD:
            return
        if version is not None and not any((MIGRATIONS / "versions").glob(f"{version}_*.py")):
            shown = engine.url.render_as_string(hide_password=True)
            raise NewerDatabase(
                f"the database {shown} is of a newer release (its schema is {version}, known here is {HEAD}); "
                "install that release again, or restore a copy of the database from before"
            )
        if path is None:
            _check_encoding(engine)
        with _alone(path):
            if _version(engine) != HEAD:
                _upgrade(engine)
        if path is not None:
            os.chmod(path, 0o600)
    finally:
        engine.dispose()


def _version(engine: sqlalchemy.Engine) -> str | None:
    with engine.connect().execution_options(reading=True) as connection:
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            return None
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _check_encoding(engine: sqlalchemy.Engine) -> None:
    """Addresses and subjects are Unicode."""
    if engine.dialect.name != "postgresql":
        return
    with engine.connect().execution_options(reading=True) as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        name = engine.url.database
        raise UnusableDatabase(f"the database {name} is in {encoding}: make it anew with createdb -E UTF8 -T template0 {name}")


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """One process at a time. On a server one transaction does it all, and one writes at a time (storage/postgresql)."""
    if path is None:
        yield
        return
    beside = path.with_name(path.name + ".lock")
    ownership.ensure(beside, 0o600)
    with open(beside, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _upgrade(engine: sqlalchemy.Engine) -> None:
    from alembic import command
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "head")
