"""Who owns the files that we make: whoever the directory belongs to.

The daemon serves without privileges, but its first files may be made by root: a command that the operator runs, or the daemon
before it gives its privileges up. What root made for itself alone, the daemon could not open afterwards. A directory that the daemon
makes belongs to the user it is to run as; with one that belongs to another it does not start.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Sequence
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


def ensure_directory(path: Path, mode: int) -> None:
    """Make a directory unless there is one; it belongs to whoever the directory belongs to that it is in."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode)
        if os.geteuid() == 0:
            above = path.parent.stat()
            os.chown(path, above.st_uid, above.st_gid)


def settle(directory: Path, mode: int, within: Sequence[Path | None], user: int | None, group: int | None) -> None:
    """See to it that `user` owns `directory`, which is made if it is not there, and what is there of `within`; None: whoever we are.

    OSError, a sentence with its remedy, if one of them belongs to another.
    """
    try:
        directory.mkdir(parents=True, mode=mode)
    except FileExistsError:
        pass
    else:
        if user is not None:
            os.chown(directory, user, pwd.getpwuid(user).pw_gid if group is None else group)
    if user is None:
        return
    for path in (directory, *within):
        if path is not None and path.exists() and (owner := path.stat().st_uid) != user:
            name = _name(user)
            raise OSError(f"{path} belongs to {_name(owner)}, and the daemon is to run as {name}: chown -R {name}: {directory}")


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
