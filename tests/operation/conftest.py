"""A configuration and the command line called with it, for those who need no other."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from click.testing import CliRunner, Result

from smtpplus.operation.cli import main

Run = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose state lies beside it."""
    path = tmp_path / "smtpplus.toml"
    path.write_text('hostname = "mail.example.com"\nstate_directory = "state"\n')
    return path


@pytest.fixture
def run(config: Path) -> Run:
    """Call `smtpplus --config … ARGUMENTS` in this process."""

    def call(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(main, ["--config", str(config), *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code == status, result.output
        return result

    return call
