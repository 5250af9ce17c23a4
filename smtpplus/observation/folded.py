"""What was refused when a session only says how often: the last refusal that it stated one by one.

A session that is refused again and again states the first refusals, then their number alone (events.RefusedMore). Under a storm they
are equal, so they are counted with the last one that was stated; their sum is exact in any case. What is known of a session is
forgotten with its end, and at most SESSIONS are known: beyond that the oldest is forgotten, and its rest is counted under no reason.
"""

from __future__ import annotations

from typing import Any

from smtpplus.events import Disconnected, Event, Refused, RefusedMore

SESSIONS = 10_000


class Folded:
    """Subscribe it to `Folded.kinds` before those who ask it."""

    kinds: tuple[type[Event], ...] = (Refused, Disconnected)

    def __init__(self) -> None:
        self._last: dict[str, Refused] = {}

    def __call__(self, event: Any) -> None:
        """Take one event."""
        if event.__class__ is Refused:
            self._last[event.session] = event
            if len(self._last) > SESSIONS:
                del self._last[next(iter(self._last))]
        elif self._last:
            self._last.pop(event.session, None)

    def like(self, event: RefusedMore) -> Refused:
        """The refusal that those counted by `event` are like, with its reference; without reason if it is forgotten."""
        last = self._last.get(event.session)
        return last if last is not None else Refused(event.at, event.session, event.client, event.user, "", "", "", "")
