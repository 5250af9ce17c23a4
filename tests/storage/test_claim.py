"""Who may clear away files: one daemon at a time, and only the one whose database they belong to."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from smtpplus.mail.envelope import queue_id
from smtpplus.storage.claim import Claim, ClaimError, settle_content
from smtpplus.storage.engine import migrate
from smtpplus.storage.files import MARK

MESSAGE = "INSERT INTO messages (id, state, sender, user, level, size, received_at, chunks) VALUES (?, 1, 'a@b', 'app', 3, 1, 0, 1)"


class Home:
    """A state directory."""

    def __init__(self, path: Path) -> None:
        self.database = path / "smtpplus.sqlite"
        self.url = f"sqlite:///{self.database}"
        self.content = path / "smtpplus.sqlite-content"

    def start(self) -> None:
        """What a daemon does before it serves."""
        migrate(self.url)
        settle_content(self.url)

    def keep(self, number: int) -> None:
        """A long message."""
        (self.content / queue_id(number)).write_bytes(b"x")
        connection = sqlite3.connect(self.database)
        with connection:
            connection.execute(MESSAGE, (number,))
        connection.close()

    def mark(self) -> str:
        return (self.content / MARK).read_text()

    def without_number(self) -> None:
        """The database of an earlier release."""
        connection = sqlite3.connect(self.database)
        with connection:
            connection.execute("DELETE FROM generation WHERE name = 'content'")
        connection.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.start()
    return made


def test_one_at_a_time(tmp_path: Path) -> None:
    """C2: who comes second is told who is first and what to do; the next begins at once when the first has released it."""
    url = f"sqlite:///{tmp_path}/state/a.sqlite"
    first = Claim(url)
    with pytest.raises(ClaimError, match=rf"^another smtpplus \(process {os.getpid()}\) uses {tmp_path}/state/a.sqlite; stop it, or wait"):
        Claim(url)
    other = Claim(f"sqlite:///{tmp_path}/state/b.sqlite")
    first.release()
    Claim(url).release()
    other.release()
    assert (tmp_path / "state" / "a.sqlite.daemon").stat().st_mode & 0o777 == 0o600


def test_a_process_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    """C2: after SIGKILL the next one begins at once."""
    url = f"sqlite:///{tmp_path}/a.sqlite"
    text = f"import time; from smtpplus.storage.claim import Claim; held = Claim({url!r}); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ClaimError, match=f"process {process.pid}"):
            Claim(url)
        process.kill()
        process.wait(10)
        Claim(url).release()


def test_a_server_has_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL: content lies in rows, and nothing is made. That one daemon serves it, tests/postgresql shows."""
    monkeypatch.chdir(tmp_path)
    settle_content("postgresql://db/mail")
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_there_and_durable_before_mail_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C2: mark, directory and the directory's own name are synced, in this order; nobody else may look; the next start changes nothing."""
    synced: list[str] = []
    call = os.fsync

    def spied(handle: int) -> None:
        call(handle)
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)

    home = Home(tmp_path)
    migrate(home.url)
    monkeypatch.setattr(os, "fsync", spied)
    settle_content(home.url)
    assert synced == [MARK, home.content.name, tmp_path.name]
    assert [path.stat().st_mode & 0o777 for path in (home.content, home.content / MARK)] == [0o700, 0o600]
    before = home.mark()
    home.keep(1)
    home.start()
    assert home.mark() == before


def test_files_of_another_database_stay(home: Home, tmp_path: Path) -> None:
    """C2: with a new database in its place nothing starts and nothing goes; with the old one back everything is as it was."""
    home.keep(1)
    aside = tmp_path / "aside"
    home.database.rename(aside)
    for _ in range(2):
        with pytest.raises(ClaimError, match=r"content of 1 messages of another database .*; put back the database"):
            home.start()
    aside.rename(home.database)
    home.start()
    other = Home(tmp_path / "other")
    other.start()
    other.keep(1)
    shutil.copy(home.content / MARK, other.content / MARK)
    with pytest.raises(ClaimError):
        other.start()
    assert (home.content / queue_id(1)).exists() and (other.content / queue_id(1)).exists()


def test_a_directory_without_files_is_anybodys(home: Home) -> None:
    """Who begins anew with an empty queue is not asked: the directory belongs to the new database from then on."""
    before = home.mark()
    home.database.unlink()
    home.start()
    assert home.mark() != before
    home.keep(1)
    home.start()


def test_a_backup_goes_on(home: Home, tmp_path: Path) -> None:
    """C2: database and files copied one after the other, and put back elsewhere, belong together, whatever was settled in between."""
    home.keep(1)
    there = tmp_path / "restored"
    there.mkdir()
    shutil.copy(home.database, there)
    home.keep(2)
    (home.content / queue_id(1)).unlink()
    shutil.copytree(home.content, there / home.content.name)
    restored = Home(there)
    restored.start()
    assert restored.mark() == home.mark()
    assert [path.name for path in restored.content.iterdir() if path.name != MARK] == [queue_id(2)]


def test_where_one_bears_no_number(home: Home) -> None:
    """What an earlier release left, or a copy of the files alone, is taken if the database knows one of them, and else not."""
    home.keep(600)
    for number in range(599):
        (home.content / queue_id(number)).write_bytes(b"x")
    for strip in (home.without_number, (home.content / MARK).unlink):
        strip()
        home.start()
    (home.content / MARK).write_bytes(b"")  # a crash while it was written
    home.start()
    (home.content / queue_id(600)).unlink()
    home.start()
    (home.content / MARK).unlink()
    with pytest.raises(ClaimError, match="content of 599 messages"):
        home.start()
