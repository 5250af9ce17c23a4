"""The commands and configurations that the documents show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from sqlalchemy import Engine

from smtpplus.config import load
from smtpplus.mail.envelope import queue_id
from smtpplus.operation.cli import main
from tests.operation import test_queues
from tests.operation.test_queues import Queue, put

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SHOWN = "1M80DWP294M00"  # the queue ID in docs/queue.md
engine, queue = test_queues.engine, test_queues.queue  # fixtures
LINKED = re.compile(r"\]\(([^)#]+)\)")


def shown(document: Path) -> Iterator[list[str]]:
    """The words of each command in a block of a document, without what is said about it: after two blanks, or "#"."""
    fenced = False
    for line in document.read_text().splitlines():
        fenced ^= line == "```"
        if found := re.match(r"(smtpplus .*)" if fenced else r"    (smtpplus .*)", line):
            yield shlex.split(re.split(r"\s{2,}(?!--)|\s#", found[1])[0].replace("'s ", " "), comments=False)


def unknown(words: list[str]) -> Iterator[str]:
    """The verbs and options among the words of a command that there are not."""
    command: click.Command = main
    context = click.Context(main)
    options: set[str] = {"--help"}
    options.update(*(parameter.opts for parameter in command.params))
    for word in words[1:]:
        if word == "|":
            return  # other verbs, told in short
        if isinstance(command, click.Group) and not word.startswith("-") and word != "FILE":
            following = command.get_command(context, word)
            if following is None:
                yield word
                return
            command = following
            options.update(*(parameter.opts + parameter.secondary_opts for parameter in command.params))
        elif (option := word.strip("[]").partition("=")[0]).startswith("--") and option not in options:
            yield option


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    """B4: each verb and option of a command that a document shows is one."""
    assert [(" ".join(words), word) for words in shown(document) for word in unknown(words)] == []


def test_the_search_finds_something() -> None:
    """The test above would find a verb or an option that there is not, and sees the commands that are shown."""
    assert [*unknown(["smtpplus", "queue", "flush"])] == ["flush"]
    assert [*unknown(["smtpplus", "queue", "list", "--newest"])] == ["--newest"]
    assert sum(1 for document in DOCUMENTS for _ in shown(document)) > 40


def test_the_queue_is_operated_as_shown(engine: Engine, queue: Queue) -> None:
    """A30, A31: the commands of docs/queue.md run one after the other as they stand there."""
    number = queue_id(put(engine, user="shop", level=5, list="news"))
    commands = [*shown(ROOT / "docs" / "queue.md")]
    verbs = {words[2] for words in commands}
    assert verbs == {"list", "show", "hold", "pause", "release", "resume", "retry", "reschedule", "cancel"}
    for words in commands:
        queue(*(number if word == SHOWN else word for word in words[1:]))


def test_routes_are_routes(tmp_path: Path) -> None:
    """The configurations in docs/postfix.md are accepted."""
    (tmp_path / "smarthost.password").write_text("secret\n")
    text = (ROOT / "docs" / "postfix.md").read_text()
    blocks = [block for block in re.findall(r"(?:^    .*\n|^\n)+", text, re.MULTILINE) if "[[route]]" in block]
    path = tmp_path / "smtpplus.toml"
    path.write_text("".join(blocks))
    assert [route.via for route in load(path).route] == ["smtp://smtp.example.com:587", "maildir:/srv/mail/{domain}/{user}"]


def test_links_lead_somewhere() -> None:
    """A link of a document to a file leads to one, and README.md links to every document."""
    for document in DOCUMENTS:
        for link in LINKED.findall(document.read_text()):
            assert "://" in link or (document.parent / link).exists(), f"{document.name}: {link}"
    linked = {(ROOT / link).resolve() for link in LINKED.findall(DOCUMENTS[0].read_text())}
    assert set(DOCUMENTS[1:]) <= linked
