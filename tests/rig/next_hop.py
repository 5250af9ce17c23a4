"""An independent next hop: aiosmtpd on a loop and a thread of its own, which records what arrives and when.

It shares no code with smtpplus. Each message that it took with 250 is a `Delivery`; each read of a connection is noted with
this machine's monotonic clock. It can read slowly, and it can answer RCPT as told. Its receive buffer is small, so that what
it has not read is still with the sender or on the wire.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session

HOST = "127.0.0.1"
RECEIVE_BUFFER = 16_384  # octets the kernel may hold for a connection (it doubles this)


class Delivery(msgspec.Struct, frozen=True):
    """One message answered with 250. Times are of time.monotonic()."""

    sender: str  # "<>" or "" is the null reverse-path
    recipients: tuple[str, ...]
    content: bytes  # with CRLF, dots removed
    connection: int
    begun: float  # when DATA was read
    ended: float  # just before 250


class Arrival(msgspec.Struct, frozen=True):
    """One read of one connection."""

    at: float
    connection: int
    octets: int


class Attempt(msgspec.Struct, frozen=True):
    """One RCPT command, whatever it was answered."""

    at: float
    connection: int
    address: str


class NextHop:
    """A server on 127.0.0.1:`port` (0: a free one). Use as a context manager.

    `rate` is the octets a second that each connection is read at (None: as fast as they come). `refusals` are replies to
    RCPT by address, each used once, in order; after them the address is accepted.
    """

    def __init__(self, *, rate: float | None = None, refusals: Mapping[str, Sequence[str]] | None = None, port: int = 0) -> None:
        self.rate = rate
        self.refusals = {address: list(replies) for address, replies in (refusals or {}).items()}
        self.deliveries: list[Delivery] = []
        self.arrivals: list[Arrival] = []
        self.attempts: list[Attempt] = []
        self.numbers = itertools.count(1)
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind((HOST, port))
        self._listening.listen(128)  # here, so that nobody is refused while the thread starts
        self.port = int(self._listening.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="next hop", daemon=True)

    @property
    def via(self) -> str:
        """The `via` of a route to here."""
        return f"smtp://{HOST}:{self.port}"

    def __enter__(self) -> NextHop:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30.0)

    def await_deliveries(self, wanted: Callable[[list[Delivery]], bool], seconds: float = 60.0) -> list[Delivery]:
        """The deliveries as soon as `wanted` is true of them; AssertionError when it has not become true in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            taken = list(self.deliveries)
            if wanted(taken):
                return taken
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds:.0f} s; {len(self.deliveries)} messages arrived, {len(self.attempts)} RCPT commands")

    def octets(self, connection: int, since: float, until: float) -> int:
        """How much was read from `connection` in that time."""
        return sum(each.octets for each in list(self.arrivals) if each.connection == connection and since <= each.at < until)

    def connection_of(self, address: str) -> int:
        """The connection on which the first RCPT for `address` came; waits for it."""
        self.await_deliveries(lambda taken: any(each.address == address for each in list(self.attempts)))
        return next(each.connection for each in self.attempts if each.address == address)

    async def handle_RCPT(self, server: Recording, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        self.attempts.append(Attempt(time.monotonic(), server.number, address))
        replies = self.refusals.get(address)
        if replies:
            return replies.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Recording, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        taken = Delivery(envelope.mail_from or "", tuple(envelope.rcpt_tos), bytes(content), server.number, server.begun, time.monotonic())
        self.deliveries.append(taken)
        return "250 2.0.0 taken"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(self._loop.create_server(lambda: Recording(self, self._loop), sock=self._listening))
        self._loop.run_forever()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class Recording(SMTP):
    """aiosmtpd's session, noting every read and reading no faster than told."""

    def __init__(self, hop: NextHop, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(hop, enable_SMTPUTF8=True, hostname="next-hop.example.net", data_size_limit=None, timeout=300.0, loop=loop)
        self.hop = hop
        self.number = next(hop.numbers)
        self.begun = 0.0
        self._channel: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._channel = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.hop.arrivals.append(Arrival(time.monotonic(), self.number, len(data)))
        if self.hop.rate is None or len(data) < 512:  # commands are not delayed
            super().data_received(data)
            return
        self._channel.pause_reading()
        self.loop.call_later(len(data) / self.hop.rate, self._read_on, data)

    def _read_on(self, data: bytes) -> None:
        super().data_received(data)
        if not self._channel.is_closing():
            self._channel.resume_reading()

    async def smtp_DATA(self, arg: str) -> None:
        self.begun = time.monotonic()
        await super().smtp_DATA(arg)
