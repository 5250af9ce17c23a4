"""The mail log: a line per event, written in batches, to a file that may be renamed."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

from twisted.internet.task import Clock

from smtpplus.events import Connected, Delivered, Started
from smtpplus.observation.maillog import EVERY, MailLog

NOW = 1_800_000_000.0
DELIVERED = Delivered(1.5, "0ABC", "b@example.net", "example.net", "mx[192.0.2.1]:25", '250 2.0.0 "ok" now\u2665', 1, 0.25)


def test_text_names_the_event_and_quotes_what_has_blanks(tmp_path: Path) -> None:
    """C9: a line has the time in UTC, the event and its fields; a text with blanks or quotes is quoted."""
    clock = Clock()
    log = MailLog(tmp_path / "mail.log", "text", clock, lambda: NOW)
    log(DELIVERED)
    log(Started(2.0, "0ABC", "example.net", ("b@example.net", "c@example.net"), 1, 3))
    clock.advance(EVERY)
    assert (tmp_path / "mail.log").read_text() == (
        "1970-01-01T00:00:01.500Z delivered id=0ABC recipient=b@example.net destination=example.net peer=mx[192.0.2.1]:25 "
        'reply="250 2.0.0 \\"ok\\" now\u2665" attempt=1 waited=0.250 level=3\n'
        "1970-01-01T00:00:02.000Z started id=0ABC destination=example.net recipients=b@example.net,c@example.net attempt=1 level=3\n"
    )
    log.close()


def test_json_is_one_object_per_line(tmp_path: Path) -> None:
    """C9: in JSON each line is an object whose `event` is the event's name."""
    log = MailLog(tmp_path / "mail.log", "json", Clock(), lambda: NOW)
    log(DELIVERED)
    log(Connected(2.0, "s1", "192.0.2.1:4711", 25))
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "mail.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["Delivered", "Connected"]
    assert lines[0]["reply"] == DELIVERED.reply


def test_no_text_from_outside_breaks_a_line(tmp_path: Path) -> None:
    """C9: a line end, a NUL or a lone surrogate in a field stays inside its line."""
    clock = Clock()
    log = MailLog(tmp_path / "mail.log", "text", clock, lambda: NOW)
    log(Connected(1.0, "s", "a\nb\x00\udc80", 25))
    log.close()
    lines = (tmp_path / "mail.log").read_text().split("\n")
    assert len(lines) == 2
    assert "a\\nb" in lines[0]


def test_nothing_is_written_before_its_time_and_all_at_once(tmp_path: Path) -> None:
    """Events are gathered: nothing is written until the interval is over."""
    clock = Clock()
    log = MailLog(tmp_path / "mail.log", "text", clock, lambda: NOW)
    for _ in range(3):
        log(DELIVERED)
    assert not (tmp_path / "mail.log").exists()
    clock.advance(EVERY)
    assert (tmp_path / "mail.log").read_text().count("\n") == 3
    log.close()


def test_a_renamed_file_is_opened_anew(tmp_path: Path) -> None:
    """After logrotate renames the file, later lines go to a new one."""
    log = MailLog(tmp_path / "mail.log", "text", Clock(), lambda: NOW)
    log(DELIVERED)
    log.flush()
    (tmp_path / "mail.log").rename(tmp_path / "mail.log.1")
    log(DELIVERED)
    log.close()
    assert [(tmp_path / name).read_text().count("\n") for name in ("mail.log", "mail.log.1")] == [1, 1]


def test_a_log_that_cannot_be_written_raises_nothing(tmp_path: Path) -> None:
    """A mail log in a missing directory does not disturb the mail, and is used as soon as it can be."""
    log = MailLog(tmp_path / "missing" / "mail.log", "text", Clock(), lambda: NOW)
    log(DELIVERED)
    log.flush()
    (tmp_path / "missing").mkdir()
    log(DELIVERED)
    log.close()
    lines = (tmp_path / "missing" / "mail.log").read_text().splitlines()
    assert (len(lines), "lost: 1" in lines[0]) == (2, True)


def test_a_log_cut_in_half_goes_on_with_a_fresh_line(tmp_path: Path) -> None:
    """C9: where the file system takes half a line and no more, what follows begins on a line of its own, with the number of those lost."""
    clock = Clock()
    log = MailLog(tmp_path / "mail.log", "json", clock, lambda: NOW)
    before, soft = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    log(DELIVERED)
    log.flush()
    whole = (tmp_path / "mail.log").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 20, soft[1]))
        for _ in range(2):
            log(DELIVERED)
            log(DELIVERED)
            log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, before)
    log(DELIVERED)
    log.close()
    first, half, notice, last = (tmp_path / "mail.log").read_text().splitlines()
    assert json.loads(notice)["at"] == NOW
    assert (len(half), json.loads(notice)["what"]) == (20, "the mail log could not be written; lines lost: 4")
    assert first == last
