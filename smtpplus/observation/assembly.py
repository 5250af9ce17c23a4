"""Those who watch, put together: who hears which events, and in which order they begin and end.

They are begun after the database and ended before it, and after everything that states events. What none of them is asked for
costs nothing: without `[queue] history` no row of history is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.interfaces import IReactorTime

from smtpplus.config import Configuration
from smtpplus.events import Events, WouldRefuse
from smtpplus.observation.history import History
from smtpplus.observation.metrics import Measures
from smtpplus.observation.would_block import WouldBlock
from smtpplus.storage.database import Database


class Observation:
    """All that watches, but for the mail log, which needs no database."""

    def __init__(
        self, configuration: Configuration, *, database: Database, events: Events, clock: IReactorTime, now: Callable[[], float]
    ) -> None:
        self._would_block = WouldBlock(database, clock)
        events.subscribe(self._would_block, WouldRefuse)
        self.measures = Measures(database, clock, now=now)
        if configuration.http.listen is not None:  # else nobody can ask
            events.subscribe(self.measures, *Measures.kinds)
        self._history: History | None = None
        if configuration.queue.history:
            self._history = History(database, clock, kept=configuration.queue.history, now=now)
            events.subscribe(self._history, *History.kinds)

    def start(self) -> None:
        """Begin; the database is open."""
        self.measures.start()
        if self._history is not None:
            self._history.start()

    @inlineCallbacks
    def close(self) -> Any:
        """Write what is left; fires when it is in the database, or cannot be."""
        self.measures.stop()
        yield self._would_block.close()
        if self._history is not None:
            yield self._history.close()
