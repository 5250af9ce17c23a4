"""What rules keep out of memory: the ids of messages, by the rule that holds them.

A rule on a destination closes it, one on a user shuts the user's lines, one on a level skips its windows: these hold however many
messages without looking at one. Only what no such thing stands for is set aside message by message: single messages, lists, domains of
senders, and domains that share a smarthost with others. A message that meets two rules is looked at again when the first is lifted.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress

from smtpplus.queue.entry import Entry
from smtpplus.queue.parking import Line
from smtpplus.queue.rows import domain_of
from smtpplus.queue.rules import Facts, Kind, Rule, Rules

Place = tuple[str, int, str]  # where an id waits when it is not held: destination, level and user
ONE_BY_ONE: tuple[Kind, ...] = ("message", "list", "sender-domain")


def facts_of(entry: Entry) -> Facts:
    """What rules ask about an entry."""
    envelope = entry.message.envelope
    domains = {domain_of(recipient.address): None for recipient in entry.recipients}
    return Facts(envelope.id, entry.user, envelope.list, domain_of(envelope.sender), entry.level, entry.destination, tuple(domains))


class Aside:
    """The rules as the queue applies them, and the ids that they hold."""

    def __init__(self, destination: Callable[[str], str]) -> None:
        self._destination = destination
        self._lines: dict[int, dict[Place, Line]] = {}  # by rule
        self._domains: dict[str, Rule] = {}
        self.rules = Rules()
        self.closed: frozenset[str] = frozenset()  # destinations where nothing starts
        self.levels: frozenset[int] = frozenset()  # levels that are skipped
        self.users: frozenset[str] = frozenset()  # users of whom nothing is taken
        self.everything = False
        self.count = 0

    def obey(self, rules: Rules) -> list[tuple[Place, Line]]:
        """From now on these rules are in force. Returns the ids of which the rule is gone, by where they are to wait."""
        self.rules = rules
        named = rules.of("destination")
        self.closed = frozenset(value for value in named if ":" in value or self._destination(value) == value)
        self._domains = {value: rule for value, rule in named.items() if value not in self.closed}
        self.levels = frozenset(map(int, rules.of("level")))
        self.users = frozenset(rules.of("user"))
        self.everything = bool(rules.of("everything"))
        lifted = [number for number in self._lines if number not in rules.by_id]
        released = [each for number in lifted for each in self._lines.pop(number).items()]
        self.count -= sum(len(line) for _, line in released)
        return released

    def keep(self, rule: Rule, place: Place, number: int) -> None:
        """`rule` holds message `number`, which otherwise would wait at `place`."""
        lines = self._lines.setdefault(rule.id, {})
        line = lines.get(place)
        if line is None:
            line = lines[place] = Line()
        self.count += line.add(number)

    def sift(self, entry: Entry) -> Entry | None:
        """What of `entry` may be lined up; the rest is kept aside."""
        place, number = (entry.destination, entry.level, entry.user), entry.message.envelope.id
        rule = self.rules.find(facts_of(entry), ONE_BY_ONE)
        if rule is not None:
            self.keep(rule, place, number)
            return None
        if not self._domains:
            return entry
        held = [self._domains.get(domain_of(recipient.address)) for recipient in entry.recipients]
        found = {rule.id: rule for rule in held if rule is not None}
        if not found:
            return entry
        for rule in found.values():
            self.keep(rule, place, number)
        free = [rule is None for rule in held]
        if not any(free):
            return None
        return Entry(
            entry.message,
            entry.destination,
            tuple(compress(entry.recipients, free)),
            tuple(compress(entry.numbers, free)),
            alone=False,
            attempts=entry.attempts,
            due=entry.due,
            warned=entry.warned,
        )

    def holds(self, facts: Facts) -> Rule | None:
        """The rule that keeps these recipients, all of one domain, aside; for what is known before it is read."""
        rule = self.rules.find(facts, ONE_BY_ONE)
        return rule or next((self._domains[domain] for domain in facts.domains if domain in self._domains), None)
