"""The schema comes from migrations, and opening a database is safe for several processes."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from threading import Thread

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from smtpplus.storage import engine
from smtpplus.storage.schema import metadata


def test_migrations_build_the_schema(tmp_path: Path) -> None:
    """What the migrations build is what schema.py describes, and HEAD names the newest of them."""
    url = f"sqlite:///{tmp_path}/a.sqlite"
    engine.migrate(url)
    opened = engine.create_engine(url)
    with opened.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    opened.dispose()
    scripts = ScriptDirectory(str(Path(engine.__file__).parent / "migrations"))
    assert scripts.get_current_head() == engine.HEAD


def test_commits_are_synced(tmp_path: Path) -> None:
    """C2: the log is fsynced at each commit, foreign keys hold, and nobody else may read the file."""
    path = tmp_path / "state" / "a.sqlite"
    engine.migrate(f"sqlite:///{path}")
    opened = engine.create_engine(f"sqlite:///{path}")
    with opened.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")]
    opened.dispose()
    assert pragmas == ["wal", 2, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_many_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    """Eight that open the same new database at once all succeed."""
    faults: list[Exception] = []

    def open_it() -> None:
        try:
            engine.migrate(f"sqlite:///{tmp_path}/a.sqlite")
        except Exception as fault:
            faults.append(fault)

    threads = [Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


@pytest.mark.parametrize(("url", "path"), [("sqlite:////a/b.sqlite", "/a/b.sqlite"), ("sqlite://", None), ("postgresql://h/d", None)])
def test_database_file(url: str, path: str | None) -> None:
    """Only a database that is a file has one."""
    assert engine.database_file(url) == (Path(path) if path else None)


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    """A database that a newer release has made is refused with a sentence, and stays as it was."""
    url = f"sqlite:///{tmp_path}/smtpplus.sqlite"
    engine.migrate(url)
    made = engine.create_engine(url)
    with made.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(engine.NewerDatabase, match=f"schema is 9999, known here is {engine.HEAD}"):
        engine.migrate(url)
    made.dispose()


def test_a_driver_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's driver is an extra: who has not installed it reads how."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(engine.UnusableDatabase, match=r"pip install 'smtpplus\[postgresql\]'"):
        engine.create_engine("postgresql://db/mail")


def test_what_a_fault_says() -> None:
    """A fault of a server may have several lines; what is told of it is one, without the statement."""
    fault = OperationalError("SELECT 1", {}, Exception("connection failed: refused\n\tIs the server running there?\n"))
    assert engine.told(fault) == "connection failed: refused Is the server running there?"
    assert engine.told(OSError(13, "Permission denied", "/x")) == "[Errno 13] Permission denied: '/x'"
