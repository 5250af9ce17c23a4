"""A look at the configuration file twice a second, so that what may change while the daemon runs does.

When the file is another one than at the last look, it is loaded and given to `changed`, whole. A file with faults changes nothing: each
fault is logged, and what was in force stays, until the file is mended. A file that is gone or unreadable counts as unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from smtpplus.config.loading import ConfigurationError, load
from smtpplus.config.settings import Configuration

POLL = 0.5  # seconds between two looks


class FileWatch:
    """Watches one file. Methods are called on the reactor's thread."""

    _log = Logger()

    def __init__(self, path: Path, clock: IReactorTime, changed: Callable[[Configuration], object]) -> None:
        self._path = path.absolute()
        self._changed = changed
        self._seen = self._stamp()
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to look. What was changed since this was made counts."""
        self._loop.start(POLL, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            configuration = load(self._path)
        except ConfigurationError as error:
            for fault in error.faults:
                self._log.warn("the changed configuration is not used: {fault}", fault=fault)
            return
        self._changed(configuration)
