"""A database of a test's own, without a daemon."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from twisted.trial.unittest import TestCase

from smtpplus.storage.engine import create_engine, migrate


def connect(case: TestCase) -> sqlalchemy.Connection:
    """A connection to a new SQLite file with our schema; closed when the test is over."""
    url = f"sqlite:///{Path(case.mktemp()) / 'smtpplus.sqlite'}"
    migrate(url)
    engine = create_engine(url)
    case.addCleanup(engine.dispose)
    connection = engine.connect()
    case.addCleanup(connection.close)
    return connection
