"""The command line on a real database: what each command does, prints and refuses, as a process of its own or in this one."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import click
import pytest
from click.testing import CliRunner, Result

from smtpplus.accounts import passwords, store
from smtpplus.operation.cli import COMMANDS, main
from smtpplus.storage.engine import create_engine

SMTPPLUS = Path(sys.executable).parent / "smtpplus"
Run = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose state lies beside it."""
    path = tmp_path / "smtpplus.toml"
    path.write_text('state_directory = "state"\n')
    return path


@pytest.fixture
def run(config: Path) -> Run:
    """Call `smtpplus --config … ARGUMENTS` in this process."""

    def call(*arguments: str, stdin: bytes = b"") -> Result:
        result = CliRunner().invoke(main, ["--config", str(config), *arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return call


def stored(config: Path, name: str) -> store.User:
    """The user as the database has it."""
    engine = create_engine(f"sqlite:///{config.parent}/state/smtpplus.sqlite")
    with engine.connect() as connection:
        user = store.get_user(connection, name)
    engine.dispose()
    return user


def shell(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the installed command as a process of its own."""
    variables = {key: value for key, value in os.environ.items() if key != "SMTPPLUS_CONFIG"} | environment
    return subprocess.run([SMTPPLUS, *arguments], input=stdin, capture_output=True, env=variables, timeout=60, check=False)


def test_life_of_a_user(config: Path) -> None:
    """A5, A6, A7: add, show, reset, deactivate, activate and delete, each as a process of its own, the configuration named by variable."""
    added = shell("user", "add", "Demo", "--domains", "a.com;.b.com", "--vouch", "--json", SMTPPLUS_CONFIG=str(config))
    assert (added.returncode, added.stderr) == (0, b"")
    first = json.loads(added.stdout)
    assert set(first) == {"user", "password"}
    assert first["user"] == "demo"
    assert passwords.verify(stored(config, "demo").password, first["password"])

    reset = shell("--config", str(config), "user", "reset-password", "demo")
    second = reset.stdout.decode().splitlines()[-1]
    assert second != first["password"]
    assert passwords.verify(stored(config, "demo").password, second)
    assert not passwords.verify(stored(config, "demo").password, first["password"])

    for command, active in (("deactivate", False), ("activate", True)):
        assert shell("--config", str(config), "user", command, "demo").returncode == 0
        shown = json.loads(shell("--config", str(config), "user", "show", "demo", "--json").stdout)
        assert shown["active"] is active

    assert shell("--config", str(config), "user", "delete", "demo").returncode == 0
    gone = shell("--config", str(config), "user", "show", "demo")
    assert (gone.returncode, gone.stdout) == (1, b"")
    assert gone.stderr.decode() == 'Error: There is no user "demo"; `smtpplus user list` names them.\n'


def test_password_is_printed_once_and_kept_nowhere(config: Path, run: Run) -> None:
    """A6: a grep of the state directory and of every later output finds neither the generated nor the given password."""
    made = run("user", "add", "demo", "--domains", "a.com").stdout.splitlines()[-1]
    run("user", "reset-password", "demo", "--password-stdin", stdin=b"given from outside\n")
    later = [run("user", *arguments).output for arguments in (["list"], ["list", "--json"], ["show", "demo"], ["show", "demo", "--json"])]
    files = [path.read_bytes() for path in (config.parent / "state").iterdir()]
    assert len(made) == passwords.LENGTH
    assert files
    for secret in (made, "given from outside"):
        assert not any(secret in output for output in later)
        assert not any(secret.encode() in octets for octets in files)
    hashed = stored(config, "demo").password
    assert not any(hashed in output or "argon2" in output for output in later)


@pytest.mark.parametrize("line", [b"a secret\n", b"a secret\r\n", b"a secret", b"a secret\nmore\n", "pässwörd ünd blank\n".encode()])
def test_password_from_standard_input(config: Path, run: Run, line: bytes) -> None:
    """A6: --password-stdin takes the first line as the password, for migration, and prints it nowhere."""
    result = run("user", "add", "demo", "--domains", "a.com", "--password-stdin", "--json", stdin=line)
    assert json.loads(result.stdout) == {"user": "demo", "password": None}
    assert passwords.verify(stored(config, "demo").password, line.splitlines()[0])


@pytest.mark.parametrize("line", [b"", b"\n", b"\xff\n", b"a\0bcdefgh\n", b"x" * 2000, "sieben€".encode()])
def test_faulty_password_from_standard_input(run: Run, line: bytes) -> None:
    """A6: no password, one that is no text, one of less than 8 characters or one without end is wrong usage, and no user is made."""
    result = run("user", "add", "demo", "--password-stdin", stdin=line)
    assert (result.exit_code, result.stdout) == (2, "")
    run("user", "add", "other", "--allow-any")
    assert [each["name"] for each in json.loads(run("user", "list", "--json").stdout)] == ["other"]


def test_show_and_list(run: Run) -> None:
    """A8, A17, A32: reading commands give the fields; the note is shown by `show` alone; --list chooses."""
    note = "[bold]for the shop[/bold]"
    run("list", "add", "news")
    run("user", "add", "demo", "--domains", "a.com; .b.com", "--senders", "x@c.com", "--priority", "2", "--note", note, "--list", "News")
    run("user", "add", "other", "--inactive")
    shown = json.loads(run("user", "show", "DEMO", "--json").stdout)
    created = shown["created_at"]
    pending = {"verified": False, "provenance": "", "verified_at": None, "verified_by": "", "created_at": created}
    settings = shown.pop("settings")
    assert settings["priority"] == {"value": 2, "from": "user"}
    assert settings["unauthorized"] == {"value": "block", "from": "server"}
    assert shown == {
        "name": "demo",
        "list": "news",
        "active": True,
        "priority": 2,
        "domains": [{"value": "a.com", **pending}, {"value": ".b.com", **pending}],
        "senders": [{"value": "x@c.com", **pending}],
        "allow_any": False,
        "scram": True,
        "created_at": created,
        "changed_at": created,
        "note": note,
    }
    listed = json.loads(run("user", "list", "--json").stdout)
    assert [each["name"] for each in listed] == ["demo", "other"]
    assert listed[0] == {key: value for key, value in shown.items() if key != "note"} | {"settings": settings}
    assert (listed[1]["active"], listed[1]["allow_any"]) == (False, True)
    assert [each["name"] for each in json.loads(run("user", "list", "--list", "news", "--json").stdout)] == ["demo"]
    table = run("user", "list").stdout
    assert "a.com (pending); .b.com (pending)" in table
    assert "for the shop" not in table
    assert note in run("user", "show", "demo").stdout


def test_edit(config: Path, run: Run) -> None:
    """A5, A12: an edit replaces the fields it names and vouches if it says so."""
    run("user", "add", "demo", "--domains", "a.com; b.com", "--vouch", "--note", "n")
    result = run("user", "edit", "demo", "--domains", "b.com; c.com", "--priority", "4")
    assert (result.exit_code, result.stdout) == (0, "User demo was changed.\n")
    user = stored(config, "demo")
    assert {str(entry): entry.verified for entry in user.senders} == {"b.com": True, "c.com": False}
    assert (user.settings.priority, user.note) == (4, "n")
    run("user", "edit", "demo", "--vouch")
    assert all(entry.verified for entry in stored(config, "demo").senders)


def test_last_entry_asks_for_consent(config: Path, run: Run) -> None:
    """A18: removing the last entry is refused without --allow-any, and the sentence names it."""
    run("user", "add", "demo", "--domains", "a.com", "--vouch")
    result = run("user", "edit", "demo", "--domains", "")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--allow-any" in result.stderr
    assert len(stored(config, "demo").senders) == 1
    assert run("user", "edit", "demo", "--domains", "", "--allow-any").exit_code == 0
    assert stored(config, "demo").senders == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--domains", "a.com"], "Note: not verified and refused until then: a.com."),
        (["--domains", "www.a.com", "--vouch"], 'Note: "www.a.com" covers addresses such as x@www.a.com only'),
        ([], "Note: demo has no domains and no senders, which allows every verified sender, and none is verified."),
        (["--domains", "a.com", "--vouch"], ""),
    ],
)
def test_hints(config: Path, run: Run, arguments: list[str], said: str) -> None:
    """A10, A18, B2: what will not work as it stands is said on standard error, with the remedy, and only there."""
    result = run("user", "add", "demo", *arguments, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["user"] == "demo"
    assert result.stderr.startswith(said) and bool(result.stderr) == bool(said)
    assert ("smtpplus sender " in result.stderr) == ("verified" in said)
    config.write_text('state_directory = "state"\n[senders]\nrequire_verified = false\n')
    assert "verified" not in run("user", "edit", "demo", "--note", "x").stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["user", "add", "demo"], 1, "The user demo exists already; change it with `smtpplus user edit demo`."),
        (["user", "add", "a b"], 2, '"a b" cannot be a user name'),
        (["user", "add", "new", "--domains", "a.com,b.com"], 2, '"a.com,b.com" has a comma; separate domains with ";".'),
        (["user", "add", "new", "--senders", "a.com"], 2, "a whole domain is given with --domains"),
        (["user", "add", "new", "--priority", "6"], 2, "6 is no priority; there are 1 (highest) to 5"),
        (["user", "add", "new", "--list", "a b"], 2, "cannot be the name of a list"),
        (["user", "add", "new", "--domains", "a.com", "--allow-any"], 2, "contradict"),
        (["user", "add"], 2, "Missing argument 'NAME'"),
        (["user", "edit", "demo"], 2, "Nothing to change was named"),
        (["user", "edit", "nobody", "--note", "x"], 1, 'There is no user "nobody"'),
        (["user", "delete", "nobody"], 1, 'There is no user "nobody"'),
        (["user", "delete", "demo", "--queued", "lose"], 2, "'lose' is not one of 'keep', 'drop'"),
        (["user", "activate", "nobody"], 1, 'There is no user "nobody"'),
        (["user", "reset-password", "nobody"], 1, 'There is no user "nobody"'),
        (["user", "drop"], 2, "No such command 'drop'"),
        (["usr"], 2, "No such command 'usr'"),
    ],
)
def test_refusals(run: Run, arguments: list[str], status: int, said: str) -> None:
    """Exit 1 for what cannot be done and 2 for wrong usage, with one sentence on standard error, nothing on standard output, no change."""
    run("user", "add", "demo", "--domains", "a.com")
    before = run("user", "list", "--json").stdout
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert said in result.stderr
    assert run("user", "list", "--json").stdout == before


@pytest.mark.parametrize("arguments", [["user", "list"], ["user", "add", "x"], ["user", "show", "x", "--json"], ["config", "check"]])
def test_faulty_configuration(config: Path, run: Run, arguments: list[str]) -> None:
    """A faulty configuration ends every command with 2 and one sentence for each fault, key and place in it."""
    config.write_text('hostnam = "x"\n[limits]\nrecipients = "many"\n')
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"{config}:1: hostnam is no option; did you mean hostname?",
        f'{config}:3: limits.recipients must be a whole number, 1 or more, not "many".',
    ]


def test_config_check(config: Path, run: Run) -> None:
    """`config check` says in one sentence that all is in order, and gives the faults as JSON when asked."""
    assert run("config", "check").stdout.endswith(" is in order.\n")
    assert json.loads(run("config", "check", "--json").stdout) == {"faults": [], "warnings": []}
    config.write_text("x = 1\n")
    result = run("config", "check", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (2, {"faults": [f"{config}:1: x is no option."]})


def test_no_configuration(tmp_path: Path) -> None:
    """A missing file ends the process with 2 and a sentence, whether --config or SMTPPLUS_CONFIG names it; --config comes first."""
    missing = str(tmp_path / "none.toml")
    expected = f"{missing}: there is no such file; name one with --config or SMTPPLUS_CONFIG.\n"
    for result in (
        shell("--config", missing, "user", "list"),
        shell("user", "list", SMTPPLUS_CONFIG=missing),
        shell("--config", missing, "user", "list", SMTPPLUS_CONFIG="/dev/null"),
    ):
        assert (result.returncode, result.stdout, result.stderr.decode()) == (2, b"", expected)


def test_unusable_database(tmp_path: Path, config: Path) -> None:
    """A database that cannot be used is a sentence and exit 1, never a traceback, and its URL is shown without a password."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "smtpplus.sqlite").write_text("this is no database, whatever its name says\n" * 100)
    broken = shell("--config", str(config), "user", "list")
    assert (broken.returncode, broken.stdout) == (1, b"")
    assert b"cannot be used: file is not a database." in broken.stderr
    config.write_text('database = "postgresql://u:hidden@127.0.0.1:1/n"\n')
    absent = shell("--config", str(config), "user", "list")
    assert absent.returncode == 1
    assert b"cannot be used" in absent.stderr
    assert b"hidden" not in absent.stderr
    for result in (broken, absent):
        assert b"Traceback" not in result.stderr


def test_starts_fast() -> None:
    """Asking for help, or for the version, imports neither the database nor Twisted nor the tables for people."""
    script = (
        "import sys; from smtpplus.operation.cli import main; main(['user', 'add', '--help'], standalone_mode=False);"
        "print(sorted({'sqlalchemy', 'twisted', 'rich', 'argon2', 'msgspec'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    """Each command of the table can be imported, and it, its subcommands and their options have a help text."""

    def explained(command: click.Command) -> None:
        assert command.help, command.name
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None), (command.name, parameter.name)
        for inner in getattr(command, "commands", {}).values():
            explained(inner)

    command: Any = main.get_command(click.Context(main), name)
    explained(command)


def redirected(config: Path, *arguments: str, how: str) -> subprocess.CompletedProcess[bytes]:
    """Run the installed command with the redirection `how` of a shell."""
    script = f'exec "$0" --config "$1" "${{@:2}}" {how}'
    return subprocess.run(["bash", "-c", script, SMTPPLUS, str(config), *arguments], capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_password_that_cannot_be_shown_is_not_lost(config: Path, more: tuple[str, ...]) -> None:
    """A5: with standard output closed nothing is changed; where writing fails, the user is told to be there, and what to do."""
    closed = redirected(config, "user", "add", "demo", "--domains", "a.com", *more, how=">&-")
    assert (closed.returncode, b"Nothing was changed" in closed.stderr) == (1, True)
    full = redirected(config, "user", "add", "demo", "--domains", "a.com", *more, how=">/dev/full")
    assert full.returncode == 1
    assert b"smtpplus user reset-password demo" in full.stderr
    assert b"Traceback" not in full.stderr and b"Exception ignored" not in full.stderr
    assert stored(config, "demo").name == "demo"


def test_what_cannot_be_shown_is_no_traceback(config: Path) -> None:
    """Whatever fails in showing an answer, the command says so in a sentence."""
    assert shell("--config", str(config), "user", "add", "demo", "--domains", "a.com", "--note", "ü→").returncode == 0
    listed = redirected(config, "user", "list", how=">/dev/full")
    assert listed.returncode == 1
    assert b"cannot be written: No space left" in listed.stderr and b"Traceback" not in listed.stderr
    shown = shell("--config", str(config), "user", "show", "demo", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert shown.returncode == 0 and b"\\xfc\\u2192" in shown.stdout


def test_octets_that_are_no_text_are_refused(config: Path) -> None:
    """An argument, a name of the operator or an input that is no text ends in a sentence, or is made readable."""
    for arguments in (("user", "show", b"\xff"), ("user", "add", b"d\xe9mo", "--domains", "a.com"), (b"\xff",)):
        result = subprocess.run([SMTPPLUS, "--config", config, *arguments], capture_output=True, timeout=60, check=False)
        assert (result.returncode, b"no text in UTF-8" in result.stderr, b"Traceback" in result.stderr) == (2, True, False)
    none = redirected(config, "user", "add", "demo", "--domains", "a.com", "--password-stdin", how="<&-")
    assert (none.returncode, b"Standard input is closed" in none.stderr) == (2, True)
    environment = {**os.environb, b"LOGNAME": b"\x1b[2J\xff"}
    command: list[Any] = [SMTPPLUS, "--config", config, "user", "add", "demo", "--domains", "a.com", "--vouch"]
    added = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
    assert added.returncode == 0, added.stderr
    (entry,) = stored(config, "demo").senders
    assert entry.verified_by.isprintable() and entry.verified_by.endswith("at the command line")


def test_remedies_can_be_copied(run: Run) -> None:
    """A remedy is quoted so that a shell reads back what was meant, also a name that begins with a dash."""
    run("list", "add", "strict", "--require-verified", "yes")
    result = run("user", "add", "--list", "strict", "--domains", "a.com", "--senders", "o'neil@b.com", "--", "-demo")
    (line,) = [line for line in result.stderr.splitlines() if "sender verify" in line]
    words = shlex.split(line.partition("Ask for it: ")[2].partition(". Or")[0])
    assert words == ["smtpplus", "sender", "verify", "--", "-demo", "a.com; o'neil@b.com"]


def test_a_database_of_a_newer_release_is_refused(config: Path, run: Run) -> None:
    """What a newer release has made is not touched; the sentence says what to do."""
    assert run("user", "add", "demo", "--allow-any").exit_code == 0
    engine = create_engine(f"sqlite:///{config.parent}/state/smtpplus.sqlite")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    result = run("user", "list")
    assert result.exit_code == 1
    assert "is of a newer release" in result.stderr and "install that release again" in result.stderr


def test_a_list_that_is_not_there_has_no_users(run: Run) -> None:
    """A mistyped list is refused, and not shown as an empty one."""
    assert run("user", "add", "demo", "--allow-any").exit_code == 0
    assert run("user", "list", "--list", "default").exit_code == 0
    result = run("user", "list", "--list", "typo")
    assert result.exit_code == 1 and 'no list "typo"' in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sender", "add", "demo", "a b"], "name domains and addresses one by one"),
        (["user", "edit", "demo", "--alerts", "foo"], 'write one such as "ops@a.com"'),
        (["stats", "--json", "--csv"], "exclude each other"),
        (["doctor", "--domain", "x y"], "--domain: "),
    ],
)
def test_wrong_usage_has_its_own_remedy(run: Run, arguments: list[str], said: str) -> None:
    """What is written wrongly is wrong usage, 2, and the remedy is for the option that was used."""
    run("user", "add", "demo", "--domains", "a.com")
    result = run(*arguments)
    assert (result.exit_code, said in " ".join(result.stderr.split())) == (2, True), result.output


def test_nobody_is_sent_to_a_top_level_domain(run: Run) -> None:
    """B2: www.com is meant as it is: mail is not sent from com."""
    assert run("user", "add", "demo", "--domains", "www.com", "--vouch").stderr == ""
    assert "sent from a.com" in run("user", "add", "other", "--domains", "www.a.com", "--vouch").stderr
