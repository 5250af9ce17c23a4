"""The mail log: one line per event, for people (text) or programs (JSON).

Lines are gathered and written a few times a second, never one by one: a log is read by the eye, and a write per message is what makes
it slow. A log file that was renamed (logrotate) is noticed and opened anew. A log that cannot be written is reported once
to the process's own log, told to the watchdog, which raises an alert, and tried again; mail does not wait for it. What could not be
written is lost, and when it can be written again the log says how many lines: on a fresh line, should a full file system have cut one
in half.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from smtpplus.events import Event, Fault

EVERY = 0.25  # seconds between writes
REMEMBERED = 4_096  # texts
_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f]+\Z").match
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class MailLog:
    """Writes events to `path`, or to standard output if it is None. `format` is "text" or "json"."""

    _log = Logger()

    def __init__(self, path: Path | None, format: str, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._path = path
        self._line = _json if format == "json" else _text
        self._clock = clock
        self._now = now  # seconds since the epoch; the clock's are not
        self._lines: list[bytes] = []
        self._waiting: IDelayedCall | None = None
        self._file = -1
        self.fault = ""  # why the last write failed; "" if it did not
        self._lost = 0  # lines since the last that was written
        self._cut = False  # whether the file ends within a line

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._lines.append(self._line(event))
        if self._waiting is None:
            self._waiting = self._clock.callLater(EVERY, self.flush)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        self._waiting = None
        if not self._lines:
            return
        octets, self._lines = b"".join(self._lines), []
        if self._lost:
            notice = self._line(Fault(self._now(), f"the mail log could not be written; lines lost: {self._lost}"))
            if self._rest(b"\n" + notice if self._cut else notice):
                self._lost += octets.count(b"\n")
                return
            self._lost = 0
        self._lost = self._rest(octets).count(b"\n")

    def close(self) -> None:
        """Write what was gathered and close the file."""
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _rest(self, octets: bytes) -> bytes:
        """Write, and return what could not be written."""
        written = 0
        try:
            for count in self._write(octets):
                written += count
                self._cut = octets[written - 1 : written] != b"\n"
            self.fault = ""
        except OSError as fault:
            if not self.fault:
                self._log.error("the mail log {path} cannot be written: {fault}", path=str(self._path), fault=str(fault))
            self.fault = str(fault)
        return octets[written:]

    def _write(self, octets: bytes) -> Iterator[int]:
        """How many octets each write took."""
        if self._path is None:
            sys.stdout.buffer.write(octets)
            sys.stdout.buffer.flush()
            yield len(octets)
            return
        if self._file < 0 or not _same(self._path, self._file):
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            self._cut = False
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        view = memoryview(octets)
        while view:
            count = os.write(self._file, view)
            yield count
            view = view[count:]


def _same(path: Path, file: int) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(file)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def _json(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


_shown: dict[str, str] = {}  # texts as lines show them: most come again, in the next event of a message or of a session
_seconds: dict[int, str] = {}  # the last second as lines show it
_KINDS: dict[type[Event], Callable[[Any], str]] = {}
_OURS = frozenset(("id", "session", "dsn"))  # queue IDs: plain words that we made, and new with each message


def _text(event: Event) -> bytes:
    """`2026-11-21T20:53:30.123Z delivered id=… recipient=… …`: the event's name and its fields; empty ones are left out."""
    tell = _KINDS.get(type(event))
    if tell is None:
        tell = _KINDS[type(event)] = _teller(type(event))
    return tell(event).encode("utf-8", "backslashreplace")


def _teller(kind: type[Event]) -> Callable[[Any], str]:
    """The function that tells events of one kind, compiled as dataclasses compile theirs: a loop over fields costs twice as much, and
    the log is the dearest of those who watch. Only names of our own classes and fields become code."""
    types: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        types.update(getattr(base, "__annotations__", {}))
    parts = [_part(name, str(types[name])) for name in kind.__struct_fields__ if name != "at"]
    word = _WORD.sub("-", kind.__name__).lower()
    source = f'lambda event: f"""{{stamp(event.at)}} {word}{"".join(parts)}\\n"""'
    tell: Callable[[Any], str] = eval(source, {"stamp": _stamp, "known": _shown.get, "show": _show})
    return tell


def _part(name: str, kind: str) -> str:
    """How one field is told, as a part of an f-string."""
    if kind == "str" and name in _OURS:
        return f"{{(' {name}=' + v) if (v := event.{name}) else ''}}"
    if kind == "str":
        return f"{{(' {name}=' + (known(v) or show(v))) if (v := event.{name}) else ''}}"
    if kind.startswith("tuple"):
        return f"{{(' {name}=' + ','.join([known(each) or show(each) for each in v])) if (v := event.{name}) else ''}}"
    return f" {name}={{event.{name}:.3f}}" if kind == "float" else f" {name}={{event.{name}}}"


def _show(text: str) -> str:
    """`text` as a line shows it: quoted as JSON does unless it is one plain word."""
    if len(_shown) >= REMEMBERED:
        _shown.clear()
    shown = text if _PLAIN(text) else msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode()
    _shown[text] = shown
    return shown


def _stamp(at: float) -> str:
    """A time with its milliseconds; those of one second share the rest."""
    second = int(at)
    shown = _seconds.get(second)
    if shown is None:
        _seconds.clear()
        shown = _seconds[second] = datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")
    return f"{shown}.{int((at - second) * 1000):03d}Z"
