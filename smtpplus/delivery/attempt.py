"""The way out as the queue sees it: `Delivery` takes requests and gives one disposition per recipient.

It signs the message where there are keys, finds the hop of the request's destination and hands the transfer to what reaches that hop: a
pool of SMTP connections, the Maildir writer, or nothing at all (discard:). Nothing here raises: what goes wrong unexpectedly is logged and
defers the message. `done` is never called before `deliver` returns, so that a queue that goes on from `done` does not go ever deeper.
"""

from __future__ import annotations

import functools
import random as random_module
from collections.abc import Callable, Collection
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from smtpplus.client_tls import Contexts
from smtpplus.config import Configuration
from smtpplus.delivery.conversion import Lost, converted
from smtpplus.delivery.dial import Dialer, Manner
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.maildir import MaildirWriter
from smtpplus.delivery.pool import Pool
from smtpplus.delivery.resolver import Resolver
from smtpplus.delivery.routing import Hop, Router, Way
from smtpplus.delivery.signing import Signer
from smtpplus.delivery.transfer import Done, Transfer
from smtpplus.mail import reasons
from smtpplus.mail.disposition import Request
from smtpplus.mail.envelope import Content, Envelope
from smtpplus.mail.reply import Reply
from smtpplus.mail.seven_bit import Unconvertible
from smtpplus.right_of_way import Favour

VERIFIED = " verified"  # behind a destination: sessions for mail that requires TLS, which are verified whatever the route says
STOP_PATIENCE = 10.0  # seconds that `stop` waits for a peer
DISCARDED = Reply(250, "2.0.0", "discarded")


class Delivery:
    """Implements mail.disposition.DeliveryAgent."""

    _log = Logger()

    def __init__(
        self,
        *,
        configuration: Configuration,
        reactor: Any,
        threads: ThreadPool,
        random: random_module.Random,
        own: Collection[tuple[str, int]] = (),
        trust: Certificate | None = None,
        signer: Signer | None = None,
        favour: Favour | None = None,
    ) -> None:
        """`reactor` is the time, TCP and UDP of Twisted; `threads` write Maildirs; `own` are the (address, port) that we listen on, looked
        at when a connection is opened; `trust` is the authority that tls = "verify" believes, None for the platform's; `signer` signs;
        `favour` is that of right_of_way, for urgent mail."""
        settings = configuration.delivery
        manner = Manner(configuration.hostname, settings.tls, own, settings.connections, settings.messages_per_connection)
        self.router = Router(configuration.route, mx_port=settings.mx_port)
        self.resolver = Resolver(reactor=reactor, servers=configuration.dns.servers, random=random)
        self._dialer = Dialer(reactor=reactor, resolver=self.resolver, contexts=Contexts(trust), manner=manner, favour=favour)
        self._maildir = MaildirWriter(reactor=reactor, threads=threads, hostname=configuration.hostname)
        self._signer = signer
        self._reactor = reactor
        self._pools: dict[str, Pool] = {}  # by destination, and by destination with VERIFIED
        self._stopping = False

    def deliver(self, request: Request, done: Done, taken: Done | None = None) -> Transfer:
        """Begin an attempt; see mail.disposition."""
        transfer = Transfer(request, done, _NOWHERE, taken, self._convert)
        if self._signer is not None and self._signs(request.envelope):
            transfer.holder = _Signing()
            self._signer.sign(request.envelope, request.content, functools.partial(self._signed, transfer))
        else:
            self._send(transfer)
        return transfer

    def prepare(self, envelope: Envelope, destination: str) -> None:
        """See mail.disposition. Where nobody was reached before, the request itself is the first to ask."""
        pool = self._pools.get(_key(envelope, destination))
        if pool is not None:
            try:
                pool.prepare(envelope.level)
            except Exception:
                self._log.failure("no connection to {destination} is prepared", destination=destination)

    def _signed(self, transfer: Transfer, fields: bytes | Fault) -> None:
        if transfer.over:
            return
        transfer.holder = _NOWHERE
        if isinstance(fields, Fault):
            self._later(transfer, fields)
            return
        if fields:
            transfer.request = msgspec.structs.replace(transfer.request, content=Topped(fields, transfer.request.content))
        self._send(transfer)

    def _convert(self, transfer: Transfer) -> Deferred[Content | Fault]:
        """What was accepted in 7 bits, for a peer without 8BITMIME, and signed anew: the signature on top of it was for other octets."""
        return Deferred.fromCoroutine(self._converted(transfer))

    async def _converted(self, transfer: Transfer) -> Content | Fault:
        envelope = transfer.request.envelope
        try:
            content = await converted(transfer.content)
        except Unconvertible as why:
            return Fault(reasons.PEER_LACKS_8BITMIME, str(why))
        except Lost:
            return Fault(reasons.CONTENT_LOST)
        if not self._signs(envelope):
            return content
        signed: Deferred[bytes | Fault] = Deferred()
        cast(Signer, self._signer).sign(envelope, content, signed.callback, converted=True)
        fields = await signed
        return fields if isinstance(fields, Fault) else Topped(fields, content)

    def _signs(self, envelope: Envelope) -> bool:
        return self._signer is not None and self._signer.active and not envelope.unauthorized

    def _send(self, transfer: Transfer) -> None:
        request = transfer.request
        pool = self._pools.get(_key(request.envelope, request.destination))
        if pool is None:
            self._set_out(transfer)
            return
        try:
            pool.take(transfer)
        except Exception:
            self._stumble(transfer)

    def stop(self) -> Deferred[None]:
        """End idle sessions, cancel openings, take no more requests. Fires when the last connection is closed, 10 s after what still
        runs at most: who wants it to end sooner abandons it before."""
        self._stopping = True
        self._pools.clear()
        self.resolver.stop()
        return self._dialer.stop(STOP_PATIENCE)

    def _set_out(self, transfer: Transfer) -> None:
        """The first request for a destination, or one that needs no connection."""
        request = transfer.request
        hop = self.router.hop(request.destination)
        if self._stopping:
            self._later(transfer, Fault(reasons.ABANDONED))
        elif hop is None:
            self._later(transfer, Fault(reasons.NO_ROUTE))
        elif hop.way is Way.DISCARD:
            self._reactor.callLater(0, transfer.settle, "discard:", [DISCARDED] * len(request.recipients))
        elif hop.way is Way.MAILDIR:
            self._maildir.take(transfer, hop.path)
        elif not _is_strict(request.envelope):
            self._open_pool(transfer, request.destination, hop)
        elif hop.way is Way.MX:  # RFC 8689 §4.2.1
            self._later(
                transfer, Fault(reasons.PEER_LACKS_REQUIRETLS, "its mail hosts are found by MX records, which nobody authenticates")
            )
        else:
            self._open_pool(transfer, _key(request.envelope, request.destination), msgspec.structs.replace(hop, tls="verify"))

    def _open_pool(self, transfer: Transfer, key: str, hop: Hop) -> None:
        pool = self._pools[key] = Pool(hop, self._dialer, functools.partial(self._forget, key))
        try:
            pool.take(transfer)
        except Exception:
            self._stumble(transfer)

    def _forget(self, key: str, pool: Pool) -> None:
        if self._pools.get(key) is pool:
            del self._pools[key]

    def _stumble(self, transfer: Transfer) -> None:
        self._log.failure("delivery to {destination} failed", destination=transfer.request.destination)
        self._later(transfer, Fault(reasons.UNEXPECTED))

    def _later(self, transfer: Transfer, fault: Fault) -> None:
        self._reactor.callLater(0, transfer.settle, "", (), fault)


def _is_strict(envelope: Envelope) -> bool:
    """Whether the message must have verified TLS. A notification about one that must is not lost for want of it (RFC 8689 §5)."""
    return envelope.require_tls and bool(envelope.sender)


def _key(envelope: Envelope, destination: str) -> str:
    """Of the pool for it."""
    return destination + VERIFIED if _is_strict(envelope) else destination


class _Nowhere:
    """The holder of a transfer whose end is already on its way."""

    def may_stop(self) -> bool:
        return False

    def halted(self, transfer: Transfer) -> None:
        """Cannot happen."""

    def resumed(self, transfer: Transfer) -> None:
        """Cannot happen."""

    def abandoned(self, transfer: Transfer) -> None:
        """It ends by itself."""


_NOWHERE = _Nowhere()


class _Signing:
    """The holder of a transfer that is being signed."""

    def may_stop(self) -> bool:
        return True

    def halted(self, transfer: Transfer) -> None:
        """It is signed all the same, and then waits in the pool."""

    def resumed(self, transfer: Transfer) -> None:
        """It goes on when it is signed."""

    def abandoned(self, transfer: Transfer) -> None:
        transfer.settle("", (), Fault(reasons.ABANDONED))


class Topped:
    """A content with octets on top of its first piece, which so becomes larger than CHUNK."""

    __slots__ = ("_content", "_top", "chunks", "size")

    def __init__(self, top: bytes, content: Content) -> None:
        self._top = top
        self._content = content
        self.size = content.size + len(top)
        self.chunks = content.chunks

    def read(self, index: int, done: Callable[[bytes | None], None]) -> None:
        """See mail.envelope.Content."""
        if index:
            self._content.read(index, done)
        else:
            self._content.read(0, lambda piece: done(None if piece is None else self._top + piece))
