"""The room that is kept free on the database's file system, so that what is queued can always be settled.

A disk that is full to its last octet cannot record that a message was delivered, and a crash would send it again. So mail is refused, for
the time being, while less than the reserve is free (as Postfix does below queue_minfree).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

LOOK = 1.0  # seconds between two questions to the file system


class Reserve:
    """`least` octets of the file system of `path`. `clock` gives seconds that only grow."""

    def __init__(self, path: Path, least: int, clock: Callable[[], float]) -> None:
        self._path = path
        self._least = least
        self._clock = clock
        self._asked = -LOOK
        self._short = False

    def short(self) -> bool:
        """Whether less than the reserve is free, as of a second ago at most. A file system that cannot be asked is not short."""
        now = self._clock()
        if now - self._asked >= LOOK:
            self._asked = now
            self._short = self._free() < self._least
        return self._short

    def _free(self) -> int:
        try:
            found = os.statvfs(self._path)
        except OSError:
            return self._least
        return found.f_bavail * found.f_frsize
