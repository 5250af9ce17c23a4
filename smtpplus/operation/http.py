"""The HTTP server: a few plain pages on `[http] listen`, each a function from what was asked to an answer.

A request is routed by the first part of its path. Invariant: nothing a client sends raises, is kept beyond its limit, or is
written to a log (addresses of pages hold secrets); every answer forbids being framed, cached, or loading anything from elsewhere. A body is
counted to its end, and not kept. Failure: an answer that fails is logged and told as 500 with none of our text; when
more is asked than the database should bear, 503.
"""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import Any, Callable, Mapping

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web import http

from smtpplus.config import Endpoint

BODY = 4_096  # octets of a request's body that are endured; it is counted and not kept
FLOOD = 1_048_576  # octets of a body after which the connection is cut
PATH = 512  # octets of a path
CONNECTIONS = 64  # at a time
PER_CLIENT = 8  # of them from one address
DEADLINE = 10.0  # seconds from one answer, or the beginning, to the next: who sends an octet a second is cut off all the same
RATE, BURST = 50.0, 100.0  # requests a second, and at once, over all clients
IDLE = 30.0  # seconds without a word before a connection is closed
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}


class HTTPListenError(Exception):
    """The port cannot be had; str() is a sentence for the operator."""


class Asked(msgspec.Struct, frozen=True):
    """One request. `method` is GET (also for HEAD) or POST; `rest` is the path behind its first part, not decoded."""

    method: str
    rest: str
    client: str  # IP address


class Answer(msgspec.Struct, frozen=True):
    """What is answered; `headers` come on top of HEADERS and may replace some."""

    status: int
    body: str
    type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}


class Page(msgspec.Struct, frozen=True):
    """What is served under one first part of the path. `deep`: something behind it is expected."""

    answer: Callable[[Asked], Answer | Deferred[Answer]]
    methods: tuple[str, ...] = ("GET", "HEAD")
    deep: bool = False
    counted: bool = True  # among RATE; not so what watches the daemon, which must be answered while others flood it


def plain(status: int, sentence: str, **headers: str) -> Answer:
    """A short answer in words."""
    return Answer(status, f"{sentence}\n", headers=headers)


class HTTPServer:
    """Serves `pages`, by the first part of the path, on `endpoint`. `bind` it while twistd may, `stop` it early."""

    def __init__(self, endpoint: Endpoint, pages: Mapping[str, Page], reactor: Any) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        limited: Any = _Limited
        self._factory = limited(_Factory(pages, reactor), reactor)
        self._port: IListeningPort | None = None

    def bind(self) -> None:
        """Take the port and serve; HTTPListenError."""
        host, port = self._endpoint
        try:
            self._port = self._reactor.listenTCP(port, self._factory, interface=host)
        except CannotListenError as fault:
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise HTTPListenError(
                f"the HTTP server cannot listen on {shown}: {getattr(fault.socketError, 'strerror', None) or fault.socketError}; "
                'name another port with `[http] listen`, or turn it off with ""'
            ) from None

    def stop(self) -> Deferred[Any]:
        """Free the port; fires when it is free. Requests under way end with their connection."""
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening if port is not None else lambda: None)


class _Timed(ProtocolWrapper):
    """A connection that ends unless a request is answered on it every DEADLINE seconds."""

    def makeConnection(self, transport: Any) -> None:
        self._deadline: IDelayedCall = self.factory.clock.callLater(DEADLINE, self._late)
        connected: Any = super().makeConnection
        connected(transport)

    def answered(self) -> None:
        """Give the next request its time."""
        if self._deadline.active():
            self._deadline.reset(DEADLINE)

    def _late(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline.active():
            self._deadline.cancel()
        lost: Any = super().connectionLost
        lost(reason)


class _Limited(WrappingFactory):
    """Lets no more than CONNECTIONS in, and PER_CLIENT from one address."""

    noisy = False
    protocol = _Timed

    def __init__(self, factory: Any, clock: Any) -> None:
        begin: Any = super().__init__
        begin(factory)
        self.clock = clock

    def buildProtocol(self, addr: Any) -> Any:
        same = sum(each.getPeer().host == addr.host for each in self.protocols)
        return super().buildProtocol(addr) if len(self.protocols) < CONNECTIONS and same < PER_CLIENT else None


class _Factory(http.HTTPFactory):
    """Knows the pages, and how many requests may be answered."""

    noisy = False

    def __init__(self, pages: Mapping[str, Page], reactor: Any) -> None:
        super().__init__(timeout=IDLE, reactor=reactor)
        self.pages = pages
        self._clock = reactor
        self._allowance, self._at = BURST, 0.0

    def buildProtocol(self, addr: Any) -> Any:
        channel: Any = super().buildProtocol(addr)
        channel.requestFactory = lambda channel, _queued: _Request(channel, self)
        return channel

    def log(self, request: http.Request) -> None:
        """No access log: a path may hold a token."""

    def allows(self) -> bool:
        """Whether one more request may be answered now: a bucket that fills at RATE up to BURST."""
        now = self._clock.seconds()
        self._allowance = min(BURST, self._allowance + RATE * max(0.0, now - self._at))
        self._at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


class _Request(http.Request):
    """One request on its way to an answer."""

    def __init__(self, channel: Any, factory: _Factory) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)
        self._connection = channel
        self._factory = factory
        self._body = 0
        self._gone = False

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()  # stays empty: no page has a use for a body

    def handleContentChunk(self, data: bytes) -> None:
        self._body += len(data)
        if self._body > FLOOD:
            self._connection.transport.abortConnection()

    def process(self) -> None:
        self.notifyFinish().addErrback(self._lost)
        answer: Callable[[], Any] = self._answer
        maybeDeferred(answer).addErrback(self._failed).addCallback(self._send)

    def _lost(self, _: Failure) -> None:
        self._gone = True

    def _answer(self) -> Answer | Deferred[Answer]:
        if self._body > BODY:
            return plain(413, f"more than {BODY} octets")
        if len(self.path) > PATH:
            return plain(414, "this path is too long")
        first, slash, rest = self.path.decode("latin-1").removeprefix("/").partition("/")
        page = self._factory.pages.get(first)
        if page is None or not self.path.startswith(b"/") or bool(rest) != page.deep or (slash and not rest):
            return plain(404, "there is no such page")
        method = self.method.decode("latin-1")
        if method not in page.methods:
            return plain(405, "this page has other methods", Allow=", ".join(page.methods))
        if page.counted and not self._factory.allows():
            return plain(503, "too many requests; try again in a second", **{"Retry-After": "1"})
        return page.answer(Asked("GET" if method == "HEAD" else method, rest, str(getattr(self.client, "host", ""))))

    def _failed(self, failure: Failure) -> Answer:
        self._log.failure("a page failed", failure)
        return plain(500, "this went wrong here, and not by your fault; try again later")

    def _send(self, answer: Answer) -> None:
        if not self._gone:
            self._connection.transport.answered()
            _write(self, answer)


def _write(request: Any, answer: Answer) -> None:
    body = answer.body.encode("utf-8", "replace")
    request.setResponseCode(answer.status, HTTPStatus(answer.status).phrase.encode("ascii"))
    headers = {"Content-Type": answer.type, "Content-Length": str(len(body)), **HEADERS, **answer.headers}
    for name, value in headers.items():
        request.setHeader(name, value)
    request.write(body)
    request.finish()
