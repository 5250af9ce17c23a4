"""A wrong configuration: one sentence that names key and place, exit 2, and nothing was started or made."""

from pathlib import Path

import pytest

from tests.rig.daemon import Daemon

FAULTS = {
    "unknown key": ('retry = ["1s"]', 'retry = ["1s"]\nretries = 3', ["retries"]),
    "wrong type": ("[delivery]", "[delivery]\nper_destination = true", ["delivery.per_destination"]),
    "bad port list": ('ports = "', 'ports = "2000-1025, ', ["2000-1025"]),
    "missing file": (
        "[delivery]",
        '[tls]\ncertificate = "/nowhere/chain.pem"\nprivate_key = "/nowhere/key.pem"\n[delivery]',
        ["/nowhere/chain.pem"],
    ),
    "no TOML": ("[delivery]", "[delivery", ["smtpplus.toml"]),
}


@pytest.mark.parametrize(("old", "new", "named"), FAULTS.values(), ids=FAULTS)
def test_fault_is_named_and_nothing_starts(tmp_path: Path, old: str, new: str, named: list[str]) -> None:
    """twistd and `smtpplus config check` both end with 2, name key and file, show no traceback, and make no state directory."""
    daemon = Daemon(tmp_path, routes=[{"via": "discard:"}])
    text = daemon.config.read_text()
    assert text.count(old) == 1
    daemon.config.write_text(text.replace(old, new))
    daemon.launch()
    status = daemon.await_end()
    said = daemon.log()
    checked = daemon.cli("config", "check")
    assert (status, checked.returncode) == (2, 2)
    for output in (said, checked.stdout + checked.stderr):
        assert "Traceback" not in output
        assert str(daemon.config) in output
        for name in named:
            assert name in output
    assert not daemon.state.exists()


def test_missing_configuration_is_named(tmp_path: Path) -> None:
    """A configuration file that is not there: exit 2 and its name."""
    daemon = Daemon(tmp_path, routes=[{"via": "discard:"}])
    daemon.config.unlink()
    daemon.launch()
    assert daemon.await_end() == 2
    assert str(daemon.config) in daemon.log()
    assert "Traceback" not in daemon.log()
