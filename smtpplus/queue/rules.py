"""Holds and pauses as rules: what each selects, which of them a message meets, and how long it was held (A31, D7). Pure.

A rule selects by one thing: a message, a user, a list, the domain of the sender, a destination, a level, or everything. It is in force from
its making until it is lifted or expires. Finding the rule that a message meets costs one look-up for each kind there is a rule of,
however many rules there are. Rules that ended are kept as long as messages live, because the time that a message was held does not
count toward its expiry unless the rule says so: that time is computed when it is asked for, and no row is touched by lifting a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from smtpplus.mail.address import AddressError, normalize_domain
from smtpplus.mail.envelope import parse_queue_id, queue_id

Kind = Literal["message", "user", "list", "sender-domain", "destination", "level", "everything"]
KINDS: tuple[Kind, ...] = ("everything", "level", "destination", "user", "list", "sender-domain", "message")
Running = Literal["stop", "finish"]


class Rule(msgspec.Struct, frozen=True):
    """One rule. Times are seconds since the epoch."""

    id: int
    kind: Kind
    value: str  # a queue ID, name, domain (or `via` of a route), or level; "" for everything
    running: Running = "finish"  # what happens to transfers under way: they stop as if urgent mail came, or they finish
    reason: str = ""
    who: str = ""
    created_at: float = 0.0
    expires_at: float = 0.0  # 0: never
    keep_expiry: bool = False  # time on hold counts toward the lifetime of a message
    lifted_at: float = 0.0  # 0: it was not lifted

    @property
    def name(self) -> str:
        """How events and people call it."""
        return f"rule {self.id} ({self.reason})" if self.reason else f"rule {self.id}"

    @property
    def ends_at(self) -> float | None:
        """When it ended or will end by itself."""
        ends = [at for at in (self.lifted_at, self.expires_at) if at]
        return min(ends) if ends else None

    def in_force(self, now: float) -> bool:
        """Whether it holds at `now`. What was lifted does not, also when the clock is set back to before that."""
        return not self.lifted_at and (not self.expires_at or now < self.expires_at)


class Facts(msgspec.Struct, frozen=True):
    """What rules ask about some recipients of one message."""

    number: int  # of the envelope
    user: str
    list: str
    sender_domain: str
    level: int
    destination: str  # what the router makes of the domain
    domains: tuple[str, ...]  # of the recipients, normalized


class Rules:
    """All rules, those of the past included, as they stand at `now`. Truth is whether any is in force."""

    __slots__ = ("_force", "_kinds", "_past", "_spells", "by_id", "next_end")

    def __init__(self, rules: Iterable[Rule] = (), now: float = 0.0) -> None:
        self.by_id: dict[int, Rule] = {}  # in force
        self.next_end: float | None = None  # when the next one expires
        self._force: dict[tuple[str, str], Rule] = {}
        self._spells: dict[tuple[str, str], list[Rule]] = {}
        for rule in sorted(rules, key=lambda rule: rule.id):
            key = (rule.kind, rule.value)
            if not rule.keep_expiry:
                self._spells.setdefault(key, []).append(rule)
            if not rule.in_force(now):
                continue
            self.by_id[rule.id] = rule
            if rule.expires_at:
                self.next_end = min(rule.expires_at, self.next_end or rule.expires_at)
            old = self._force.get(key)
            if old is None or (old.running == "finish" and rule.running == "stop"):  # of equal ones the strictest counts
                self._force[key] = rule
        self._kinds = frozenset(kind for kind, _ in self._force)
        self._past = frozenset(kind for kind, _ in self._spells)

    def __bool__(self) -> bool:
        return bool(self.by_id)

    def of(self, kind: Kind) -> dict[str, Rule]:
        """The rules of one kind that are in force, by their value."""
        return {value: rule for (each, value), rule in self._force.items() if each == kind} if kind in self._kinds else {}

    def find(self, facts: Facts, kinds: Sequence[Kind] = KINDS) -> Rule | None:
        """The first rule in force, in the order of `kinds`, that these recipients meet."""
        for key in _keys(facts, [kind for kind in kinds if kind in self._kinds]):
            rule = self._force.get(key)
            if rule is not None:
                return rule
        return None

    def all(self, facts: Facts) -> list[Rule]:
        """Every rule in force that these recipients meet, in the order of KINDS: for people, as it looks at each rule."""
        keys = {key: place for place, key in enumerate(_keys(facts, [kind for kind in KINDS if kind in self._kinds]))}
        found = [rule for rule in self.by_id.values() if (rule.kind, rule.value) in keys]
        return sorted(found, key=lambda rule: keys[rule.kind, rule.value])

    def stops(self, facts: Facts) -> Rule | None:
        """The first rule that stops a running transfer to these recipients."""
        for key in _keys(facts, [kind for kind in KINDS if kind in self._kinds]):
            rule = self._force.get(key)
            if rule is not None and rule.running == "stop":
                return rule
        return None

    @property
    def ever(self) -> bool:
        """Whether a rule, of the past perhaps, makes messages live longer."""
        return bool(self._past)

    def held(self, facts: Facts, since: float, now: float) -> float:
        """For how many seconds between the two a rule held these recipients; overlapping rules count once."""
        spells: list[tuple[float, float]] = []
        for key in _keys(facts, [kind for kind in KINDS if kind in self._past]):
            for rule in self._spells.get(key, ()):
                begun, ended = max(since, rule.created_at), min(now, rule.ends_at or now)
                if begun < ended:
                    spells.append((begun, ended))
        total, until = 0.0, since
        for begun, ended in sorted(spells):
            total += max(0.0, ended - max(begun, until))
            until = max(until, ended)
        return total


def _keys(facts: Facts, kinds: Sequence[Kind]) -> list[tuple[str, str]]:
    keys: list[tuple[str, str]] = []
    for kind in kinds:
        keys += [(kind, value) for value in _VALUES[kind](facts)]
    return keys


_VALUES: dict[Kind, Callable[[Facts], tuple[str, ...]]] = {
    "everything": lambda facts: ("",),
    "level": lambda facts: (str(facts.level),),
    "destination": lambda facts: (facts.destination, *facts.domains),
    "user": lambda facts: (facts.user,),
    "list": lambda facts: (facts.list,),
    "sender-domain": lambda facts: (facts.sender_domain,),
    "message": lambda facts: (queue_id(facts.number),),
}


def normalized(kind: Kind, value: str) -> str:
    """The value of a selector as rules compare it. ValueError, a sentence for people, if it cannot be one."""
    text = value.strip()
    if kind == "message":
        return queue_id(parse_queue_id(text))
    if kind == "level":
        if text not in {"1", "2", "3", "4", "5"}:
            raise ValueError(f"{text!r} is not a level: levels are 1 to 5")
        return text
    if kind == "sender-domain" or (kind == "destination" and ":" not in text):
        try:
            return normalize_domain(text)
        except AddressError as error:
            raise ValueError(str(error)) from None
    return text if kind == "destination" else text.lower()
