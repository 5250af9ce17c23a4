"""`user import` and `user export` on a real database."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, Callable

import pytest
from click.testing import Result

from smtpplus.accounts import passwords
from tests.operation.test_users import shell, stored

Run = Callable[..., Result]
USERS = """
[[list]]
name = "news"
[list.settings]
priority = 5

[[user]]
name = "app"
list = "news"
domains = "a.com; .b.com"
senders = "x@c.com"

[[user]]
name = "shop"
allow_any = true
password = "HASH"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with two users, one of them with the hash of the password `secret`."""
    path = tmp_path / "users.toml"
    path.write_text(USERS.replace("HASH", passwords.hash_password("secret")))
    return path


def names(run: Run) -> list[str]:
    return [each["name"] for each in json.loads(run("user", "list", "--json").stdout)]


def test_import(config: Path, run: Run, file: Path) -> None:
    """A12: the users and lists of a file are there; passwords are the file's, or made, and shown once with their SCRAM verifier kept."""
    found = json.loads(run("user", "import", str(file), "--json").stdout)
    assert {**found, "passwords": None} == {"imported": 2, "users": 2, "lists": ["news"], "passwords": None, "dry_run": False}
    (made,) = found["passwords"]
    assert made["user"] == "app"
    app, shop = stored(config, "app"), stored(config, "shop")
    assert passwords.verify(app.password, made["password"])
    assert passwords.verify(shop.password, "secret")
    assert app.scram is not None and shop.scram is None
    assert [(str(entry), entry.verified) for entry in app.senders] == [("a.com", False), (".b.com", False), ("x@c.com", False)]
    assert (app.list, app.list_settings.priority, shop.list, shop.allow_any) == ("news", 5, "default", True)
    assert made["password"] not in run("user", "export").stdout


def test_passwords_for_people(run: Run, file: Path) -> None:
    """A12, A6: without --json the made passwords stand in a table, each beside its user."""
    text = run("user", "import", str(file)).stdout
    assert text.startswith("2 users were imported. Passwords that were made, shown only now:\n")
    assert text.count("app") == 1
    assert "shop" not in text


def test_grandfather(config: Path, run: Run, file: Path) -> None:
    """A12: --grandfather marks what is imported as verified, with provenance, date and who."""
    run("user", "import", str(file), "--grandfather")
    entries = stored(config, "app").senders
    assert {entry.provenance for entry in entries} == {"grandfathered"}
    assert all(entry.verified and entry.verified_at and entry.verified_by.endswith("at the command line") for entry in entries)
    run("check", "--user", "app", "--from", "any@m.b.com")


def test_dry_run(run: Run, file: Path) -> None:
    """A12: --dry-run says what would come, and nothing does; its faults are those of the import."""
    found = json.loads(run("user", "import", str(file), "--dry-run", "--json").stdout)
    assert (found["imported"], found["users"], found["lists"], found["dry_run"]) == (0, 2, ["news"], True)
    assert found["passwords"] == [{"user": "app", "password": None}]
    assert "2 users would be imported, 1 of them with a password that is made." in run("user", "import", str(file), "--dry-run").stdout
    assert names(run) == []
    assert [each["name"] for each in json.loads(run("list", "list", "--json").stdout)] == ["default"]
    run("user", "add", "shop")
    assert f"{file}:14: The user shop exists already" in run("user", "import", str(file), "--dry-run", status=1).stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (USERS.replace("HASH", "secret"), ":16: The password is no argon2 hash"),
        (USERS.replace("a.com;", "a.com,"), ':10: "a.com, .b.com" has a comma; separate domains with ";".'),
        (USERS.replace("[[user]]", "[[user]", 1), ":7: This is no TOML"),
        (USERS.replace('list = "news"', 'list = "old"').replace('password = "HASH"', ""), ":8: There is no list old"),
        (USERS.replace('"shop"', '"taken"').replace('password = "HASH"', ""), ":14: The user taken exists already"),
    ],
)
def test_damaged_file_imports_nothing(run: Run, tmp_path: Path, text: str, said: str) -> None:
    """A12: a file with one fault imports nothing, no list either, and names the line."""
    run("user", "add", "taken")
    path = tmp_path / "users.toml"
    path.write_text(text)
    result = run("user", "import", str(path), status=1)
    assert f"{path}{said}" in result.stderr
    assert result.stderr.endswith("\nNothing was imported.\n")
    assert result.stdout == ""
    assert names(run) == ["taken"]
    assert [each["name"] for each in json.loads(run("list", "list", "--json").stdout)] == ["default"]


@pytest.mark.parametrize("kind", ["toml", "csv"])
def test_export_and_import_elsewhere(config: Path, run: Run, file: Path, tmp_path: Path, kind: str) -> None:
    """A12: what one server exports another imports: the same users, log-ins and verification; the file is for its owner alone."""
    run("user", "import", str(file), "--grandfather")
    run("user", "edit", "app", "--unauthorized", "alert", "--alerts", "ops@a.com", "--note", "two\nlines; a, b")
    moved = tmp_path / f"moved.{kind}"
    moved.write_text("old")
    assert "2 users were written" in run("user", "export", str(moved)).stdout
    assert stat.S_IMODE(moved.stat().st_mode) == 0o600
    assert run("user", "export", "--format", kind).stdout == moved.read_text()
    before = [stored(config, name) for name in ("app", "shop")]
    other = tmp_path / "other"
    other.mkdir()
    (other / "smtpplus.toml").write_text(config.read_text())
    if kind == "csv":  # has no lists
        assert shell("--config", str(other / "smtpplus.toml"), "list", "add", "news").returncode == 0
    result = shell("--config", str(other / "smtpplus.toml"), "user", "import", str(moved))
    assert (result.returncode, result.stdout) == (0, b"2 users were imported.\n"), result.stderr
    for user in before:
        found = stored(other / "smtpplus.toml", user.name)
        assert comparable(found) == comparable(user)


def comparable(user: Any) -> Any:
    """A user without what a file does not carry."""
    return (
        user.name,
        user.list,
        user.active,
        user.note,
        user.allow_any,
        user.password,
        user.scram,
        user.senders,
        user.settings,
        user.created_at,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["user", "import", "missing.toml"], 2, "does not exist"),
        (["user", "import", "SELF"], 2, "ends neither in .toml nor in .csv"),
        (["user", "export", "users.xml"], 2, "ends neither in .toml nor in .csv"),
        (["user", "export", "/nowhere/users.csv"], 1, "cannot be written"),
        (["user", "export", "--list", "news"], 1, 'There is no list "news"'),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, arguments: list[str], status: int, said: str) -> None:
    """What cannot be read or written is a sentence on standard error."""
    path = tmp_path / "users.txt"
    path.write_text("")
    run("user", "add", "demo", "--allow-any")
    result = run(*(str(path) if argument == "SELF" else argument for argument in arguments), status=status)
    assert said in result.stderr
    assert result.stdout == ""
