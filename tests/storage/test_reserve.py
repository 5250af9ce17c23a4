"""The reserve of free room: asked of the real file system, once a second."""

from __future__ import annotations

import os
from pathlib import Path

from smtpplus.storage.reserve import Reserve


def free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def test_short_when_less_is_free(tmp_path: Path) -> None:
    """C2: a reserve larger than what is free is short, a small one is not."""
    assert Reserve(tmp_path, 2 * free(tmp_path), lambda: 0.0).short()
    assert not Reserve(tmp_path, 1, lambda: 0.0).short()


def test_asked_once_a_second(tmp_path: Path) -> None:
    """The answer holds for a second: what changes meanwhile shows then."""
    times = iter([0.0, 0.5, 1.0])
    place = tmp_path / "later"
    reserve = Reserve(place, 2 * free(tmp_path), lambda: next(times))
    answers = [reserve.short()]
    place.mkdir()
    answers += [reserve.short(), reserve.short()]
    assert answers == [False, False, True]
