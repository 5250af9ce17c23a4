"""`stats` over a history in a real database: every dimension adds up exactly, in every form."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from sqlalchemy import func, insert, select

from smtpplus import events
from smtpplus.mail.envelope import queue_id
from smtpplus.observation import story
from smtpplus.observation.history import prune
from smtpplus.observation.statistics import DIMENSIONS, day, pattern
from smtpplus.observation.sums import KEPT, OUTLIVING, forget
from smtpplus.operation.cli import main
from smtpplus.operation.plot import bar
from smtpplus.storage.engine import create_engine, migrate
from smtpplus.storage.schema import history, history_steps, refusals, sums

NOW = time.time()
MESSAGES = 700  # more than one batch of the reader


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration, and MESSAGES messages of two recipients: one delivered, one put off and then delivered, failed or waiting."""
    path = tmp_path / "smtpplus.toml"
    path.write_text('hostname = "mail.example.com"\nstate_directory = "state"\n')
    url = f"sqlite:///{tmp_path}/state/smtpplus.sqlite"
    migrate(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        for number in range(MESSAGES):
            message, steps = life(number)
            connection.execute(insert(history).values(message))
            connection.execute(insert(history_steps).values(steps))
        facts = {"at": NOW, "session": "s", "client": "c", "recipient": "", "reason": "too_large", "reply": "552"}
        for number, many in enumerate((1, 41)):
            row = {**facts, "id": (int(NOW * 1000) << 20) + number, "user": f"u{number}", "sender": f"s{number}@a.com", "count": many}
            connection.execute(insert(refusals).values(row))
    engine.dispose()
    return path


@pytest.mark.parametrize("arguments", [["stats", "--since"], ["stats", "--until"], ["explain", "--user", "nobody", "--since"]])
@pytest.mark.parametrize("when", ["2300-01-01", "9999-12-31", "1000-01-01", "3000000d", "99999999999d"])
def test_times_that_no_message_can_have(config: Path, arguments: list[str], when: str) -> None:
    """A32: a time before or after all that an id can say is answered, and never a traceback."""
    result = CliRunner().invoke(main, ["--config", str(config), *arguments, when])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception


def life(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of one message."""
    identity = (int((NOW - 60 - 3600 * (number % 48)) * 1000) << 20) + number
    at, name = (identity >> 20) / 1000, queue_id(identity)
    one = events.Delivered(at, name, "y@b.com", "b.com", "p", "250", 1, 0.1, 3)
    later: list[events.Event] = [events.Deferred(at + 1, name, "z@c.com", "c.com", "", "451", "peer_deferred", 1, at + 60, 3)]
    if number % 3 == 0:
        later.append(events.Delivered(at + 61, name, "z@c.com", "c.com", "p", "250", 2, 61.0, 3))
    elif number % 3 == 1:
        later.append(events.Failed(at + 61, name, "z@c.com", "c.com", "p", "550", "peer_refused", 2, 3))
    message = {
        "id": identity,
        "at": at,
        "user": f"u{number % 7}",
        "list": f"l{number % 2}",
        "sender": f"s{number % 90}@a.com",
        "recipients": '["y@b.com","z@c.com"]',
        "level": number % 5 + 1,
        "size": 100 + number,
        "session": "s",
        "client": "c",
        "message_id": f"<{number}@a.com>",
        "subject": f"Ticket {number} solved",
        "campaign": "spring" if number % 2 else "",
        "story": story.encode([story.chapter(one)]),
    }
    return message, {"message_id": identity, "number": 1, "story": story.encode([story.chapter(each) for each in later])}


def run(config: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["--config", str(config), "stats", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("by", DIMENSIONS)
def test_every_dimension_adds_up(config: Path, by: str) -> None:
    """C12, A32: whatever the rows are about and however many are shown, they add up to exactly what happened."""
    told = json.loads(run(config, "--by", by, "--json", "--top", "5"))
    for name, whole in told["total"].items():
        assert sum(row[name] for row in told["rows"]) == whole
    failed = len(range(1, MESSAGES, 3))
    delivered = MESSAGES + len(range(0, MESSAGES, 3))
    assert {name: told["total"][name] for name in ("delivered", "deferred", "failed", "recipients")} == {
        "delivered": delivered,
        "deferred": MESSAGES,
        "failed": failed,
        "recipients": 2 * MESSAGES,
    }
    assert told["total"]["messages"] == (2 * MESSAGES if by == "destination" else MESSAGES)
    assert told["total"]["refused"] == (42 if by in ("list", "user", "sender", "day") else 0)


@pytest.mark.parametrize("by", sorted(OUTLIVING))
def test_sums_outlive_the_history(config: Path, by: str) -> None:
    """C12: by list, user, day and level the sums stay exact while the history is deleted; by others they say what is left of it."""
    before = run(config, "--by", by, "--json", "--since", "60d")
    lists = run(config, "--by", "list", "--list", "l1", "--json", "--since", "60d")
    engine = create_engine(f"sqlite:///{config.parent}/state/smtpplus.sqlite")
    for hours in (40, 20, -1):
        with engine.begin() as connection:
            while prune(connection, NOW - 3600 * hours):
                pass
        told = json.loads(run(config, "--by", by, "--json", "--since", "60d"))
        assert told["rows"] == json.loads(before)["rows"]
    assert json.loads(run(config, "--by", "list", "--list", "l1", "--json", "--since", "60d"))["rows"] == json.loads(lists)["rows"]
    assert json.loads(run(config, "--by", "sender", "--json", "--since", "60d"))["total"]["messages"] == 0
    recent = json.loads(run(config, "--by", by, "--json", "--since", "0s"))["total"]["messages"]
    assert recent == 0
    with engine.begin() as connection:
        forget(connection, NOW + KEPT + 86_400)
        assert connection.execute(select(func.count()).select_from(sums)).scalar() == 0
    engine.dispose()


def test_what_is_not_known_any_more_is_said(config: Path) -> None:
    """C12: sums of a span that begins before what is known say from when on they are whole, for people and programs; others say nothing."""

    def told(by: str, since: str) -> tuple[bool, float]:
        found = json.loads(run(config, "--by", by, "--json", "--since", since))
        return found["complete"], found["known_since"] - found["since"]

    assert {told(by, "60d") for by in DIMENSIONS} == {(True, 0.0)}  # nothing was deleted yet
    config.write_text(config.read_text() + '[queue]\nhistory = "20h"\n')
    engine = create_engine(f"sqlite:///{config.parent}/state/smtpplus.sqlite")
    with engine.begin() as connection:
        prune(connection, NOW - 20 * 3600)
    engine.dispose()
    midnight = day(NOW - 30 * 3600)
    assert told("user", midnight) == told("level", "60d") == told("sender", "10h") == (True, 0.0)
    whole, gone = told("sender", "60d")
    assert not whole
    assert 60 * 86_400 - 20 * 3600 - 60 <= gone <= 60 * 86_400
    noted = run(config, "--by", "campaign", "--since", "60d")
    assert "Note: what was accepted or refused before" in " ".join(noted.split())
    within = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.mktime(time.strptime(midnight, "%Y-%m-%d")) + 60))
    assert (told("user", within)[0], "only whole ones" in run(config, "--by", "user", "--since", within)) == (False, True)
    rows = list(
        csv.DictReader(io.StringIO(CliRunner().invoke(main, ["--config", str(config), "stats", "--csv", "--since", within]).stdout))
    )
    assert all(row["day"].startswith("20") for row in rows)
    assert "Note" not in run(config, "--by", "sender", "--since", "10h")


def test_texts_that_look_like_outcomes_count_for_none(config: Path) -> None:
    """Outcomes are counted by how a story writes them, and no address or reply can write that: what is in texts is escaped."""
    number = int(NOW * 1000) << 20
    trap = '["Delivered",["Failed",'
    later = [
        events.Started(NOW, "x", "b.com", (trap, f'"{trap}"@b.com'), 1, 3),
        events.Deferred(NOW, "x", f'"{trap}"@b.com', "b.com", "p", f"451 {trap}", "peer_deferred", 1, NOW, 3),
    ]
    engine = create_engine(f"sqlite:///{config.parent}/state/smtpplus.sqlite")
    with engine.begin() as connection:
        row = life(0)[0] | {"id": number, "list": "trap", "recipients": json.dumps([trap, "y@b.com"])}
        connection.execute(insert(history).values(row | {"story": story.encode([story.chapter(each) for each in later[1:]])}))
        connection.execute(
            insert(history_steps).values(message_id=number, number=1, story=story.encode([story.chapter(each) for each in later]))
        )
    engine.dispose()
    for by in ("list", "user"):
        total = json.loads(run(config, "--by", by, "--list", "trap", "--json"))["total"]
        assert (total["recipients"], total["delivered"], total["deferred"], total["failed"]) == (2, 0, 2, 0)


def test_subjects_are_folded(config: Path) -> None:
    """C12: subjects that differ in their numbers are one pattern."""
    (row,) = json.loads(run(config, "--by", "subject-pattern", "--json"))["rows"]
    assert (row["subject-pattern"], row["messages"]) == ("Ticket [n] solved", MESSAGES)
    assert pattern("Order 17/2026: 3 items") == "Order [n]/[n]: [n] items"
    assert (
        pattern(f"Delivery status notification (failed) for {queue_id(1_887_436_800_000_000_001)}")
        == "Delivery status notification (failed) for [id]"
    )


def test_a_span_and_a_selection(config: Path) -> None:
    """A span of time and one list or user are counted alone."""
    recent = json.loads(run(config, "--since", "2h", "--json"))["total"]["messages"]
    assert recent == sum(60 + 3600 * (number % 48) < 7200 for number in range(MESSAGES))
    total = json.loads(run(config, "--by", "user", "--list", "L1", "--json"))["total"]
    assert total["messages"] == MESSAGES // 2
    assert json.loads(run(config, "--user", "U1", "--json"))["total"]["refused"] == 41


def test_forms(config: Path, tmp_path: Path) -> None:
    """The same numbers as a table, as CSV, as bars, and as an SVG that is XML."""
    rows = list(csv.DictReader(io.StringIO(run(config, "--by", "level", "--csv"))))
    assert [row["level"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert sum(int(row["messages"]) for row in rows) == MESSAGES
    assert f"{MESSAGES}" in run(config, "--by", "list")
    bars = run(config, "--by", "campaign", "--plot").splitlines()
    assert len(bars) == 2
    assert all("█" in line and line.rstrip().endswith(str(MESSAGES)) for line in bars)
    picture = tmp_path / "p.svg"
    run(config, "--by", "user", "--svg", str(picture))
    tree = ElementTree.parse(picture)
    assert len([each for each in tree.iter() if each.tag.endswith("title")]) == 3 * 7


def test_bar() -> None:
    """A bar is as long as its value, to an eighth of a character."""
    assert [bar(value, 8, 1) for value in (0, 1, 8)] == ["", "▏", "█"]
    assert bar(1, 0, 10) == ""
