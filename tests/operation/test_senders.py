"""`smtpplus sender` and `user add --verify` on a real database: what each prints, changes and refuses."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import delete, select

from smtpplus.operation.cli import main
from smtpplus.storage.engine import create_engine
from smtpplus.storage.schema import outbox

Run = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose state lies beside it; tokens are good for an hour."""
    path = tmp_path / "smtpplus.toml"
    path.write_text('hostname = "relay.example.com"\nstate_directory = "state"\n[senders]\nverification = "1h"\n')
    return path


@pytest.fixture
def run(config: Path) -> Run:
    """Call `smtpplus --config … ARGUMENTS` in this process."""

    def call(*arguments: str) -> Result:
        result = CliRunner().invoke(main, ["--config", str(config), *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return call


@pytest.fixture
def answer(run: Run) -> Callable[..., Any]:
    """The value that the command prints with --json."""

    def call(*arguments: str) -> Any:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call


def posted(config: Path) -> list[tuple[list[str], str]]:
    """Recipients and content of what waits in the outbox; it is emptied."""
    engine = create_engine(f"sqlite:///{config.parent}/state/smtpplus.sqlite")
    with engine.begin() as connection:
        rows = connection.execute(select(outbox).order_by(outbox.c.id)).all()
        connection.execute(delete(outbox))
    engine.dispose()
    assert all((row.sender, row.level) == ("", 2) for row in rows)
    return [(json.loads(row.recipients), row.content.decode()) for row in rows]


def token(content: str) -> str:
    found = re.search(r"smtpplus sender confirm (\w+)", content)
    assert found is not None
    return found[1]


def test_life_of_a_sender(config: Path, run: Run, answer: Callable[..., Any]) -> None:
    """A9, A10, A12: added, asked for, confirmed, revoked, vouched for and removed; `sender list` shows how, when and by whom."""
    run("user", "add", "app", "--domains", "a.com", "--vouch")
    added = run("sender", "add", "APP", "X@b.com; .c.com")
    assert added.stdout == (
        "x@b.com was added for user app.\n.c.com was added for user app.\nTo be verified: `smtpplus sender verify app x@b.com .c.com`.\n"
    )
    before = time.time()
    (asked,) = answer("sender", "verify", "x@b.com")
    assert (asked["user"], asked["sender"], asked["status"]) == ("app", "x@b.com", "mailed")
    assert before + 3600 <= asked["expires_at"] <= time.time() + 3600
    ((to, content),) = posted(config)
    assert to == ["x@b.com"]
    assert f"http://127.0.0.1:8025/confirm/{token(content)}\r\n" in content
    assert run("sender", "confirm", token(content)).stdout == "x@b.com is verified for user app.\n"
    listed = {each["sender"]: each for each in answer("sender", "list", "app")}
    assert {name: each["provenance"] for name, each in listed.items()} == {"a.com": "vouched", ".c.com": "", "x@b.com": "token"}
    assert listed["x@b.com"]["verified_at"] >= before
    assert {each["verified_by"].endswith(" at the command line") for name, each in listed.items() if name != ".c.com"} == {True}
    assert [each["sender"] for each in answer("sender", "list", "--pending")] == [".c.com"]
    table = run("sender", "list").stdout
    assert all(word in table for word in ("x@b.com", "token", "pending", "at the command line"))

    assert run("sender", "revoke", "app", "x@b.com").stdout == "x@b.com is pending for user app.\n"
    assert run("sender", "vouch", "app", "x@b.com", ".c.com").exit_code == 0
    assert answer("sender", "list", "--pending") == []
    gone = answer("sender", "remove", "app", "x@b.com", ".c.com")
    assert gone == {"user": "app", "removed": ["x@b.com", ".c.com"], "left": ["a.com"]}
    refused = run("sender", "remove", "app", "a.com")
    assert (refused.exit_code, refused.stdout, "--allow-any" in refused.stderr) == (1, "", True)
    assert run("sender", "remove", "app", "a.com", "--allow-any").stdout == "a.com was removed from user app.\n"


def test_token_is_printed_nowhere(config: Path, run: Run) -> None:
    """A9: the token is in the mail alone: no command prints it, and once the mail is gone no table has it."""
    run("user", "add", "app", "--senders", "x@b.com")
    outputs = [run("sender", "verify", "app", "x@b.com").output, run("sender", "verify", "x@b.com", "--json").output]
    tokens = [token(content) for _, content in posted(config)]
    outputs += [run("sender", "list").output, run("sender", "list", "--json").output, run("user", "show", "app", "--json").output]
    outputs.append(run("sender", "confirm", tokens[0]).output)
    assert len(set(tokens)) == 2
    assert not any(each in output for each in tokens for output in outputs)


def test_user_is_added_and_asked_in_one_call(config: Path, run: Run, answer: Callable[..., Any]) -> None:
    """A10: without --vouch senders are pending; --verify mails the tokens at once, and the password is printed all the same."""
    made = answer("user", "add", "app", "--senders", "x@b.com; y@b.com", "--verify")
    assert [(each["sender"], each["status"]) for each in made["verification"]] == [("x@b.com", "mailed"), ("y@b.com", "mailed")]
    assert len(made["password"]) == 26
    assert [to for to, _ in posted(config)] == [["x@b.com"], ["y@b.com"]]
    assert len(answer("sender", "list", "app", "--pending")) == 2
    spoken = run("user", "add", "other", "--senders", "x@b.com", "--verify")
    assert "A token was mailed to x@b.com." in spoken.stdout
    assert "refused until then" not in spoken.stderr
    literal = run("user", "add", "third", "--domains", "[192.0.2.1]", "--verify")
    assert (literal.exit_code, "The password, shown only now:" in literal.stdout, "sender vouch" in literal.stderr) == (1, True, True)
    plain = run("user", "add", "fourth", "--senders", "x@b.com")
    assert "smtpplus sender verify fourth x@b.com" in plain.stderr


def test_first_sender_narrows_an_open_account(run: Run, answer: Callable[..., Any]) -> None:
    """A18: who had no senders, and so could use all, is told that from now on there are only these."""
    run("user", "add", "app")
    assert "only" in run("sender", "add", "app", "x@b.com", "--vouch").stderr
    assert run("sender", "add", "app", "y@b.com", "--vouch").stderr == ""
    assert answer("user", "show", "app")["allow_any"] is False


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["verify", "nobody", "x@b.com"], 1, 'There is no user "nobody"'),
        (["verify", "app", "z@b.com"], 1, "`smtpplus sender add --verify app z@b.com` makes it one"),
        (["verify", "z@b.com"], 1, "No user has the sender z@b.com"),
        (["verify", "both.com"], 1, "Several users have the sender both.com (app, other)"),
        (["verify", "x@b.com; both.com"], 2, "Name the user in front of several senders"),
        (["verify", "app", "a.com,b.com"], 2, 'separate domains with ";"'),
        (["verify"], 2, "Missing argument"),
        (["add", "app", "http://b.com/"], 2, "web address"),
        (["add", "app", "www.n.com", "--vouch", "--verify"], 2, "exclude each other"),
        (["add", "app", "www.n.com"], 0, '"www.n.com" covers addresses such as x@www.n.com only'),
        (["confirm", "nonsense"], 1, "This token is not known here; copy it whole from the newest mail"),
        (["vouch", "app", "z@b.com"], 1, "User app has no sender z@b.com"),
        (["revoke", "app", "z@b.com"], 1, "User app has no sender z@b.com"),
        (["remove", "app", "z@b.com"], 1, "User app has no sender z@b.com"),
        (["remove", "app", "x@b.com", "--allow-any"], 1, "says nothing"),
        (["list", "nobody"], 1, 'There is no user "nobody"'),
    ],
)
def test_refusals(config: Path, run: Run, arguments: list[str], status: int, said: str) -> None:
    """A9, A14: what cannot be done is a sentence with its remedy, status 1, or 2 for wrong usage; nothing changes or is mailed."""
    run("user", "add", "app", "--senders", "x@b.com", "--domains", "both.com")
    run("user", "add", "other", "--domains", "both.com")
    before = run("sender", "list", "--json").stdout
    result = run("sender", *arguments)
    assert (result.exit_code, said in result.stderr) == (status, True), result.stderr
    if status:
        assert run("sender", "list", "--json").stdout == before
    assert posted(config) == []
