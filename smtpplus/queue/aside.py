"""What rules keep out of memory: the ids of messages, by the rule that holds them.

A rule on a destination closes it, one on a user shuts the user's lines, one on a level skips its windows: these hold however many
messages without looking at one. Only what no such thing stands for is set aside message by message: single messages, lists, domains of
senders, and domains that share a smarthost with others. A message that meets two rules is looked at again when the first is lifted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import compress

from smtpplus.queue.entry import Entry
from smtpplus.queue.rows import domain_of
from smtpplus.queue.rules import Facts, Kind, Rule, Rules

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
        self._ids: dict[int, array[int]] = {}
        self._domains: dict[str, Rule] = {}
        self.rules = Rules()
        self.closed: frozenset[str] = frozenset()  # destinations where nothing starts
        self.levels: frozenset[int] = frozenset()  # levels that are skipped
        self.users: frozenset[str] = frozenset()  # users of whom nothing is taken
        self.everything = False
        self.count = 0

    def obey(self, rules: Rules) -> list[array[int]]:
        """From now on these rules are in force. Returns the ids of which the rule is gone."""
        self.rules = rules
        named = rules.of("destination")
        self.closed = frozenset(value for value in named if ":" in value or self._destination(value) == value)
        self._domains = {value: rule for value, rule in named.items() if value not in self.closed}
        self.levels = frozenset(map(int, rules.of("level")))
        self.users = frozenset(rules.of("user"))
        self.everything = bool(rules.of("everything"))
        released = [self._ids.pop(number) for number in list(self._ids) if number not in rules.by_id]
        self.count -= sum(map(len, released))
        return released

    def keep(self, rule: Rule, number: int) -> None:
        """`rule` holds message `number`."""
        self._ids.setdefault(rule.id, array("q")).append(number)
        self.count += 1

    def sift(self, entry: Entry) -> Entry | None:
        """What of `entry` may be lined up; the rest is kept aside."""
        rule = self.rules.find(facts_of(entry), ONE_BY_ONE)
        if rule is not None:
            self.keep(rule, entry.message.envelope.id)
            return None
        if not self._domains:
            return entry
        held = [self._domains.get(domain_of(recipient.address)) for recipient in entry.recipients]
        found = {rule.id: rule for rule in held if rule is not None}
        if not found:
            return entry
        for rule in found.values():
            self.keep(rule, entry.message.envelope.id)
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
