"""Who owns the files that we make: whoever the directory belongs to.

The daemon serves without privileges, but its first files may be made by root: a command that the operator runs, or the daemon
before it gives its privileges up. What root made for itself alone, the daemon could not open afterwards.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def make(path: Path, mode: int) -> int:
    """Make a file that is not there, open for writing; never with more permission than `mode`. FileExistsError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    if os.geteuid() == 0:  # nobody else may give files away
        directory = path.parent.stat()
        os.fchown(handle, directory.st_uid, directory.st_gid)
    return handle


def ensure(path: Path, mode: int) -> None:
    """Make an empty file unless there is one."""
    with contextlib.suppress(FileExistsError):
        os.close(make(path, mode))
