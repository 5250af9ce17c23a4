"""Letting the reactor of the tests turn until something is so: as long as that takes, within a bound that only a fault exceeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.tcp import Connection

reactor: Any = _reactor
PATIENCE = 30.0  # seconds


@inlineCallbacks
def until(condition: Callable[[], object], seconds: float = PATIENCE) -> Any:
    """Fires as soon as `condition()` is true; fails if it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it never came true: {condition.__doc__ or condition}"
        yield deferLater(reactor, 0.01, lambda: None)


def no_connection() -> bool:
    """No TCP connection is left with the reactor."""
    return not any(isinstance(each, Connection) for each in (*reactor.getReaders(), *reactor.getWriters()))
