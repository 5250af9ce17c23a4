"""Before there is a database: what reads says so and makes nothing; what is made belongs to whoever serves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smtpplus.operation.cli import main
from smtpplus.storage import ownership
from smtpplus.storage.engine import migrate
from smtpplus.submission.scram import load_key

READING = [
    "user list",
    "user show app",
    "user export",
    "sender list",
    "list list",
    "queue list",
    "queue show 0AAAAAAAAAAAA",
    "explain 0AAAAAAAAAAAA",
    "check --user app --from a@b.com",
    "check --would-block",
    "who-may-send a@b.com",
    "status",
    "stats",
    "dkim list",
    "alerts list",
    "alerts settings",
]
NOBODY = 65_534  # user and group


def call(directory: Path, *arguments: str) -> Result:
    path = directory / "smtpplus.toml"
    if not path.exists():
        path.write_text('hostname = "mail.example.com"\nstate_directory = "state"\n[http]\nlisten = ""\n[dns]\nservers = ["127.0.0.1:9"]\n')
    return CliRunner().invoke(main, ["--config", str(path), *arguments])


@pytest.mark.parametrize("command", READING)
def test_reading_makes_nothing(tmp_path: Path, command: str) -> None:
    """Without a database every reading command ends with 1 and a sentence that says how one is made, and makes none."""
    for more in ((), ("--json",)) if command not in {"user export"} else ((),):
        result = call(tmp_path, *command.split(), *more)
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert f"There is no database {tmp_path}/state/smtpplus.sqlite yet. The daemon makes it when it starts" in result.stderr
        assert "`smtpplus user add NAME`" in result.stderr
    assert not (tmp_path / "state").exists()


def test_writing_makes_it(tmp_path: Path) -> None:
    """The first command that writes makes the database, readable for nobody else, and then there is something to read."""
    assert call(tmp_path, "user", "add", "app", "--allow-any").exit_code == 0
    files = sorted((tmp_path / "state").iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert [each["name"] for each in json.loads(call(tmp_path, "user", "list", "--json").stdout)] == ["app"]


def test_doctor_goes_on(tmp_path: Path) -> None:
    """B4: for the doctor a database that is not there is a finding with its remedy, and not the last."""
    found = json.loads(call(tmp_path, "doctor", "--json").stdout)["findings"]
    (database,) = [each for each in found if each["part"] == "database"]
    assert (database["good"], database["text"]) == (False, "there is none yet")
    assert "user add" in database["remedy"]
    assert {each["part"] for each in found} >= {"disk", "clock", "host name"}
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_directory(tmp_path: Path) -> None:
    """Files of the state directory that root makes belong to its owner: database, lock and key, and what SQLite puts beside it."""
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, NOBODY, NOBODY)
    load_key(state)
    assert call(tmp_path, "user", "add", "app", "--allow-any").exit_code == 0
    assert call(tmp_path, "user", "list").exit_code == 0
    found = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in state.iterdir()}
    assert {"smtpplus.sqlite", "smtpplus.sqlite.lock"} < found.keys()
    assert set(found.values()) == {(NOBODY, NOBODY)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_directory_belongs_to_who_serves(tmp_path: Path) -> None:
    """The state directory is made for the user the daemon is to run as; one of another user, or with a database of another, is refused
    with a sentence that has the remedy."""
    state = tmp_path / "var" / "state"
    database = state / "smtpplus.sqlite"
    ownership.settle(state, 0o750, (None, database), NOBODY, None)
    found = state.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (NOBODY, NOBODY, 0o750)
    ownership.settle(state, 0o750, (None, database), NOBODY, None)
    database.touch()
    with pytest.raises(OSError, match=f"^{database} belongs to root, and the daemon is to run as nobody: chown -R nobody: {state}$"):
        ownership.settle(state, 0o750, (None, database), NOBODY, None)
    os.chown(state, 0, 0)
    with pytest.raises(OSError, match=f"^{state} belongs to root"):
        ownership.settle(state, 0o750, (None, database), NOBODY, None)
    ownership.settle(state, 0o750, (None, database), None, None)


def test_a_file_is_made_once(tmp_path: Path) -> None:
    """A file that is there is neither emptied nor given away."""
    path = tmp_path / "file"
    path.write_text("mine")
    path.chmod(0o644)
    ownership.ensure(path, 0o600)
    with pytest.raises(FileExistsError):
        ownership.make(path, 0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("mine", 0o644)


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    """A start that was cut short after the file was made is gone on with."""
    (tmp_path / "smtpplus.sqlite").touch()
    migrate(f"sqlite:///{tmp_path}/smtpplus.sqlite")
    assert (tmp_path / "smtpplus.sqlite").stat().st_size > 0
