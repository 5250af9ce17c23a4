"""`smtpplus list`, and how its settings reach users, on a real database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

import pytest
from click.testing import CliRunner, Result

from smtpplus.accounts import forms
from smtpplus.accounts.settings import NAMES, USER_NAMES
from smtpplus.operation.cli import main
from smtpplus.operation.setting_options import OPTIONS
from smtpplus.operation.user_view import LABELS

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Call `smtpplus --config … ARGUMENTS` in this process."""
    path = tmp_path / "smtpplus.toml"
    path.write_text('hostname = "mail.example.com"\nstate_directory = "state"\n[priority]\ndefault = 4\n')

    def call(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(main, ["--config", str(path), *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code == status, result.output
        return result

    return call


def in_force(run: Run, user: str, name: str) -> tuple[object, str]:
    """A setting of a user as `user show --json` tells it: value and origin."""
    found = json.loads(run("user", "show", user, "--json").stdout)["settings"][name]
    return found["value"], found["from"]


def test_every_setting_has_an_option() -> None:
    """A32: each setting can be set and unset at the command line, and is shown."""
    assert tuple(OPTIONS) == tuple(LABELS) == NAMES == tuple(forms._FORMS)


def test_inheritance(run: Run) -> None:
    """A32, A23: a value comes from the server until the list sets it, then from the list until the user does, and back by `inherit`."""
    run("list", "add", "news", "--note", "mailings")
    run("user", "add", "app", "--domains", "a.com", "--list", "news")
    assert in_force(run, "app", "priority") == (4, "server")
    run("list", "edit", "news", "--priority", "5")
    assert in_force(run, "app", "priority") == (5, "list")
    run("user", "edit", "app", "--priority", "2")
    assert in_force(run, "app", "priority") == (2, "user")
    assert "from user" in run("user", "show", "app").stdout
    run("user", "edit", "app", "--priority", "inherit")
    assert in_force(run, "app", "priority") == (5, "list")
    assert "from list news" in run("user", "show", "app").stdout
    run("list", "edit", "news", "--priority", "inherit")
    assert in_force(run, "app", "priority") == (4, "server")


def test_every_option_sets(run: Run) -> None:
    """A20, A32, D2: every option is taken by user and list, add and edit, and in force for the user."""
    given = {
        "unauthorized": ("alert", "alert"),
        "require_verified": ("no", False),
        "priority": ("5", 5),
        "ceiling": ("2", 2),
        "budget": ("10", 10),
        "rate": ("60", 60),
        "quota": ("1000", 1000),
        "per_user": ("500/h", "500/h"),
        "per_list": ("1 GiB / d", "1 GiB/d"),
        "message_size": ("1 MiB", 1024**2),
        "alerts": ("ops@a.com", ["ops@a.com"]),
    }
    assert tuple(given) == NAMES
    options, own = (
        [part for name, (text, _) in given.items() if name in names for part in (f"--{name.replace('_', '-')}", text)]
        for names in (NAMES, USER_NAMES)
    )
    run("list", "add", "one", *options)
    run("list", "add", "two")
    run("list", "edit", "two", *options)
    run("user", "add", "a", "--allow-any", "--list", "one")
    run("user", "add", "b", "--allow-any", "--list", "two")
    run("user", "add", "c", "--allow-any", *own)
    run("user", "add", "d", "--allow-any")
    run("user", "edit", "d", *own)
    assert "No such option" in run("user", "edit", "d", "--per-list", "5/m", status=2).stderr
    for name, (_, value) in given.items():
        if name not in USER_NAMES:
            assert [in_force(run, user, name) for user in "abcd"] == [(value, "list")] * 2 + [("", "server")] * 2
            continue
        assert [in_force(run, user, name) for user in "abcd"] == [(value, "list")] * 2 + [(value, "user")] * 2


def test_list(run: Run) -> None:
    """A32: lists are shown with what they set and how many users they have; `default` is always there."""
    run("list", "add", "News", "--unauthorized", "alert", "--note", "mailings")
    run("user", "add", "app", "--list", "news")
    found = json.loads(run("list", "list", "--json").stdout)
    assert [(each["name"], each["users"], each["settings"], each["note"]) for each in found] == [
        ("default", 0, {}, ""),
        ("news", 1, {"unauthorized": "alert"}, "mailings"),
    ]
    text = run("list", "list").stdout
    assert "unauthorized: alert" in text and "mailings" in text


def test_delete(run: Run) -> None:
    """A32: a list that has users is deleted only if they are moved, and then they have what the other list sets."""
    run("list", "add", "news", "--priority", "5")
    run("list", "add", "other", "--priority", "1")
    run("user", "add", "app", "--list", "news")
    assert "move them with --move-to LIST" in run("list", "delete", "news", status=1).stderr
    assert in_force(run, "app", "priority") == (5, "list")
    assert run("list", "delete", "NEWS", "--move-to", "Other").stdout == "List news was deleted. Users moved to other: 1.\n"
    assert in_force(run, "app", "priority") == (1, "list")
    assert run("list", "add", "news").exit_code == 0
    assert run("list", "delete", "news").stdout == "List news was deleted.\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["list", "add", "default"], 1, "The list default exists already; change it with `smtpplus list edit default`"),
        (["list", "add", "a b"], 2, "cannot be the name of a list"),
        (["list", "add", "new", "--unauthorized", "refuse"], 2, '"refuse" is no mode; write "block"'),
        (["list", "edit", "news"], 2, "Nothing to change was named"),
        (["list", "edit", "new", "--priority", "1"], 1, 'There is no list "new"; `smtpplus list list` names them'),
        (["list", "edit", "news", "--priority", "0"], 2, "0 is no priority"),
        (["list", "delete", "default"], 1, "The list default stays"),
        (["list", "delete", "new"], 1, 'There is no list "new"'),
        (["list", "delete", "news", "--move-to", "news"], 1, "cannot move to the list that is deleted"),
        (["list", "delete", "news", "--move-to", "new"], 1, 'There is no list "new"'),
        (["user", "add", "new", "--list", "new"], 1, "There is no list new; `smtpplus list add new` makes it"),
        (["user", "edit", "app", "--list", "new"], 1, "There is no list new"),
        (["user", "edit", "app", "--message-size", "10"], 2, "write a number with B, KB"),
        (["user", "edit", "app", "--alerts", "a.com"], 2, "is no address"),
    ],
)
def test_refusals(run: Run, arguments: list[str], status: int, said: str) -> None:
    """Exit 1 for what cannot be done and 2 for wrong usage, one sentence with its remedy on standard error, and nothing is changed."""
    run("list", "add", "news")
    run("user", "add", "app", "--list", "news")
    before = [run(*reading, "--json").stdout for reading in (("list", "list"), ("user", "list"))]
    result = run(*arguments, status=status)
    assert said in result.stderr
    assert result.stdout == ""
    assert [run(*reading, "--json").stdout for reading in (("list", "list"), ("user", "list"))] == before
