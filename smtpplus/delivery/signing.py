"""Signing mail by DKIM on its way out (RFC 6376): the last thing that happens to a message before it leaves.

It happens at the first attempt and not at acceptance: so bounces, alerts and what another process posted are signed too, a key that was
added or replaced while a message waited counts, nothing is stored twice, and the signature needs no place in a content whose
first piece is committed before its last has arrived. What it costs is a pass over the content, 0.2 ms per 64 KiB, given
back to the reactor in between; later attempts and other destinations take the signature from memory.

The keys of the domains in From sign: of each algorithm the newest that is in use. Ed25519 signs at once (20 to 50 µs), RSA in a thread, in
batches, for OpenSSL gives the interpreter away meanwhile. Until the keys are read for the first time, everybody waits:
nothing leaves unsigned because it was quick. Without any key, `active` is false and nobody asks.
"""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from typing import Any, Callable

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from smtpplus.delivery import keys
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.keys import StoredKey
from smtpplus.mail import dkim, reasons
from smtpplus.mail.dkim import BodyHash, Covered
from smtpplus.mail.envelope import Content, Envelope
from smtpplus.mail.header import HEADER_LIMIT, Header, find_header_end
from smtpplus.mail.reasons import Refusal
from smtpplus.storage.database import Database

POLL = 0.5  # seconds between two looks at the generation
REMEMBERED = 2048  # messages whose signatures are kept for their next attempt
FIELDS_LIMIT = 16_384  # octets of the fields of a message that is remembered; a header of nothing but To would need 500 KB
AUTHOR_LIMIT = 1_000  # characters of a From whose domains are remembered
BREATH = 4  # pieces of content that are hashed before the reactor has its turn
BATCH = 16  # RSA signatures made in one go, about 5 ms
_PADDING, _DIGEST = PKCS1v15(), Prehashed(SHA256())

Signed = Callable[["bytes | Fault"], None]


class Key(msgspec.Struct, frozen=True):
    """A key that signs."""

    stored: StoredKey
    private: RSAPrivateKey | Ed25519PrivateKey


Keys = dict[str, list[Key]]  # by domain


class Signer:
    """Makes the DKIM-Signature fields of messages. `now` is in seconds since the epoch."""

    _log = Logger()

    def __init__(self, database: Database, *, reactor: Any, threads: ThreadPool, now: Callable[[], float]) -> None:
        self._database = database
        self._clock = reactor
        self._now = now
        self._keys: Keys = {}
        self._seen: int | None = None  # generation of the keys
        self._waiting: list[Callable[[], None]] = []  # until the keys are read for the first time
        self._done: OrderedDict[int, bytes] = OrderedDict()  # envelope id, or -id of what it was converted to → fields
        self._under_way: dict[int, list[Signed]] = {}
        self._bench = RSABench(reactor, threads)
        self._authors = functools.lru_cache(maxsize=4096)(dkim.author_domains)
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor
        self._complained = False
        self.active = True  # whether `sign` has anything to do: keys, or still to read them

    def start(self) -> None:
        """Read the keys, and look for changes from now on. The database must be started."""
        self._loop.start(POLL)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def sign(self, envelope: Envelope, content: Content, done: Signed, *, converted: bool = False) -> None:
        """Call `done` with the fields to put on top of the message, b"" for none, at once if possible; with a Fault if that fails.

        `converted`: the content is not the one that was accepted, but what became of it for some peers."""
        if self._seen is None:
            self._waiting.append(lambda: self.sign(envelope, content, done, converted=converted))
            return
        number = -envelope.id if converted else envelope.id
        fields = self._done.get(number)
        if fields is not None:
            done(fields)
            return
        asked = self._under_way.get(number)
        if asked is not None:
            asked.append(done)
            return
        self._under_way[number] = [done]
        _Signing(self, number, content).read()

    def keys_for(self, author: str) -> list[Key]:
        """Who signs for this From."""
        authors = self._authors if len(author) <= AUTHOR_LIMIT else dkim.author_domains
        return [key for domain in authors(author) for key in self._keys.get(domain, ())]

    def make(self, number: int, signing: list[Key], covered: Covered, body_hash: bytes) -> None:
        """Sign message `number` with all of these keys."""
        at = self._now()
        fields: dict[int, bytes] = {}

        def add(index: int, outlined: bytes, signature: bytes | None) -> None:
            if signature is None:
                self.settle(number, Fault(reasons.UNEXPECTED))
                return
            fields[index] = dkim.field(outlined, signature)
            if len(fields) == len(signing):
                self.settle(number, b"".join(fields[place] for place in range(len(signing))))

        for index, key in enumerate(signing):
            stored = key.stored
            outlined = dkim.outline(covered, body_hash, algorithm=stored.algorithm, domain=stored.domain, selector=stored.selector, at=at)
            digest = hashlib.sha256(dkim.signing_input(covered, outlined)).digest()
            if isinstance(key.private, RSAPrivateKey):
                self._bench.sign(key.private, digest, functools.partial(add, index, outlined))
            else:
                add(index, outlined, key.private.sign(digest))  # RFC 8463 §3: of the hash

    def settle(self, number: int, result: bytes | Fault) -> None:
        """Tell all who asked for message `number`, and remember it for its next attempt."""
        asked = self._under_way.pop(number, ())
        if isinstance(result, bytes) and len(result) <= FIELDS_LIMIT:
            self._done[number] = result
            if len(self._done) > REMEMBERED:
                self._done.popitem(last=False)
        for done in asked:
            done(result)

    def later(self, call: Callable[[], None]) -> None:
        """Call it after the reactor's turn."""
        self._clock.callLater(0, call)

    def _look(self) -> Deferred[Any]:
        looking: Deferred[Any] = self._database.read(keys.read_generation).addCallback(self._compare)
        return looking.addErrback(self._unread)

    def _compare(self, number: int) -> Deferred[None] | None:
        return None if number == self._seen else self._database.read(_load).addCallback(self._loaded, number)

    def _loaded(self, stored: list[StoredKey], number: int) -> None:
        found: dict[tuple[str, str], Key] = {}
        for each in stored:  # the newest of an algorithm comes last
            try:
                found[each.domain, each.algorithm] = Key(each, each.private_key())
            except ValueError:
                self._log.failure("the key {name} cannot be used", name=each.name)
        self._keys = {}
        for (domain, _), key in found.items():
            self._keys.setdefault(domain, []).append(key)
        self._seen, self._complained = number, False
        self.active = bool(self._keys)
        self._done.clear()
        waiting, self._waiting = self._waiting, []
        for go in waiting:
            go()

    def _unread(self, failure: Failure) -> None:
        if not self._complained:
            self._complained = True
            self._log.failure("the DKIM keys cannot be read; it is tried again", failure)


def _load(connection: Any) -> list[StoredKey]:
    return [key for key in keys.list_keys(connection) if key.active]


class _Signing:
    """One message on its way through the hash, piece by piece."""

    __slots__ = (
        "_asked",
        "_body",
        "_content",
        "_covered",
        "_head",
        "_here",
        "_index",
        "_keys",
        "_number",
        "_over",
        "_piece",
        "_running",
        "_signer",
    )

    def __init__(self, signer: Signer, number: int, content: Content) -> None:
        self._signer = signer
        self._number = number
        self._content = content
        self._index = 0  # pieces that arrived
        self._piece: bytes | None = None
        self._asked = self._here = self._running = self._over = False
        self._head: bytes = b""  # the pieces that came while the header has no end
        self._covered: Covered | None = None
        self._keys: list[Key] = []
        self._body = BodyHash()

    def read(self) -> None:
        """Go on as far as the pieces are at hand, a few of them at once."""
        if self._running:
            return
        self._running = True
        try:
            self._go()
        except Exception:
            Signer._log.failure("a message cannot be signed")
            self._settle(Fault(reasons.UNEXPECTED))
        finally:
            self._running = False

    def _go(self) -> None:
        taken = 0
        while not self._over:
            if self._here:
                self._here = False
                self._take(self._piece)
                taken += 1
            elif self._index == self._content.chunks:
                self._over = True
                assert self._covered is not None
                self._signer.make(self._number, self._keys, self._covered, self._body.finish())
            elif taken == BREATH:
                self._signer.later(self.read)
                return
            elif self._asked:
                return  # `_arrived` goes on
            else:
                self._asked = True
                self._content.read(self._index, self._arrived)

    def _arrived(self, piece: bytes | None) -> None:
        self._asked, self._here = False, True
        self._index += 1
        self._piece = piece
        self.read()

    def _take(self, piece: bytes | None) -> None:
        if piece is None:
            self._settle(Fault(reasons.CONTENT_LOST))
        elif self._covered is not None:
            self._body.feed(piece)
        else:
            head = self._head = self._head + piece
            end = find_header_end(head)
            if end >= 0 or self._index == self._content.chunks or len(head) > 2 * HEADER_LIMIT:
                self._head = b""
                self._begin(head, end if end >= 0 else len(head))

    def _begin(self, head: bytes, end: int) -> None:
        """The header is whole: find who signs."""
        try:
            header = Header.parse(head[:end])
        except Refusal:  # over the limit by the fields that we added
            self._settle(b"")
            return
        self._keys = [key for value in header.values("from")[:1] for key in self._signer.keys_for(value)]
        if not self._keys:
            self._settle(b"")
            return
        self._covered = dkim.cover(header)
        self._body.feed(head[end:])

    def _settle(self, result: bytes | Fault) -> None:
        self._over = True
        self._signer.settle(self._number, result)


class RSABench:
    """Makes RSA signatures in a thread, a batch at a time, and hands them back on the reactor's thread in one call."""

    _log = Logger()

    def __init__(self, reactor: Any, threads: ThreadPool) -> None:
        self._reactor = reactor
        self._threads = threads
        self._waiting: list[tuple[RSAPrivateKey, bytes, Callable[[bytes | None], None]]] = []
        self._busy = False

    def sign(self, key: RSAPrivateKey, digest: bytes, done: Callable[[bytes | None], None]) -> None:
        """Call `done` later with the signature of a SHA-256 digest, None if it cannot be made."""
        self._waiting.append((key, digest, done))
        if not self._busy:
            self._busy = True
            self._reactor.callLater(0, self._begin)  # what else this turn brings comes along

    def _begin(self) -> None:
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        self._threads.callInThread(self._work, batch)

    def _work(self, batch: list[tuple[RSAPrivateKey, bytes, Callable[[bytes | None], None]]]) -> None:
        """In the thread."""
        results: list[bytes | None] = []
        for key, digest, _ in batch:
            try:
                results.append(key.sign(digest, _PADDING, _DIGEST))
            except Exception:
                self._log.failure("an RSA signature cannot be made")
                results.append(None)
        self._reactor.callFromThread(self._made, batch, results)

    def _made(self, batch: list[tuple[RSAPrivateKey, bytes, Callable[[bytes | None], None]]], results: list[bytes | None]) -> None:
        if self._waiting:
            self._begin()
        else:
            self._busy = False
        for (_, _, done), signature in zip(batch, results, strict=True):
            done(signature)
