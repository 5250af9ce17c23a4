"""Files beside the database with the content of long messages: one directory, one file for each message, named by its queue ID.

SQLite would write each octet to its log, then to its own file, and so that mail which need not be long waits behind mail that is. A file is
written once, read back from memory as a rule, and unlinked. The work is done in threads of its own, neither on the reactor's nor on the
writer's; who calls puts the operations on one file in order.

Invariant: when `finish` has fired, the file is whole and both it and its name are durable. Nothing is overwritten, and nothing is removed
unless told. Failure: OSError, as the failure of the operation's Deferred. A directory that goes while they are open is made anew, with the
mark that says to which database it belongs (storage/claim).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from smtpplus.mail.envelope import parse_queue_id, queue_id
from smtpplus.storage import ownership

T = TypeVar("T")
WRITERS = 8  # threads; most of their time they wait for the disk, which puts in order what it has to do
READERS = 2  # threads, which wait for no fsync
MARK = "database"  # the file that says whose the directory is; no queue ID
PIECES = 1_000  # in one call of writev; IOV_MAX of Linux is 1,024


class ContentFiles:
    """The files in `directory`, by the number of their message. Methods are called on the reactor's thread."""

    def __init__(self, directory: Path, reactor: Any) -> None:
        self._directory = directory
        self._reactor = reactor
        self._named = False  # the directory's own name is durable, as far as we know
        self._mark = ""
        self._there = True  # the directory with its mark, as far as we know
        self._renewing = threading.Lock()
        self._writers = ThreadPool(0, WRITERS, name="smtpplus-content-writer")
        self._readers = ThreadPool(0, READERS, name="smtpplus-content-reader")

    def start(self) -> None:
        """Start the threads. Nothing is made or looked at yet but the mark."""
        self._mark = read_mark(self._directory)
        self._writers.start()
        self._readers.start()

    def stop(self) -> None:
        """Finish what was asked for, and end the threads."""
        self._writers.stop()
        self._readers.stop()

    def append(self, number: int, pieces: Sequence[bytes], *, first: bool) -> Deferred[None]:
        """Write `pieces` to the end of a file; the `first` ones make it."""
        return self._in(self._writers, self._append, number, pieces, first, None)

    def finish(self, number: int, pieces: Sequence[bytes], size: int, *, first: bool) -> Deferred[None]:
        """As `append`, for the last ones: fires when all `size` octets are durable."""
        return self._in(self._writers, self._append, number, pieces, first, size)

    def read(self, number: int, start: int, length: int) -> Deferred[bytes]:
        """`length` octets from `start` on; fewer if the file ends before."""
        return self._in(self._readers, self._read, number, start, length)

    def remove(self, numbers: Collection[int]) -> Deferred[Mapping[int, OSError]]:
        """Remove files, as far as they are there. Fires with those that cannot be removed."""
        return self._in(self._writers, self._remove, numbers)

    def numbers(self) -> Deferred[list[int]]:
        """Of which messages there are files. What has the name of none is not ours and not told."""
        return self._in(self._readers, listed, self._directory)

    def _in(self, threads: ThreadPool, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return deferToThreadPool(self._reactor, threads, call, *arguments)

    # Below: on the threads.

    def _path(self, number: int) -> Path:
        return self._directory / queue_id(number)

    def _append(self, number: int, pieces: Sequence[bytes], first: bool, size: int | None) -> None:
        handle = self._make(number) if first else os.open(self._path(number), os.O_WRONLY | os.O_APPEND)
        try:
            _write(handle, pieces)
            if size is None:
                return
            if os.fstat(handle).st_size != size:
                raise OSError(errno.EIO, "the file has not the size of its message", str(self._path(number)))
            os.fdatasync(handle)
        finally:
            os.close(handle)
        sync(self._directory)
        if not self._named:  # whoever made it may not have come to this yet
            sync(self._directory.parent)
            self._named = True

    def _make(self, number: int) -> int:
        if self._there:
            try:
                return ownership.make(self._path(number), 0o600)
            except FileNotFoundError:
                self._there = False
        self._renew()
        return ownership.make(self._path(number), 0o600)

    def _renew(self) -> None:
        """Make the directory anew; no file is made in it before its mark is, lest the next start take it for another database's."""
        with self._renewing:
            self._named = False
            ownership.ensure_directory(self._directory, 0o700)
            if self._mark and not read_mark(self._directory):
                write_mark(self._directory, self._mark)
            self._there = True

    def _read(self, number: int, start: int, length: int) -> bytes:
        handle = os.open(self._path(number), os.O_RDONLY)
        try:
            return os.pread(handle, length, start)
        finally:
            os.close(handle)

    def _remove(self, numbers: Collection[int]) -> dict[int, OSError]:
        failed: dict[int, OSError] = {}
        for number in numbers:
            try:
                self._path(number).unlink()
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as fault:
                failed[number] = fault
        return failed


def listed(directory: Path) -> list[int]:
    """Of which messages there are files in a directory, which need not be there."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(ValueError):
                number = parse_queue_id(entry.name)
                if entry.is_file(follow_symlinks=False):
                    found.append(number)
    return found


def read_mark(directory: Path) -> str:
    """What the directory says whose it is; "" if it does not."""
    try:
        return (directory / MARK).read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return ""


def write_mark(directory: Path, text: str) -> None:
    """Let the directory say whose it is. The mark's name is durable after `sync`."""
    (directory / MARK).unlink(missing_ok=True)
    handle = ownership.make(directory / MARK, 0o600)
    try:
        os.write(handle, f"{text}\n".encode("ascii"))
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(handle: int, pieces: Sequence[bytes]) -> None:
    """All of `pieces`; a disk that takes a part of them says why when it is asked to take the rest."""
    for start in range(0, len(pieces), PIECES):
        some = pieces[start : start + PIECES]
        written = os.writev(handle, some)
        if written < sum(map(len, some)):
            rest = memoryview(b"".join(some))[written:]
            while rest:
                rest = rest[os.write(handle, rest) :]


def sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
