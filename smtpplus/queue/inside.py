"""The entries in memory: ready, being recorded, running, or being settled; by user, as users are shut and opened.

An entry's key is its message and destination. What is read again while an entry of its key is inside is *missed*: whoever takes that entry
out is told, and reads the message anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from smtpplus.queue.entry import Entry

Key = tuple[int, str]  # message id and destination


class Inside:
    """Entries by user and key. Those that wait for a slot have a place; the others are under way."""

    def __init__(self) -> None:
        self._users: dict[str, dict[Key, Entry]] = {}
        self._missed: set[Key] = set()

    def add(self, entry: Entry) -> None:
        """`entry` came into memory; none of its key is there."""
        own = self._users.get(entry.user)
        if own is None:
            own = self._users[entry.user] = {}
        own[entry.key] = entry

    def remove(self, entry: Entry) -> bool:
        """`entry` has left memory. True if its message was missed in the meantime."""
        key = entry.key
        own = self._users[entry.user]
        del own[key]
        if not own:
            del self._users[entry.user]
        if self._missed and key in self._missed:
            self._missed.remove(key)
            return True
        return False

    def misses(self, entry: Entry) -> bool:
        """Whether one with the key of `entry` is inside; it is noted, if so, that `entry` was not let in."""
        if entry.key in self._users.get(entry.user, ()):
            self._missed.add(entry.key)
            return True
        return False

    def waiting(self, users: Iterable[str] | None = None) -> list[Entry]:
        """The entries, of these users or of all, that wait for a slot, in the order in which they came."""
        owned = self._users.values() if users is None else [self._users[user] for user in users if user in self._users]
        return sorted((entry for own in owned for entry in own.values() if entry.place), key=lambda entry: entry.place)

    def members(self, list_: str) -> set[str]:
        """The users who are in that list as far as can be told from one entry of each."""
        return {user for user, own in self._users.items() if user and next(iter(own.values())).message.envelope.list == list_}

    def of(self, numbers: Collection[int]) -> list[Entry]:
        """The entries of these messages. One look at all that is inside."""
        return [entry for own in self._users.values() for entry in own.values() if entry.message.envelope.id in numbers]
