"""`check`, `who-may-send` and `completion` on a real database."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from click.testing import Result
from sqlalchemy import insert

from smtpplus.operation.checks import moment
from smtpplus.storage.engine import create_engine
from smtpplus.storage.schema import would_refuse
from tests.operation.test_users import shell

Run = Callable[..., Result]
DAY = 86_400.0


@pytest.fixture
def run(run: Run) -> Run:
    """Three users are there."""
    run("user", "add", "app", "--domains", "a.com; www.b.com", "--senders", "x@c.com", "--vouch")
    run("user", "add", "new", "--domains", ".a.com")
    run("user", "add", "off", "--domains", "a.com", "--vouch", "--inactive")
    return run


@pytest.mark.parametrize(
    ("arguments", "outcome", "reason", "said"),
    [
        (["--user", "APP", "--from", "x@A.com"], "accepted", None, "Yes: app may send as x@A.com."),
        (["--user", "app", "--from", ""], "accepted", None, "Yes: app may send as the null sender."),
        (["--user", "app", "--from", "", "--header-from", "x@a.com"], "accepted", None, "Yes:"),
        (["--user", "app", "--from", "x@b.com"], "refused", "near_domain", "www.b.com is authorized, b.com is not"),
        (["--user", "app", "--from", "y@c.com"], "refused", "address_not_authorized", "authorize the address y@c.com, or its whole domain"),
        (
            ["--user", "app", "--from", "x@a.com", "--header-from", "Visitor <v@d.com>"],
            "refused",
            "domain_not_authorized",
            "The header field From v@d.com is not authorized",
        ),
        (
            ["--user", "app", "--from", "x@a.com", "--header-from", "x@a.com", "--header-from", "v@d.com"],
            "refused",
            "domain_not_authorized",
            "v@d",
        ),
        (
            ["--user", "app", "--from", "x@a.com", "--sender", "v@d.com"],
            "refused",
            "domain_not_authorized",
            "The header field Sender v@d.com",
        ),
        (["--user", "app", "--from", "x@a..com"], "refused", "bad_mailbox", "The sender address is not valid"),
        (["--user", "new", "--from", "x@m.a.com"], "refused", "sender_pending", "its verification is pending"),
        (["--user", "off", "--from", "x@a.com"], "refused", "inactive_user", "The user exists but is not active."),
    ],
)
def test_check(run: Run, arguments: list[str], outcome: str, reason: str | None, said: str) -> None:
    """D4, B2, B3, A13: the verdict, the reason and the remedy, in words and as JSON; exit status 1 if the message would be refused."""
    status = int(outcome == "refused")
    text = run("check", *arguments, status=status).stdout
    assert said in text
    assert text.startswith("Yes" if outcome == "accepted" else "No: the message would be refused")
    found = json.loads(run("check", *arguments, "--json", status=status).stdout)
    assert (found["outcome"], found["reason"], found["authorized"]) == (outcome, reason, reason is None)
    if reason is not None:
        assert f"Reason: {reason}\n" in text
        if found["remedy"]:
            assert f"Remedy: {found['remedy']}\n" in text


def test_alert_mode(run: Run) -> None:
    """A19, A32: in alert mode what is not authorized would be sent; who set the mode is named; what is no address stays refused."""
    question = ["check", "--user", "app", "--from", "x@d.com"]
    for command, said in ((["user", "edit", "app"], "set for the user"), (["list", "edit", "default"], "set by the list default")):
        run(*command, "--unauthorized", "alert")
        assert f"because of alert mode ({said}), and raises an alert." in run(*question).stdout
        found = json.loads(run(*question, "--json").stdout)
        assert (found["outcome"], found["mode"], found["reason"]) == ("alerted", "alert", "domain_not_authorized")
        run(*command, "--unauthorized", "inherit")
        run(*question, status=1)
    run("user", "edit", "app", "--unauthorized", "alert")
    run("check", "--user", "app", "--from", "x@d..com", status=1)
    run("user", "edit", "off", "--unauthorized", "alert")
    run("check", "--user", "off", "--from", "x@a.com", status=1)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["check"], 2, "Name the user and the envelope sender"),
        (["check", "--user", "app"], 2, "Name the user and the envelope sender"),
        (["check", "--user", "nobody", "--from", "x@a.com"], 1, 'There is no user "nobody"'),
        (["check", "--would-block", "--from", "x@a.com"], 2, "leave out --from"),
        (["check", "--user", "app", "--from", "x@a.com", "--since", "1d"], 2, "--since belongs to --would-block"),
        (["check", "--would-block", "--user", "nobody"], 1, "nobody"),
        (["check", "--would-block", "--since", "yesterday"], 2, '"yesterday" is no time'),
        (["who-may-send", "a.com"], 2, '"a.com" is no address'),
        (["completion", "tcsh"], 2, "'tcsh' is not one of"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], status: int, said: str) -> None:
    """What cannot be answered is a sentence on standard error."""
    result = run(*arguments, status=status)
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("x@a.com", [("app", "a.com")]),
        ("X@C.com", [("app", "x@c.com")]),
        ("x@www.b.com", [("app", "www.b.com")]),
        ("x@b.com", []),
        ("x@m.a.com", []),
    ],
)
def test_who_may_send(run: Run, address: str, expected: list[tuple[str, str]]) -> None:
    """D4: everybody who may use an address now, by which entry; who is not active or not verified is not among them."""
    assert [(each["user"], each["entry"]) for each in json.loads(run("who-may-send", address, "--json").stdout)] == expected
    text = run("who-may-send", address).stdout
    assert all(name in text for name, _ in expected)
    assert ("Nobody may send" in text) == (not expected)


def test_who_may_send_without_verification(run: Run) -> None:
    """D4, A16, A18: where verification is not asked for, pending entries count, subtrees reach down, and users without entries may all."""
    run("list", "edit", "default", "--require-verified", "no")
    run("user", "add", "any")
    run("user", "add", "strict", "--domains", "a.com", "--require-verified", "yes")
    for address, users in (("x@m.a.com", ["any", "new"]), ("x@a.com", ["any", "app", "new"]), ("x@nota.com", ["any"])):
        assert [each["user"] for each in json.loads(run("who-may-send", address, "--json").stdout)] == users
    assert "any sender" in run("who-may-send", "x@z.com").stdout


def count(config: Path, *rows: tuple[str, str, int, float, float]) -> None:
    """Write rows as the daemon does: user, sender, count, first and last time."""
    engine = create_engine(f"sqlite:///{config.parent}/state/smtpplus.sqlite")
    with engine.begin() as connection:
        for user, sender, many, first, last in rows:
            values = {"user": user, "sender": sender, "reason": "domain_not_authorized", "reply": "550 5.7.1 no", "count": many}
            connection.execute(insert(would_refuse).values(**values, first_at=first, last_at=last))
    engine.dispose()


def test_would_block(config: Path, run: Run) -> None:
    """D5: what block mode would refuse, by user and sender with counts, most first, and for each the command that switches."""
    assert "Nothing" in run("check", "--would-block").stdout
    count(
        config,
        ("app", "x@d.com", 2, 10.0, 20.0),
        ("app", "x@e.com", 7, 1.0, 5.0),
        ("new", "x@d.com", 1, 30.0, 30.0),
        ("gone", "x@d.com", 1, 1.0, 1.0),
    )
    run("list", "edit", "default", "--unauthorized", "alert")
    run("user", "edit", "new", "--unauthorized", "alert")
    found = json.loads(run("check", "--would-block", "--json").stdout)
    assert [(each["user"], each["sender"], each["count"], each["first_at"], each["last_at"]) for each in found] == [
        ("app", "x@e.com", 7, 1.0, 5.0),
        ("app", "x@d.com", 2, 10.0, 20.0),
        ("gone", "x@d.com", 1, 1.0, 1.0),
        ("new", "x@d.com", 1, 30.0, 30.0),
    ]
    by_list, by_user = "smtpplus list edit --unauthorized block default", "smtpplus user edit --unauthorized block new"
    assert [each["switch"] for each in found] == [by_list, by_list, None, by_user]
    assert json.loads(run("check", "--would-block", "--user", "NEW", "--json").stdout) == found[3:]
    assert json.loads(run("check", "--would-block", "--since", "1970-01-01T00:00:20+00:00", "--json").stdout) == [found[1], found[3]]
    text = run("check", "--would-block").stdout
    assert by_list in text and by_user in text
    for command in (by_list, by_user):  # the commands that were named do what they say
        run(*command.split()[1:])
    found = json.loads(run("check", "--would-block", "--json").stdout)
    assert [(each["mode"], each["switch"]) for each in found] == [("block", None), ("block", None), (None, None), ("block", None)]
    assert "Then switch to block mode" not in run("check", "--would-block").stdout  # nobody is left who could


def test_would_block_by_the_configuration(config: Path, run: Run) -> None:
    """D5, A20: where the whole server is in alert mode, the listing says which line of the configuration switches it."""
    config.write_text(config.read_text() + '[senders]\nunauthorized = "alert"\n')
    count(config, ("app", "x@d.com", 2, 10.0, 20.0))
    text = run("check", "--would-block").stdout
    assert 'unauthorized = "block" under [senders]' in text
    assert "smtpplus list edit --unauthorized block default" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1d", 9 * DAY), ("2h 30m", 10 * DAY - 9000), ("1970-01-02T00:00:00+00:00", DAY), ("1970-01-03 12:00+00:00", 2.5 * DAY)],
)
def test_times(text: str, expected: float) -> None:
    """--since takes how long ago, or a date with or without time of day."""
    assert moment(text, 10 * DAY) == expected


def test_completion(config: Path, tmp_path: Path) -> None:
    """The script of each shell is printed, and what it calls completes commands, also those imported late; bash accepts the script."""
    for name in ("bash", "zsh", "fish"):
        script = shell("completion", name)
        assert script.returncode == 0
        assert b"_SMTPPLUS_COMPLETE=" in script.stdout
    path = tmp_path / "completion.bash"
    path.write_bytes(shell("completion", "bash").stdout)
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=60)
    words = shell(_SMTPPLUS_COMPLETE="bash_complete", COMP_WORDS="smtpplus user e", COMP_CWORD="2")
    assert b"plain,edit" in words.stdout.split()
