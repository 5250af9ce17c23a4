"""A trusted network whose user is not there is told wherever an operator looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smtpplus import events
from smtpplus.observation.problems import SIGNS, default_mode
from smtpplus.operation.cli import main


def call(directory: Path, *arguments: str) -> Result:
    path = directory / "smtpplus.toml"
    path.write_text('state_directory = "."\n[[listen]]\nports = "1"\ntrusted_networks = ["127.0.0.1/32"]\ntrusted_as = "Printer"\n')
    return CliRunner().invoke(main, ["--config", str(path), *arguments])


@pytest.mark.parametrize(
    ("before", "said", "remedy"),
    [
        (["user", "add", "other", "--allow-any"], "user Printer, who does not exist", "smtpplus user add Printer"),
        (["user", "add", "printer", "--allow-any", "--inactive"], "user Printer, who is not active", "smtpplus user activate Printer"),
    ],
)
def test_the_user_is_not_there(tmp_path: Path, before: list[str], said: str, remedy: str) -> None:
    """`config check` warns and ends with 0; the doctor has a cross; both name the user, the cause and the command that helps."""
    assert call(tmp_path, *before).exit_code == 0
    checked = call(tmp_path, "config", "check")
    assert checked.exit_code == 0
    assert "can be used" in checked.stdout
    for text in (checked.stderr, call(tmp_path, "doctor").stdout):
        assert said in text
        assert remedy in text
    assert len(json.loads(call(tmp_path, "config", "check", "--json").stdout)["warnings"]) == 1


def test_the_user_is_there(tmp_path: Path) -> None:
    """Nobody is warned of a user who may send, however the name is written, nor where there is no database to tell."""
    assert "is in order" in call(tmp_path, "config", "check").stdout
    assert call(tmp_path, "user", "add", "printer", "--allow-any").exit_code == 0
    assert "is in order" in call(tmp_path, "config", "check").stdout
    assert "✓ trusted networks: they submit as user printer" in call(tmp_path, "doctor").stdout


def test_it_is_one_problem() -> None:
    """However many clients are refused for it, it is one problem of the server, told at once, with its own remedy."""
    reply = "530 5.7.0 The network of this client is trusted to submit as user printer, but there is no such user"
    found = [
        SIGNS[events.Refused](events.Refused(1.0, "s", f"192.0.2.{host}:5", "", "", "", "trusted_user", reply, "REF")) for host in (1, 2)
    ]
    assert None not in found
    assert len({(each.kind, each.list, each.what) for each in found if each is not None}) == 1
    assert default_mode("trusted_user") == "now"
    assert "must name an active user in trusted_as" in str(found[0] and found[0].facts.remedy)
