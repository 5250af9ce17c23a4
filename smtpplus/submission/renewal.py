"""A look at the certificate files every few seconds, so that a renewed certificate is used without a restart.

Files that changed are loaded when they have stayed the same for one look, as a certificate and its key are not written at once. What
cannot be used changes nothing and is stated as a Fault, once for each change; sessions under way keep what they have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from smtpplus.events import Events, Fault
from smtpplus.submission.tls import ServerTLS, TLSError

LOOK = 3.0  # seconds between two looks


class Renewal:
    """Watches the files of one ServerTLS. Methods are called on the reactor's thread."""

    _log = Logger()

    def __init__(self, tls: ServerTLS, clock: Any, now: Callable[[], float], events: Events) -> None:
        self._tls = tls
        self._now = now
        self._events = events
        self._loaded = self._seen = tls.stamp()
        self._loop = LoopingCall(self.look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to look."""
        self._loop.start(LOOK, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def look(self) -> None:
        """Load the files if they changed, and are not being changed."""
        before, self._seen = self._seen, self._tls.stamp()
        if self._seen != self._loaded and self._seen == before:
            self.reload()

    def reload(self) -> None:
        """Load the files now."""
        self._loaded = self._seen = self._tls.stamp()
        try:
            self._tls.reload()
        except TLSError as fault:
            self._log.error("the changed certificates are not used: {fault}", fault=fault)
            self._events.state(Fault(self._now(), f"the changed certificates are not used: {fault}"))
        else:
            self._log.info("the certificates were read anew")
