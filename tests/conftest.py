"""For all tests: hypothesis measures no time, and trial's test cases leave their files in the test's own temporary directory."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
from twisted.trial.unittest import SynchronousTestCase

hypothesis.settings.register_profile("smtpplus", deadline=None)  # how long an example takes is the machine's business
hypothesis.settings.load_profile("smtpplus")


@pytest.fixture(autouse=True)
def _own_directory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mktemp` of trial names files in the working directory."""
    if request.cls is not None and issubclass(request.cls, SynchronousTestCase):
        monkeypatch.chdir(tmp_path)
