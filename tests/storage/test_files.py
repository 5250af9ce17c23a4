"""Files with content: what is promised when an operation has fired, and what is left when it fails."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from smtpplus.mail.envelope import queue_id
from smtpplus.storage import files
from smtpplus.storage.engine import content_directory
from smtpplus.storage.files import MARK, PIECES, ContentFiles

OCTETS = os.urandom(300_000)
NOBODY = 65534


class ContentFilesTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "a.sqlite-content"
        self.directory.parent.mkdir()
        self.files = ContentFiles(self.directory, reactor)
        self.files.start()
        self.addCleanup(self.files.stop)

    def on_disk(self) -> dict[str, int]:
        """Names and sizes."""
        return {path.name: path.stat().st_size for path in self.directory.iterdir()}

    async def failed(self, operation: Deferred[Any], number: int) -> None:
        fault: OSError = await self.assertFailure(operation, OSError)
        self.assertEqual(fault.errno, number, fault)

    async def test_what_is_appended_is_read_back(self) -> None:
        """Pieces of any size and number, in several steps, from any place on; behind the end there is nothing. Nobody else may look."""
        cuts = [0, 1, 2, 100_000, *range(100_001, 100_002 + 2 * PIECES), len(OCTETS)]
        pieces = [OCTETS[start:end] for start, end in itertools.pairwise(cuts)]
        await self.files.append(7, pieces[:3], first=True)
        await self.files.append(7, pieces[3:], first=False)
        await self.files.finish(7, [b"end"], len(OCTETS) + 3, first=False)
        self.assertEqual(await self.files.read(7, 0, 1_000_000), OCTETS + b"end")
        self.assertEqual(await self.files.read(7, 99_999, 3), OCTETS[99_999:100_002])
        self.assertEqual(await self.files.read(7, len(OCTETS) + 3, 1), b"")
        self.assertEqual(await self.files.numbers(), [7])
        modes = [path.stat().st_mode & 0o777 for path in (self.directory, self.directory / queue_id(7))]
        self.assertEqual(modes, [0o700, 0o600])

    async def test_what_is_promised_is_synced(self) -> None:
        """C2: when `finish` has fired the content is synced, then the directory with its name, and the directory's own name in
        the one above, whoever made it: an earlier process, or another file that is not finished yet."""
        synced: list[str] = []
        for name in ("fdatasync", "fsync"):
            call = getattr(os, name)

            def spied(handle: int, name: str = name, call: Any = call) -> None:
                call(handle)
                synced.append(f"{name} {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")

            self.patch(os, name, spied)
        whole = [f"fdatasync {queue_id(1)}", f"fsync {self.directory.name}"]
        await self.files.append(1, [b"a"], first=True)
        self.assertEqual(synced, [])
        await self.files.finish(1, [b"b"], 2, first=False)
        self.assertEqual(synced, [*whole, f"fsync {self.directory.parent.name}"])
        await self.files.remove([1])
        await self.files.finish(1, [b"b"], 1, first=True)
        self.assertEqual(synced[3:], whole)
        await self.files.remove([1])
        self.directory.rmdir()
        await self.files.append(9, [b"a"], first=True)
        await self.files.finish(1, [b"b"], 1, first=True)
        self.assertEqual(synced[5:], [*whole, f"fsync {self.directory.parent.name}"])

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    async def test_they_belong_to_who_serves(self) -> None:
        """What root writes can be read and removed by the user that the directory belongs to, who may be the one to serve next time."""
        os.chown(self.directory.parent, NOBODY, NOBODY)
        await self.files.finish(1, [b"x"], 1, first=True)
        found = [(path.stat().st_uid, path.stat().st_gid) for path in (self.directory, self.directory / queue_id(1))]
        self.assertEqual(found, [(NOBODY, NOBODY)] * 2)

    async def test_it_is_whole_or_it_fails(self) -> None:
        """C2: a file that has more or less octets than its message never passes for it; nor does another one of its name."""
        for size in (2, 4):
            await self.failed(self.files.finish(size, [b"abc"], size, first=True), errno.EIO)
        await self.files.finish(3, [b"abc"], 3, first=True)
        await self.failed(self.files.append(3, [b"x"], first=True), errno.EEXIST)
        self.assertEqual(await self.files.read(3, 0, 9), b"abc")

    async def test_a_disk_that_takes_no_more(self) -> None:
        """C2: what does not fit fails, in the middle of a piece too; when there is room again the next file is whole."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        await self.failed(self.files.append(1, [OCTETS[:60_000], OCTETS[60_000:]], first=True), errno.EFBIG)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await self.files.finish(2, [OCTETS], len(OCTETS), first=True)
        self.assertEqual(self.on_disk(), {queue_id(1): 100_000, queue_id(2): len(OCTETS)})

    async def test_a_directory_that_goes_and_comes(self) -> None:
        """What was in a directory that is gone is missed at once, not at the end; the next file makes the directory anew."""
        await self.files.append(1, [b"a"], first=True)
        (self.directory / queue_id(1)).unlink()
        self.directory.rmdir()
        await self.failed(self.files.append(1, [b"b"], first=False), errno.ENOENT)
        await self.failed(self.files.read(1, 0, 1), errno.ENOENT)
        self.assertEqual(await self.files.numbers(), [])
        await self.files.finish(2, [b"c"], 1, first=True)
        self.assertEqual(self.on_disk(), {queue_id(2): 1})

    async def test_a_directory_made_anew_says_whose_it_is(self) -> None:
        """C2: no file comes into it without the mark of its database, by which the next start knows the files; a disk that takes no mark
        takes no file."""
        self.directory.mkdir()
        files.write_mark(self.directory, "42")
        ours = ContentFiles(self.directory, reactor)
        ours.start()
        self.addCleanup(ours.stop)
        shutil.rmtree(self.directory)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        patch = self.patch(files, "write_mark", full)
        for number in (1, 2):
            await self.failed(ours.append(number, [b"a"], first=True), errno.ENOSPC)
        patch.restore()
        await ours.finish(3, [b"c"], 1, first=True)
        self.assertEqual(self.on_disk(), {queue_id(3): 1, MARK: 3})
        self.assertEqual(files.read_mark(self.directory), "42")

    async def test_only_what_is_told_is_removed(self) -> None:
        """Files that are there go, of others nothing is said; what bears no queue ID is not counted as one of ours."""
        for number in (1, 2, 3):
            await self.files.append(number, [b"x"], first=True)
        (self.directory / "lost+found").mkdir()
        await self.files.remove([1, 3, 99])
        self.assertEqual(await self.files.numbers(), [2])
        self.assertEqual(set(self.on_disk()), {queue_id(2), "lost+found"})

    async def test_one_that_cannot_be_removed_keeps_no_other(self) -> None:
        """A fault of one file is told of that one; what is no file, though it has the name of one, is not counted."""
        await self.files.append(2, [b"x"], first=True)
        (self.directory / queue_id(1)).mkdir()
        (self.directory / queue_id(3)).symlink_to(queue_id(2))
        self.assertEqual(await self.files.numbers(), [2])
        failed = await self.files.remove([1, 2])
        self.assertEqual([(number, fault.errno) for number, fault in failed.items()], [(1, errno.EISDIR)])
        self.assertEqual(await self.files.numbers(), [])


def test_every_database_has_a_directory_of_its_own() -> None:
    """Two databases side by side do not clear away each other's files; PostgreSQL, which several machines share, has none."""
    names = [content_directory(f"sqlite:////srv/{name}.sqlite") for name in "ab"]
    assert names == [Path("/srv/a.sqlite-content"), Path("/srv/b.sqlite-content")]
    assert content_directory("postgresql://db/mail") is content_directory("sqlite://") is None
