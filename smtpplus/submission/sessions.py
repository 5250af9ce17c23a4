"""The sessions under way, on all ports: counted, limited, looked after, parted from.

Idle sessions are found by one sweep per second over all of them, not by a timer each. Invariant: a session is among them from its
connection to its end, whatever happens to it. A stop lets transactions finish for as long as it is told to, and never longer than that
and a little.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from smtpplus.config import Configuration
from smtpplus.mail import reasons
from smtpplus.mail.reasons import Refusal
from smtpplus.submission.admission import Admission
from smtpplus.submission.attempts import Attempts
from smtpplus.submission.proxy import Proxied

SWEEP = 1.0  # seconds between two looks for idle sessions: how exact idle times are
_LAST_WORDS = 2.0  # seconds for replies on their way when the grace period is over


class Sessions:
    """The sessions under way, on all ports: counted, limited, looked after."""

    def __init__(self, configuration: Configuration, clock: IReactorTime) -> None:
        self._limits = configuration.limits
        self._clock = clock
        self.attempts = Attempts(configuration.limits.auth_failures_per_address)
        self._clients: Counter[str] = Counter()
        self._all: set[Admission] = set()
        self._proxied: set[Proxied] = set()
        self._empty: Deferred[None] | None = None
        self._sweep = LoopingCall(self._look)
        self._sweep.clock = clock
        self.now = clock.seconds()

    def __len__(self) -> int:
        return len(self._all)

    def start(self) -> None:
        """Begin to look for idle sessions."""
        self._sweep.start(SWEEP)

    def stop(self) -> None:
        """Stop looking."""
        if self._sweep.running:
            self._sweep.stop()

    def admit(self, session: Admission) -> Refusal | None:
        """Count a new session; the refusal if it is one too many. It is among them until it leaves, admitted or not."""
        limit = self._limits.connections
        many = len(self._all) >= limit
        if not many and self._clients[session.address] >= self._limits.connections_per_client:
            limit, many = self._limits.connections_per_client, True
        self._all.add(session)
        self._clients[session.address] += 1
        return reasons.TOO_MANY_CONNECTIONS.refusal(limit=str(limit)) if many else None

    def leave(self, session: Admission) -> None:
        """A session is over."""
        if session in self._all:
            self._all.discard(session)
            self._clients[session.address] -= 1
            if not self._clients[session.address]:
                del self._clients[session.address]
        if not self._all and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def watch(self, proxied: Proxied) -> None:
        """Look after a connection whose PROXY header is still to come."""
        self._proxied.add(proxied)

    def forget(self, proxied: Proxied) -> None:
        """Its header came, or it is over."""
        self._proxied.discard(proxied)

    def drain(self, grace: float) -> Deferred[None]:
        """Part from all sessions; fires when they are gone, at the latest shortly after `grace` seconds."""
        for proxied in list(self._proxied):
            proxied.transport.abortConnection()
        for session in list(self._all):
            session.drain()
        if not self._all:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._empty = empty
        over = self._clock.callLater(grace, self._insist)
        gone = self._clock.callLater(grace + _LAST_WORDS, self._abort)

        def settled(result: None) -> None:
            for call in (over, gone):
                if call.active():
                    call.cancel()

        return empty.addBoth(settled)

    def _insist(self) -> None:
        """The grace period is over. Who waits for a commit may yet hear how it ends, and else hears nothing, and sends again if it is
        careful; after 421 it would have to, also if the message is kept."""
        for session in list(self._all):
            if not session.waiting:
                session.bye(reasons.SHUTTING_DOWN.refusal())

    def _abort(self) -> None:
        for session in list(self._all):
            session.transport.abortConnection()

    def _look(self) -> None:
        now = self.now = self._clock.seconds()
        idle = self._limits.idle
        for session in list(self._all):
            session.expire(now, idle)
        for proxied in list(self._proxied):
            proxied.expire(now)
