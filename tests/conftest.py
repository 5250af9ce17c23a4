"""For all tests: trial's test cases leave their files in the test's own temporary directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase


@pytest.fixture(autouse=True)
def _own_directory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mktemp` of trial names files in the working directory."""
    if request.cls is not None and issubclass(request.cls, SynchronousTestCase):
        monkeypatch.chdir(tmp_path)
