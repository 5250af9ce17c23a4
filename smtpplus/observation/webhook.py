"""Alerts for programs: each is POSTed as JSON to one address, signed, and tried again until somebody takes it.

What is owed lies in the database (observation.owed), so that neither a crash nor a restart loses it. It is deleted after it was answered
2xx: each is posted at least once, and its `id` tells a receiver what it has already. The header `X-Smtpplus-Signature` is
`t=TIME, v1=HEX`: HMAC-SHA256 with the secret over the time, a full stop and the body, so that the receiver can tell ours from others
and old from new. An https address is verified: a trusted certificate for the very host, or nothing is said.
Failure: it is tried again by RETRY, and given up after owed.KEPT, which the log says.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any, TypeVar

from sqlalchemy import Connection
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from smtpplus.client_tls import Contexts
from smtpplus.mail.reply import printable
from smtpplus.observation import owed
from smtpplus.observation.owed import Post
from smtpplus.storage.database import Database

T = TypeVar("T")
RETRY = (5.0, 30.0, 120.0, 600.0, 3600.0)  # seconds until it is tried again; the last repeats
POLL = 2.0  # seconds between two looks for what is due
AT_ONCE = 10  # posts under way
PATIENCE = 10.0  # seconds for a connection
LONGEST_FAULT = 300  # characters kept of why a post failed


def signature(secret: bytes, body: bytes, now: int) -> str:
    """What the header says."""
    digest = hmac.new(secret, b"%d." % now + body, hashlib.sha256).hexdigest()
    return f"t={now}, v1={digest}"


@implementer(IPolicyForHTTPS)
class _Verifying:
    """Whom an https address is taken for: Twisted's own policy takes a certificate without any usable name (client_tls)."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return self._contexts.verified(hostname.decode("ascii"))


class _Quiet(_HTTP11ClientFactory):
    """It does not log each connection's beginning and end."""

    noisy = False


class Webhook:
    """Posts to `url` what is owed; `contexts` say which authorities are trusted, the platform's by default.

    `start` it once the database is open, `close` it before the database is."""

    _log = Logger()

    def __init__(
        self, url: str, secret: bytes, reactor: Any, *, database: Database, now: Callable[[], float], contexts: Contexts | None = None
    ) -> None:
        self._url = url.encode("ascii")
        self._secret = secret
        self._reactor = reactor
        self._database = database
        self._now = now
        policy = _Verifying(contexts or Contexts())
        pool: Any = HTTPConnectionPool(reactor, persistent=False)
        pool._factory = _Quiet
        self._agent = Agent(reactor, policy, connectTimeout=PATIENCE, pool=pool)
        self._under_way: dict[int, Deferred[Any]] = {}  # by the id of the post
        self._closed = self._complained = False
        self._looking = self._again = False  # the database is being asked; it is to be asked once more
        self._loop = LoopingCall(self.look)
        self._loop.clock = reactor

    def start(self) -> None:
        """Post what is owed, now and from now on."""
        self._loop.start(POLL)

    def close(self) -> None:
        """Post nothing more. What was not taken stays owed."""
        self._closed = True
        if self._loop.running:
            self._loop.stop()
        for asked in list(self._under_way.values()):
            asked.cancel()

    def look(self, _: object = None) -> None:
        """Post what is due. One look at a time: the answer to another could come late, with what was posted and taken meanwhile."""
        if self._looking:
            self._again = True
            return
        free = AT_ONCE - len(self._under_way)
        if free > 0 and not self._closed:
            self._looking = True
            query = partial(owed.due, now=self._now(), limit=free, without=frozenset(self._under_way))
            self._database.read(query).addCallbacks(self._post_all, self._failed).addBoth(self._looked)

    def _post_all(self, posts: list[Post]) -> None:
        self._complained = False
        for post in posts:
            if not self._closed:
                self._post(post)

    def _looked(self, result: T) -> T:
        again, self._looking, self._again = self._again, False, False
        if again:
            self.look()
        return result

    def _post(self, post: Post) -> None:
        headers = Headers(
            {
                "Content-Type": ["application/json"],
                "User-Agent": ["smtpplus"],
                "X-Smtpplus-Signature": [signature(self._secret, post.body, int(self._now()))],
            }
        )
        asked: Any = maybeDeferred(self._agent.request, b"POST", self._url, headers, FileBodyProducer(BytesIO(post.body)))
        self._under_way[post.id] = asked
        asked.addTimeout(3 * PATIENCE, self._reactor)
        asked.addCallback(_answered).addCallbacks(lambda _: self._taken(post), lambda failure: self._not_taken(failure, post))

    def _taken(self, post: Post) -> None:
        self._settle(post, partial(owed.taken, number=post.id))

    def _not_taken(self, failure: Failure, post: Post) -> None:
        if self._closed:
            return
        why, now = printable(failure.getErrorMessage() or str(failure.type))[:LONGEST_FAULT], self._now()
        wait = RETRY[min(post.tried, len(RETRY) - 1)]
        if now + wait > post.created_at + owed.KEPT:
            self._log.error("an alert was not taken by the webhook and is given up: {why}", why=why)
            self._settle(post, partial(owed.give_up, number=post.id, why=why, now=now))
        else:
            self._settle(post, partial(owed.put_off, number=post.id, tried=post.tried + 1, until=now + wait, why=why, now=now))

    def _settle(self, post: Post, work: Callable[[Connection], None]) -> None:
        self._database.write(work).addCallbacks(self._settled, self._failed, callbackArgs=(post,), errbackArgs=(post,))

    def _settled(self, _: object, post: Post) -> None:
        del self._under_way[post.id]
        self.look()

    def _failed(self, failure: Failure, post: Post | None = None) -> None:
        """The database could not be asked, or not told what became of `post`: that is due still, with the next look."""
        if post is not None:
            del self._under_way[post.id]
        if not self._closed and not self._complained:
            self._log.failure("what the webhook is owed cannot be read or written; it is tried again", failure)
        self._complained = True


def _answered(response: Any) -> None:
    response.deliverBody(Protocol())  # read, and not looked at
    if not 200 <= response.code < 300:
        raise ConnectionError(f"the webhook answered {response.code}")
