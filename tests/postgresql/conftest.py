"""One server for all scenarios."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.postgresql.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A server that runs; without its programs nothing can be shown, and that is a failure."""
    from tests.postgresql.cluster import Cluster, binaries  # here: `make test` reads this file too, and has no driver

    programs = binaries()
    if programs is None:
        pytest.exit("PostgreSQL's server (initdb, postgres) was not found. On Debian: apt-get install postgresql", returncode=1)
    with Cluster(programs) as running:
        yield running
