"""Where the content of long messages lies: in files beside an SQLite database, or in rows of the database that several machines share.

A message that is written as it arrives goes to the shelf that the database has. Rows are the second way with SQLite too: what is kept in
one step (short mail, notifications) is rows, and so is what an earlier release took in. The row of a message says which: its first
piece is there, or it is NULL and all of the content is in a file.

Order: a file is durable before the commit that makes it a message, and goes after the commit that removes the message. So a row never
lacks its file, and a file without a row is what a crash, a stop, an abort or the command line left: `sweep` removes it. It asks the
database about each number that may have gone, and so removes nothing that is queued; what is arriving in this process is left alone.
No other process writes files there, and they are this database's (storage/claim).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import sqlalchemy
from sqlalchemy import delete, select
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.mail.envelope import CHUNK, Envelope
from smtpplus.queue import rows
from smtpplus.storage import schema, writes
from smtpplus.storage.database import Database
from smtpplus.storage.files import ContentFiles
from smtpplus.storage.statement import Row, Statement

Steps = list[tuple[Statement, Row]]
Run = dict[int, bytes]  # pieces by their index
RUN = 4  # pieces that are read at once: of a file, 256 KiB cost 5 % more than 1 MiB, and a hundred transfers stay small
PAGE = 500  # numbers asked about at once
AGAIN = 60.0  # seconds until what could not be removed is tried again


class Place(Protocol):
    """Where one message is put as it arrives. One operation follows when the one before is over; the last is `kept` or `drop`."""

    def put(self, pieces: list[bytes]) -> Deferred[Any]:
        """Write octets behind those before. It need not be durable yet."""

    def complete(self, pieces: list[bytes], size: int) -> Deferred[Any]:
        """Write the last octets of `size` in all. Then `steps` are all that is missing."""

    def steps(self, envelope: Envelope) -> Steps:
        """What makes it a QUEUED message, without its recipients."""

    def kept(self) -> None:
        """They are committed."""

    def drop(self) -> None:
        """It becomes no message: remove what was written."""


class Shelf(Protocol):
    """One of the two ways."""

    def place(self, number: int) -> Place: ...

    def run(self, number: int, size: int, index: int) -> Deferred[Run]:
        """The pieces from `index` on, as many as are read at once; without those that are not there."""

    def sweep(self, numbers: Iterable[int]) -> None:
        """These messages may be gone: remove what is left of their content, some time."""

    def purge(self) -> Deferred[Any]:
        """Remove what was arriving when the process ended. Fires when nothing can be taken for it that arrives from now on."""


class RowShelf:
    """Rows: the first piece in the row of the message, which is RECEIVING until the commit, others in rows of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def place(self, number: int) -> Place:
        return _RowPlace(self._database, number)

    def run(self, number: int, size: int, index: int) -> Deferred[Run]:
        return self._database.read(lambda connection: _run(connection, number, index))

    def sweep(self, numbers: Iterable[int]) -> None:
        """Rows go with their message."""

    def purge(self) -> Deferred[Any]:
        return self._database.write(_purge)


def _run(connection: sqlalchemy.Connection, number: int, index: int) -> Run:
    found: Run = {}
    if index == 0:
        first = connection.execute(select(schema.messages.c.content).where(schema.messages.c.id == number)).scalar()
        if first is not None:
            found[0] = first
    c = schema.chunks.c
    query = select(c.number, c.octets).where(c.message_id == number, c.number >= max(index, 1), c.number < index + RUN)
    for row in connection.execute(query):
        found[row.number] = row.octets
    return found


def _purge(connection: sqlalchemy.Connection) -> int:
    unfinished = select(schema.messages.c.id).where(schema.messages.c.state == schema.RECEIVING)
    connection.execute(delete(schema.chunks).where(schema.chunks.c.message_id.in_(unfinished)))
    return connection.execute(delete(schema.messages).where(schema.messages.c.state == schema.RECEIVING)).rowcount


class _RowPlace:
    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        self._number = number
        self._chunks = 0
        self._rest = b""  # less than a chunk

    def put(self, pieces: list[bytes]) -> Deferred[Any]:
        octets = b"".join([self._rest, *pieces])
        whole = len(octets) - len(octets) % CHUNK
        self._rest = octets[whole:]
        return self._insert([octets[start : start + CHUNK] for start in range(0, whole, CHUNK)])

    def complete(self, pieces: list[bytes], size: int) -> Deferred[Any]:
        octets, self._rest = b"".join([self._rest, *pieces]), b""
        return self._insert([octets[start : start + CHUNK] for start in range(0, len(octets), CHUNK)])

    def _insert(self, chunks: Sequence[bytes]) -> Deferred[Any]:
        steps: Steps = []
        for chunk in chunks:
            if self._chunks == 0:
                steps.append((writes.INSERT_MESSAGE, (self._number, schema.RECEIVING, "", "", 3, 0, 0.0, 1, None, chunk)))
            else:
                steps.append((writes.INSERT_CHUNK, (self._number, self._chunks, chunk)))
            self._chunks += 1
        return self._database.run(steps, durable=False) if steps else succeed(None)

    def steps(self, envelope: Envelope) -> Steps:
        given = rows.parameters(envelope)
        facts = (envelope.sender, envelope.user, envelope.level, envelope.size, envelope.received_at)
        return [(writes.COMMIT_MESSAGE, (schema.QUEUED, *facts, self._chunks, given, self._number))]

    def kept(self) -> None: ...

    def drop(self) -> None:
        if self._chunks:
            steps: Steps = [(writes.DELETE_CHUNKS, (self._number,)), (writes.DELETE_MESSAGE, (self._number,))]
            self._database.run(steps).addErrback(lambda failure: None)  # what stays is RECEIVING and purged at the next start


class FileShelf:
    """Files: nothing of a message is in the database until it is whole."""

    _log = Logger()

    def __init__(self, database: Database, files: ContentFiles, clock: IReactorTime) -> None:
        self._database = database
        self._clock = clock
        self.files = files
        self.arriving: set[int] = set()  # not committed yet
        self._suspects: set[int] = set()  # may be in no row
        self._sweeping = False
        self._listed: set[int] = set()  # files there were at the start, until they are looked through
        self._left = 0  # of them that belonged to no message and were removed
        self._stuck: set[int] = set()  # cannot be removed for now
        self._told: set[int] = set()  # of them the log has told
        self._waiting = False  # to try them again

    def place(self, number: int) -> Place:
        self.arriving.add(number)
        return _FilePlace(self, number)

    def run(self, number: int, size: int, index: int) -> Deferred[Run]:
        start = index * CHUNK
        length = max(0, min(RUN * CHUNK, size - start))
        return self.files.read(number, start, length).addCallback(_pieces, index, length)

    def sweep(self, numbers: Iterable[int]) -> None:
        self._suspects.update(numbers)
        if not self._sweeping:
            self._sweep(None)

    def _sweep(self, _: object) -> None:
        """Look at the next page. Who arrives is asked before the database: who does not arrive now is in it, or never will be."""
        self._suspects -= self.arriving
        self._sweeping = bool(self._suspects)
        if self._suspects:
            page = set(islice(self._suspects, PAGE))
            self._suspects -= page
            gone: Deferred[set[int]] = self._database.read(lambda connection: page - _known(connection, page))
            gone.addCallback(self._remove).addErrback(self._not_swept, page).addCallback(self._sweep)
        else:
            self._listed &= self._stuck
            if self._left:
                self._log.info("removed {count} files with content that belonged to no message", count=self._left)
                self._left = 0

    def _remove(self, numbers: set[int]) -> Deferred[None]:
        return self.files.remove(numbers).addCallback(self._removed, numbers)

    def _removed(self, failed: Mapping[int, OSError], numbers: set[int]) -> None:
        """One that cannot be removed keeps no other from it, and is told of once."""
        self._left += len(self._listed & numbers - failed.keys())
        self._told -= numbers - failed.keys()
        for number in failed.keys() - self._told:
            self._log.failure("content of a message that is gone cannot be removed; it is tried again", Failure(failed[number]))
            self._told.add(number)
        if failed:
            self._put_off(failed)

    def _not_swept(self, failure: Failure, page: set[int]) -> None:
        self._log.failure("messages that are gone cannot be looked up, to remove their content; it is tried again", failure)
        self._put_off(page | self._suspects)
        self._suspects.clear()

    def _put_off(self, numbers: Iterable[int]) -> None:
        self._stuck.update(numbers)
        if not self._waiting:
            self._waiting = True
            self._clock.callLater(AGAIN, self._again)

    def _again(self) -> None:
        self._waiting = False
        stuck, self._stuck = self._stuck, set()
        self.sweep(stuck)

    def purge(self) -> Deferred[Any]:
        """The files are looked through while the mail flows."""
        self._look_through()
        return self._database.write(_purge)  # of an earlier release

    def _look_through(self) -> None:
        self.files.numbers().addCallbacks(self._found, self._not_listed)

    def _found(self, numbers: list[int]) -> None:
        self._listed = set(numbers)
        self.sweep(numbers)

    def _not_listed(self, failure: Failure) -> None:
        self._log.failure("the files with content cannot be listed; it is tried again", failure)
        self._clock.callLater(AGAIN, self._look_through)


def _known(connection: sqlalchemy.Connection, numbers: set[int]) -> set[int]:
    return set(connection.execute(select(schema.messages.c.id).where(schema.messages.c.id.in_(numbers))).scalars())


def _pieces(octets: bytes, index: int, length: int) -> Run:
    """A file that is too short has lost something, and nobody can know that what is there is right."""
    if len(octets) < length:
        raise OSError(errno.EIO, "the file ends before its message does")
    return {index + number: octets[start : start + CHUNK] for number, start in enumerate(range(0, length, CHUNK))}


class _FilePlace:
    def __init__(self, shelf: FileShelf, number: int) -> None:
        self._shelf = shelf
        self._number = number
        self._begun = False

    def put(self, pieces: list[bytes]) -> Deferred[Any]:
        first, self._begun = not self._begun, True
        return self._shelf.files.append(self._number, pieces, first=first)

    def complete(self, pieces: list[bytes], size: int) -> Deferred[Any]:
        first, self._begun = not self._begun, True
        return self._shelf.files.finish(self._number, pieces, size, first=first)

    def steps(self, envelope: Envelope) -> Steps:
        return [rows.insertion(envelope, -(-envelope.size // CHUNK), None)]

    def kept(self) -> None:
        self._shelf.arriving.discard(self._number)

    def drop(self) -> None:
        self._shelf.arriving.discard(self._number)
        if self._begun:
            self._shelf.sweep((self._number,))
