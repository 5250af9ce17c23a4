"""Local delivery into Maildirs: one file per recipient, written in tmp, synced, then moved to new.

A message is in `new` whole or not at all; the disposition follows the sync of the file and of its directory. Lines end in LF on disk, as
mail readers expect of a Maildir, with Return-Path and Delivered-To in front (RFC 5321 §4.4). All file work happens in a thread, one round
for everything that waits; the reactor only passes pieces, one piece of a message at a time.

`maildir:PATH` is one Maildir. In PATH, `{recipient}`, `{user}` and `{domain}` stand for the recipient's; whatever could leave the
directory is written as %XX, so that two recipients never share a directory by accident. A recipient who cannot have a directory of that
name is refused for good.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from smtpplus.delivery.fault import Fault
from smtpplus.delivery.transfer import Transfer, Verdict
from smtpplus.mail import reasons
from smtpplus.mail.address import AddressError, parse_mailbox
from smtpplus.mail.envelope import Recipient
from smtpplus.mail.reply import Reply

NAME_LIMIT = 200  # octets of a substituted name; file systems take 255
DELIVERED = Reply(250, "2.0.0", "delivered to the mailbox")
_numbers = itertools.count(1)


def mailbox_path(pattern: str, address: str) -> Path:
    """The Maildir of `address` under a pattern with placeholders. ValueError if a name is too long for a file system."""
    if "{" not in pattern:
        return Path(pattern)
    try:
        key = parse_mailbox(address).key
    except AddressError:
        key = address.lower()
    user, at, domain = key.rpartition("@")
    if not at:
        user, domain = key, ""
    path = pattern
    for placeholder, name in (("{recipient}", key), ("{user}", user), ("{domain}", domain)):
        if placeholder in path:
            path = path.replace(placeholder, _harmless(name))
    return Path(path)


def _harmless(name: str) -> str:
    """`name` as one part of a path: no separator, control character, placeholder or leading dot; different names stay different."""
    odd = {ord(c): f"%{ord(c):02X}" for c in "%/{}\\\x7f"} | {code: f"%{code:02X}" for code in range(32)}
    safe = name.translate(odd)
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    if not safe or len(safe.encode("utf-8", "surrogateescape")) > NAME_LIMIT:
        raise ValueError(f"{name[:40]!r} cannot be the name of a mailbox")
    return safe


class _Drop:
    """One message on its way into one Maildir. Its methods, but for the constructor, run in a thread."""

    def __init__(self, directory: Path, name: str, lead: bytes) -> None:
        self.directory = directory
        self._name = name
        self._lead = lead
        self._file: BinaryIO | None = None
        self._carry = b""  # a CR at the end of a piece: the next may begin with its LF

    def write(self, piece: bytes, last: bool) -> None:
        """Append a piece; OSError."""
        if self._file is None:
            for part in ("tmp", "cur", "new"):
                (self.directory / part).mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.directory / "tmp" / self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(handle, "wb")
            self._file.write(self._lead)
        data = self._carry + piece
        self._carry = b"\r" if data.endswith(b"\r") and not last else b""
        if self._carry:
            data = data[:-1]
        self._file.write(data.replace(b"\r\n", b"\n"))
        if last:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.rename(self.directory / "tmp" / self._name, self.directory / "new" / self._name)

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            self._file.close()
            (self.directory / "tmp" / self._name).unlink(missing_ok=True)


_Told = Callable[["OSError | None"], None]
_Unit = tuple[_Drop, bytes | None, bool, _Told]  # piece (None: discard), whether it is the last, who wants to know


class MaildirWriter:
    """Writes transfers into Maildirs."""

    _log = Logger()

    def __init__(self, *, reactor: Any, threads: ThreadPool, hostname: str, now: Callable[[], float] = time.time) -> None:
        self._reactor = reactor
        self._threads = threads
        self._host = hostname.replace("/", r"\057").replace(":", r"\072")  # as the Maildir convention wants
        self._now = now
        self._units: list[_Unit] = []
        self._running = False

    def take(self, transfer: Transfer, pattern: str) -> None:
        """Write the message of `transfer` for each of its recipients."""
        job = _Job(self, transfer, pattern)
        transfer.holder = job
        self._reactor.callLater(0, job.start)

    def drop(self, pattern: str, recipient: Recipient, sender: str) -> _Drop:
        """A new message for one recipient; ValueError."""
        now = self._now()
        name = f"{int(now)}.M{int(now % 1 * 1_000_000):06d}P{os.getpid()}Q{next(_numbers)}.{self._host}"
        lead = f"Return-Path: <{sender}>\nDelivered-To: {recipient.address}\n".encode("utf-8", "surrogateescape")
        return _Drop(mailbox_path(pattern, recipient.address), name, lead)

    def enqueue(self, unit: _Unit) -> None:
        """Do this in the next round."""
        self._units.append(unit)
        if not self._running:
            self._running = True
            self._reactor.callLater(0, self._round)

    def _round(self) -> None:
        units, self._units = self._units, []
        working = deferToThreadPool(self._reactor, self._threads, _work, units)
        working.addCallbacks(self._told, self._failed, callbackArgs=(units,), errbackArgs=(units,))

    def _told(self, results: list[OSError | None], units: list[_Unit]) -> None:
        self._running = bool(self._units)
        if self._running:
            self._round()
        for unit, result in zip(units, results, strict=True):
            unit[3](result)

    def _failed(self, failure: Failure, units: list[_Unit]) -> None:
        self._log.failure("writing to Maildirs failed", failure)
        self._told([OSError(str(failure.value))] * len(units), units)


def _work(units: list[_Unit]) -> list[OSError | None]:
    """In a thread: every unit, then one sync for each directory that got a message."""
    results: list[OSError | None] = []
    finished: dict[Path, list[int]] = {}
    for number, (drop, piece, last, _) in enumerate(units):
        try:
            if piece is None:
                drop.discard()
            else:
                drop.write(piece, last)
                if last:
                    finished.setdefault(drop.directory / "new", []).append(number)
            results.append(None)
        except OSError as error:
            results.append(error)
    for directory, numbers in finished.items():
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            for number in numbers:
                results[number] = error
    return results


class _Job:
    """One transfer: its recipients one after another, all at once if the message is one piece. Implements transfer.Holder."""

    def __init__(self, writer: MaildirWriter, transfer: Transfer, pattern: str) -> None:
        self._writer = writer
        self._transfer = transfer
        self._pattern = pattern
        self._verdicts: list[Verdict] = [None] * len(transfer.request.recipients)
        self._next = 0  # recipient to begin
        self._open = 0  # recipients under way
        self._held: list[Callable[[], None]] = []  # what waits for `go`
        self._committed = False  # the last piece for the last recipient is with the writer

    def start(self) -> None:
        """Begin the next recipients."""
        recipients = self._transfer.request.recipients
        width = len(recipients) if self._transfer.request.content.chunks <= 1 else 1
        while self._next < len(recipients) and self._open < width and not self._transfer.over:
            number, self._next = self._next, self._next + 1
            self._open += 1
            try:
                drop = self._writer.drop(self._pattern, recipients[number], self._transfer.request.envelope.sender)
            except ValueError as error:
                self._ended(number, Fault(reasons.NO_MAILDIR, str(error)))
                continue
            self._read(number, drop, 0)

    def _read(self, number: int, drop: _Drop, index: int) -> None:
        if self._transfer.stopped:
            self._held.append(lambda: self._read(number, drop, index))
            return
        content = self._transfer.request.content
        if content.chunks == 0:
            self._arrived(number, drop, index, b"")
        else:
            content.read(index, lambda piece: self._arrived(number, drop, index, piece))

    def _arrived(self, number: int, drop: _Drop, index: int, piece: bytes | None) -> None:
        if piece is None or self._transfer.over:
            self._writer.enqueue((drop, None, False, lambda error: None))
            self._ended(number, Fault(reasons.CONTENT_LOST))
            return
        last = index + 1 >= self._transfer.request.content.chunks
        self._committed = last and self._next == len(self._verdicts)
        self._writer.enqueue((drop, piece, last, lambda error: self._written(number, drop, index, last, error)))

    def _written(self, number: int, drop: _Drop, index: int, last: bool, error: OSError | None) -> None:
        if error is not None:
            self._writer.enqueue((drop, None, False, lambda error: None))
            named = error.errno == errno.ENAMETOOLONG and "{" in self._pattern  # no attempt can succeed
            self._ended(number, Fault(reasons.NO_MAILDIR if named else reasons.MAILDIR_FAILED, error.strerror or str(error)))
        elif last:
            self._ended(number, DELIVERED)
        else:
            self._read(number, drop, index + 1)

    def _ended(self, number: int, verdict: Reply | Fault) -> None:
        self._verdicts[number] = verdict
        self._open -= 1
        if None in self._verdicts:
            self.start()
        else:
            self._transfer.settle(f"maildir:{self._pattern}", self._verdicts)

    # --- transfer.Holder --------------------------------------------------------------------------------------------------------

    def may_stop(self) -> bool:
        return not self._committed

    def halted(self, transfer: Transfer) -> None:
        """The next piece waits."""

    def resumed(self, transfer: Transfer) -> None:
        held, self._held = self._held, []
        for read in held:
            read()

    def abandoned(self, transfer: Transfer) -> None:
        if self._committed:
            return
        transfer.settle("", self._verdicts, Fault(reasons.ABANDONED))
        self.resumed(transfer)
