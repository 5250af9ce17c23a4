"""The daemon's claim on an SQLite database and on the files beside it: one daemon for each database, one database for each directory.

A second daemon would take files that the first has written and not committed yet for leftovers, and so would a daemon whose database
is not the one that the files belong to. The first is kept out by a lock, which the system releases however the process ends; the second by
a number drawn at random, which is in the database and in the directory, and so in a backup of both.

Invariant: who has a Claim may remove files that its database does not know. Failure: ClaimError, before anything is changed. Commands
beside the daemon claim nothing. With PostgreSQL there are no files; whether a daemon serves it already is looked at here, and the claim
is the writer's (storage/postgresql).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy
from sqlalchemy import insert, select

from smtpplus.storage import ownership, postgresql
from smtpplus.storage.engine import content_directory, create_engine, database_file
from smtpplus.storage.files import listed, read_mark, sync, write_mark
from smtpplus.storage.schema import generation, messages

NAME = "content"  # of the number in the table `generation`
PAGE = 500  # numbers asked about at once


class ClaimError(Exception):
    """Database or files are in use or another's; str() is a sentence with its remedy."""


class Claim:
    """Held from the moment it is made until `release`, or the end of the process. Make it before the database is migrated."""

    def __init__(self, url: str) -> None:
        path = database_file(url)
        if path is None:
            _look(url)
        self._handle = None if path is None else _lock(path)

    def release(self) -> None:
        """Let the next one begin."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _look(url: str) -> None:
    engine = create_engine(url)
    try:
        if engine.dialect.name == "postgresql":
            postgresql.await_end_of_others(engine)
    except postgresql.Served as fault:
        raise ClaimError(str(fault)) from None
    finally:
        engine.dispose()


def _lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    beside = path.with_name(path.name + ".daemon")  # it stays when the daemon ends: who removed it could let two in
    ownership.ensure(beside, 0o600)
    handle = os.open(beside, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        number = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
        os.close(handle)
        if not isinstance(fault, BlockingIOError):
            raise
        raise ClaimError(f"another smtpplus (process {number}) uses {path}; stop it, or wait until it has ended") from None
    with contextlib.suppress(OSError):  # a full disk keeps nobody from settling what is queued
        os.ftruncate(handle, 0)
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)
    return handle


def settle_content(url: str, random: Callable[[int], bytes] = os.urandom) -> None:
    """Make the directory with content, durably, and see to it that its files are those of the database, which is up to date.

    ClaimError if they are another's. Where one of the two bears no number yet, they belong together if the database knows one of the files.
    """
    directory = content_directory(url)
    if directory is None:
        return
    ownership.ensure_directory(directory, 0o700)
    mark, numbers = read_mark(directory), listed(directory)
    engine = create_engine(url)
    try:
        with engine.connect().execution_options(reading=True) as connection:
            number = connection.scalar(select(generation.c.number).where(generation.c.name == NAME))
            if numbers and mark != str(number) and ((mark and number is not None) or not _knows_one(connection, numbers)):
                raise ClaimError(
                    f"{directory} holds the content of {len(numbers)} messages of another database than {database_file(url)}; put back "
                    f"the database that they belong to, or move {directory} away"
                )
        if number is None:
            number = int.from_bytes(random(7), "big")
            with engine.begin() as connection:
                connection.execute(insert(generation).values(name=NAME, number=number))
    finally:
        engine.dispose()
    if mark != str(number):
        write_mark(directory, str(number))
    sync(directory)
    sync(directory.parent)


def _knows_one(connection: sqlalchemy.Connection, numbers: Sequence[int]) -> bool:
    pages = (numbers[start : start + PAGE] for start in range(0, len(numbers), PAGE))
    return any(connection.scalar(select(messages.c.id).where(messages.c.id.in_(page)).limit(1)) is not None for page in pages)
