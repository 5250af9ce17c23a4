"""Failed logins of the last hour, by client address and user: what makes guessing slow.

Beyond `[limits] auth_failures_per_address`, each further login of that address for that user must wait for its turn, and the turns lie
further and further apart: 1 s, 2 s, 4 s, at most 32 s. It waits before the password is looked at, right or wrong, so that many connections
get no further than one. Waiting costs a timer. Whoever would wait too long is refused. Not more than `KEPT` pairs are remembered; the
one that was used longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict

WINDOW = 3600.0  # seconds for which a failure counts
LONGEST_STEP = 32.0  # seconds between two turns
LONGEST_WAIT = 60.0  # seconds for a turn; clients give up on a reply after minutes, RFC 5321 §4.5.3.2
KEPT = 20_000  # pairs, about 200 octets each
_NAME = 64  # characters of a user name that tell it from others


class _Pair:
    """What is known of one address and user. `since` begins the window, `turn` is the time of the next turn: seconds since the epoch."""

    __slots__ = ("failures", "since", "turn")

    def __init__(self, now: float) -> None:
        self.failures = 0
        self.since = now
        self.turn = 0.0


class Attempts:
    """See the module. `limit` is auth_failures_per_address, 0 for none."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pairs: OrderedDict[tuple[str, str], _Pair] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pairs)

    def wait(self, address: str, user: str, now: float) -> float | None:
        """Seconds until a login may be looked at, mostly 0; None if that is too long. It takes its turn."""
        pair = self._pair(address, user, now)
        if not self.limit or pair is None or pair.failures < self.limit:
            return 0.0
        wait = max(pair.turn - now, 0.0)
        if wait > LONGEST_WAIT:
            return None
        pair.turn = now + wait + min(2.0 ** (pair.failures - self.limit), LONGEST_STEP)
        return wait

    def failed(self, address: str, user: str, now: float) -> None:
        """A login failed."""
        if not self.limit:
            return
        pair = self._pair(address, user, now)
        if pair is None:
            pair = self._pairs[address, user[:_NAME]] = _Pair(now)
            if len(self._pairs) > KEPT:
                self._pairs.popitem(last=False)
        pair.failures = min(pair.failures + 1, self.limit + 100)

    def _pair(self, address: str, user: str, now: float) -> _Pair | None:
        """What is known of them, unless it is over."""
        key = (address, user[:_NAME])
        pair = self._pairs.get(key)
        if pair is None:
            return None
        if now - pair.since > WINDOW:
            del self._pairs[key]
            return None
        self._pairs.move_to_end(key)
        return pair
