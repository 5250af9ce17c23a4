"""Commands that are shown to be copied: what users and strangers have named in them is quoted for the shell."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Iterator

import pytest

import smtpplus
from smtpplus.mail import reasons
from smtpplus.mail.command_line import quoted
from smtpplus.operation.cli import COMMANDS

PACKAGE = Path(smtpplus.__file__).parent
ROOMS = sorted(path for floor in ("accounts", "delivery", "observation", "operation") for path in (PACKAGE / floor).glob("*.py"))
OURS = {  # of our own making, and plain words
    "by_rule[1]",
    "event.asked",
    "event.id",
    "queued.name",
    "queued.rule.id",
    "rule.id",
    "token",
}


def unquoted(path: Path) -> Iterator[str]:
    """What is put into a command line as it is."""
    for string in ast.walk(ast.parse(path.read_text())):
        if not isinstance(string, ast.JoinedStr):
            continue
        said = ""
        for part in string.values:
            if isinstance(part, ast.Constant):
                said += str(part.value)
            elif isinstance(part, ast.FormattedValue):
                command = said.rpartition("smtpplus ")[2] if "smtpplus " in said else ""
                within = command.split(" ")[0] in COMMANDS and not any(end in command for end in ("`", ". ", "\n", "; "))
                inner = part.value
                called = isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "quoted"
                if within and not called and ast.unparse(inner) not in OURS:
                    yield f"{path.name}:{inner.lineno}: {ast.unparse(inner)}"
                said += "x"


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_values_in_commands_are_quoted(path: Path) -> None:
    """D3: whatever somebody has named, the command that is shown for it can be pasted into a shell."""
    assert [*unquoted(path)] == []


def test_the_search_finds_something(tmp_path: Path) -> None:
    """The test above would find a value that is not quoted, and sees the quoted ones that there are."""
    bad = tmp_path / "bad.py"
    bad.write_text('f"do `smtpplus user show {name_}` or {other}"')
    assert [*unquoted(bad)] == ["bad.py:1: name_"]
    assert sum(path.read_text().count("quoted(") for path in ROOMS) > 20


@pytest.mark.parametrize("word", ["a", "a b", "o'hara@a.com", "$(id)@evil.com", '"a;b"@c.com', "*", "-x@a.com", "ü@d.com", "", "a`b"])
def test_a_shell_reads_it_back(word: str) -> None:
    """D3: a shell makes of a quoted word the word itself, and a command takes it for no option."""
    words = shlex.split(f"smtpplus sender add --verify {quoted('app', word)}")
    assert words[-1] == word
    assert ("--" in words) is word.startswith("-")
    assert "".join(words).count("smtpplus") == 1


def test_remedies_in_replies_are_quoted() -> None:
    """D3: also the commands in the replies of the server, and these alone: the words around them are as they were."""
    reply = reasons.SENDER_NOT_VERIFIED.reply(where="header field From", user="app", address="$(id)@evil.com", domain="evil.com")
    assert "`smtpplus sender add --verify app '$(id)@evil.com'`" in reply.text
    assert "header field From $(id)@evil.com is not verified" in reply.text
