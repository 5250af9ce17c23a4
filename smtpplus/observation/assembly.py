"""Those who watch, put together: who hears which events, and in which order they begin and end.

They are begun after the database and ended before it, and after everything that states events. What none of them is asked for costs
nothing: without `[queue] history` no row of history is written, and without `[http] listen` nothing is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from twisted.internet.defer import inlineCallbacks

from smtpplus.config import Configuration
from smtpplus.events import Events, WouldRefuse
from smtpplus.observation.alerts import Alerts
from smtpplus.observation.desk import Terms
from smtpplus.observation.folded import Folded
from smtpplus.observation.history import History
from smtpplus.observation.metrics import Depth, Measures
from smtpplus.observation.watchdog import Watchdog, chains
from smtpplus.observation.webhook import Webhook
from smtpplus.observation.would_block import WouldBlock
from smtpplus.storage.database import Database

Post = Callable[[Connection, bytes, Sequence[str]], object]


class Observation:
    """All that watches, but for the mail log, which needs no database. `post` puts a message of ours into the queue,
    `depth` tells what is in it.

    `new_id` makes ids like those of messages, for what has none of its own.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        database: Database,
        events: Events,
        reactor: Any,
        now: Callable[[], float],
        post: Post,
        depth: Callable[[Connection], Depth],
        new_id: Callable[[], int],
        certificate: Path | None,
    ) -> None:
        self._would_block = WouldBlock(database, reactor)
        events.subscribe(self._would_block, WouldRefuse)
        folded = Folded()
        events.subscribe(folded, *Folded.kinds)
        self.measures = Measures(database, reactor, depth=depth, now=now, folded=folded)
        if configuration.http.listen is not None:  # else nobody can ask
            events.subscribe(self.measures, *Measures.kinds)
        self._history = History(database, reactor, kept=configuration.queue.history, now=now, new_id=new_id, folded=folded)
        if configuration.queue.history:  # else it forgets what there was, and learns nothing
            events.subscribe(self._history, *History.kinds)
        self._webhook = _webhook(configuration, database, reactor, now)
        terms = alert_terms(configuration, post=post, now=now)
        told = self._webhook.look if self._webhook is not None else None
        self._alerts = Alerts(database, reactor, terms=terms, events=events, now=now, folded=folded, told=told)
        events.subscribe(self._alerts, *Alerts.kinds)
        directory, more = configuration.state_directory, configuration.tls.directory

        def certificates() -> list[Path]:
            return [*([certificate] if certificate is not None else []), *(chains(directory / more) if more else [])]

        self.watchdog = Watchdog(database, reactor, events=events, now=now, directory=directory, certificates=certificates)

    def start(self) -> None:
        """Begin; the database is open."""
        self.measures.start()
        self._history.start()
        self._alerts.start()
        if self._webhook is not None:
            self._webhook.start()
        self.watchdog.start()

    @inlineCallbacks
    def close(self) -> Any:
        """Write what is left; fires when it is in the database, or cannot be."""
        self.watchdog.stop()
        self.measures.stop()
        yield self._alerts.close()
        if self._webhook is not None:
            self._webhook.close()
        yield self._would_block.close()
        yield self._history.close()


def alert_terms(configuration: Configuration, *, post: Post, now: Callable[[], float]) -> Terms:
    """The alert centre's terms as the configuration sets them."""
    alerts = configuration.alerts
    numbers = itertools.count(1)

    def new_name() -> str:
        return f"{int(now() * 1000):x}.{next(numbers)}"

    return Terms(configuration.hostname, alerts.from_, alerts.to, alerts.digest, post, new_name, bool(alerts.webhook))


def _webhook(configuration: Configuration, database: Database, reactor: Any, now: Callable[[], float]) -> Webhook | None:
    alerts = configuration.alerts
    if not alerts.webhook:
        return None
    return Webhook(alerts.webhook, Path(alerts.webhook_secret_file).read_bytes().strip(), reactor, database=database, now=now)
