"""Alerts for programs: each is POSTed as JSON to one address, signed, and tried again for a while if nobody takes it.

The header `X-Smtpplus-Signature` is `t=TIME, v1=HEX`: HMAC-SHA256 with the secret over the time, a full stop and the body, so that
the receiver can tell ours from others and old from new. Retries live in memory: what waits when the process ends is lost here, and
stays in `alerts list` and in the mail. At most WAITING wait; the oldest give way.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from io import BytesIO
from typing import Any

import msgspec
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool
from twisted.web.http_headers import Headers

from smtpplus.observation.desk import Sent

RETRY = (5.0, 30.0, 120.0, 600.0, 3600.0)  # seconds until it is tried again; then it is given up
WAITING = 1_000
PATIENCE = 10.0  # seconds for a connection


def signature(secret: bytes, body: bytes, now: int) -> str:
    """What the header says."""
    digest = hmac.new(secret, b"%d." % now + body, hashlib.sha256).hexdigest()
    return f"t={now}, v1={digest}"


class Webhook:
    """Posts to `url`. `close` forgets what waits."""

    _log = Logger()

    def __init__(self, url: str, secret: bytes, reactor: Any, *, now: Callable[[], float]) -> None:
        self._url = url.encode("ascii")
        self._secret = secret
        self._reactor = reactor
        self._now = now
        self._agent = Agent(reactor, connectTimeout=PATIENCE, pool=HTTPConnectionPool(reactor, persistent=False))
        self._waiting: dict[IDelayedCall, None] = {}

    def __call__(self, sent: Sent) -> None:
        """Post what was told."""
        kind = "digest" if sent.digest else "alert"
        body = msgspec.json.encode({"type": kind, "at": self._now(), "problems": sent.told})
        self._post(body, 0)

    def close(self) -> None:
        """Try nothing again."""
        for call in self._waiting:
            if call.active():
                call.cancel()
        self._waiting.clear()

    def _post(self, body: bytes, tried: int) -> None:
        headers = Headers(
            {
                "Content-Type": ["application/json"],
                "User-Agent": ["smtpplus"],
                "X-Smtpplus-Signature": [signature(self._secret, body, int(self._now()))],
            }
        )
        asked: Any = self._agent.request(b"POST", self._url, headers, FileBodyProducer(BytesIO(body)))
        asked.addTimeout(3 * PATIENCE, self._reactor)
        asked.addCallback(self._answered).addErrback(self._again, body, tried)

    def _answered(self, response: Any) -> None:
        response.deliverBody(Protocol())  # read, and not looked at
        if not 200 <= response.code < 300:
            raise ConnectionError(f"the webhook answered {response.code}")

    def _again(self, failure: Failure, body: bytes, tried: int) -> None:
        if tried >= len(RETRY):
            self._log.error("an alert was not taken by the webhook and is given up: {why}", why=failure.getErrorMessage())
            return
        if len(self._waiting) >= WAITING:
            oldest = next(iter(self._waiting))
            oldest.cancel()
            del self._waiting[oldest]

        def again() -> None:
            self._waiting.pop(call, None)
            self._post(body, tried + 1)

        call = self._reactor.callLater(RETRY[tried], again)
        self._waiting[call] = None
