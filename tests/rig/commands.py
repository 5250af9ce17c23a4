"""The command line in the process of the test: the same commands on the same database, without the start of an interpreter for each."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from smtpplus.operation.cli import main
from tests.rig.daemon import Daemon


def run(daemon: Daemon, *arguments: str) -> Result:
    """`smtpplus --config … ARGUMENTS`; the caller judges the result."""
    return CliRunner().invoke(main, ["--config", str(daemon.config), *arguments])


def ask(daemon: Daemon, *arguments: str, status: int = 0) -> Any:
    """The value that `smtpplus … --json` prints."""
    result = run(daemon, *arguments, "--json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)
