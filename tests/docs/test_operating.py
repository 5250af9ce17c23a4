"""etc/smtpplus.service and docs/operating.md against the code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smtpplus.config.loading import DEFAULT_PATH
from smtpplus.config.settings import Configuration
from smtpplus.operation.health import descriptors

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "etc" / "smtpplus.service"
DOCUMENT = ROOT / "docs" / "operating.md"


def options() -> dict[str, str]:
    """What the unit says; of what it says twice, the last."""
    return dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#"))


def test_the_unit_fits_the_defaults() -> None:
    """systemd waits for a stop longer than `grace`, gives enough file descriptors, and the directory of `state_directory`."""
    unit, configuration = options(), Configuration()
    assert float(unit["TimeoutStopSec"]) > configuration.limits.grace
    assert Path("/var/lib") / unit["StateDirectory"] == configuration.state_directory
    assert Path("/etc") / unit["ConfigurationDirectory"] == DEFAULT_PATH.parent
    (found,) = descriptors(configuration, 0)
    needed = int(found.text.split()[0])
    assert needed <= int(unit["LimitNOFILE"])


def test_the_documents_name_the_default_configuration() -> None:
    """Who installs as README.md and docs/operating.md say has the configuration where daemon and commands look for it."""
    assert str(DEFAULT_PATH) in DOCUMENT.read_text()
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert " /etc/smtpplus.toml" not in document.read_text(), document.name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    """systemd knows every line of the unit."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/smtpplus/bin/twistd", sys.executable))
    found = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, [line for line in found.stderr.splitlines() if UNIT.name in line]) == (0, [])
