"""What the daemon and the commands count on of a database, asked of the server itself."""

from __future__ import annotations

from threading import Thread

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, insert, select, update

from smtpplus.storage.engine import UnusableDatabase, create_engine, migrate
from smtpplus.storage.schema import generation, metadata
from tests.postgresql.cluster import Cluster

THREADS, TIMES = 4, 25


def raise_number(engine: sqlalchemy.Engine) -> None:
    """Read, decide, write, as the commands do."""
    for _ in range(TIMES):
        with engine.begin() as connection:
            number = connection.scalar(select(generation.c.number).where(generation.c.name == "x"))
            if number is None:
                connection.execute(insert(generation).values(name="x", number=1))
            else:
                connection.execute(update(generation).where(generation.c.name == "x").values(number=number + 1))


def test_one_writes_at_a_time_and_who_reads_sees_one_moment(cluster: Cluster) -> None:
    """C2: several make the same new database at once; none of their changes is lost; a reader is not disturbed by them."""
    url = cluster.make("one_at_a_time")
    makers = [Thread(target=migrate, args=(url,)) for _ in range(THREADS)]
    for each in makers:
        each.start()
    for each in makers:
        each.join()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    with engine.connect().execution_options(reading=True) as reader:
        before = reader.scalar(select(func.count()).select_from(generation))
        writers = [Thread(target=raise_number, args=(engine,)) for _ in range(THREADS)]
        for each in writers:
            each.start()
        for each in writers:
            each.join()
        assert reader.scalar(select(func.count()).select_from(generation)) == before
    with engine.connect().execution_options(reading=True) as reader:
        assert reader.scalar(select(generation.c.number).where(generation.c.name == "x")) == THREADS * TIMES
    engine.dispose()


def test_a_server_that_promises_less_is_corrected_or_refused(cluster: Cluster) -> None:
    """C2: commits wait for the disk whatever is set for the database, and one that cannot hold Unicode is refused with a remedy."""
    url = cluster.make("lax")
    cluster.ask("postgres", "ALTER DATABASE lax SET synchronous_commit = off")
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    engine.dispose()
    cluster.ask("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(UnusableDatabase, match="is in LATIN1: make it anew with createdb -E UTF8 -T template0 latin"):
        migrate(cluster.url("latin"))


def test_text_holds_no_nul(cluster: Cluster) -> None:
    """E5: a NUL in what others wrote is no fault: it is stored as U+FFFD, and found again under what it was."""
    url = cluster.make("text")
    migrate(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(insert(generation).values(name="a\0b", number=2**62))
        found = connection.execute(select(generation).where(generation.c.name == "a\0b")).one()
    engine.dispose()
    assert tuple(found) == ("a\ufffdb", 2**62)
