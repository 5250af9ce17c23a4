"""A user as the rest of the program sees one: a frozen snapshot of the account and its senders.

What authorization asks for each message is worked out once, when the snapshot is made: sets of what is named, and of what of
it is verified. A snapshot never changes; whoever keeps one asks the directory for the current one.
"""

from __future__ import annotations

from typing import Iterable, Literal

import msgspec

from smtpplus.accounts.settings import UNSET, Settings

Kind = Literal["address", "domain", "subtree"]


class Secret(str):
    """Text that must not be seen in logs and tracebacks: it has no repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"


class Sender(msgspec.Struct, frozen=True):
    """One entry of a user's authorized domains or senders.

    `value` is normalized: Mailbox.key for an address, a domain by normalize_domain; that of a subtree has no leading dot.
    """

    kind: Kind
    value: str
    verified: bool = False
    provenance: str = ""  # what verified it: token | dns | vouched | grandfathered
    verified_at: float | None = None  # seconds since the epoch
    created_at: float = 0.0
    verified_by: str = ""  # who did it: "root at the command line", "web 192.0.2.1"

    def __str__(self) -> str:
        """The entry as people write it: "x@a.com", "a.com", ".a.com"."""
        return f".{self.value}" if self.kind == "subtree" else self.value


class Scope(msgspec.Struct, frozen=True):
    """Senders, ready to be looked up."""

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    subtrees: frozenset[str] = frozenset()

    @classmethod
    def of(cls, senders: Iterable[Sender]) -> Scope:
        sets: dict[str, set[str]] = {"address": set(), "domain": set(), "subtree": set()}
        for sender in senders:
            sets[sender.kind].add(sender.value)
        return cls(*(frozenset(sets[kind]) for kind in ("address", "domain", "subtree")))

    def covers(self, key: str, domain: str) -> bool:
        """Whether the address with this key, at this normalized domain, is among them (A15, A16): a domain covers exactly itself."""
        if domain in self.domains or key in self.addresses:
            return True
        if self.subtrees:
            while domain:
                if domain in self.subtrees:
                    return True
                domain = domain.partition(".")[2]
        return False


class User(msgspec.Struct, frozen=True):
    """An account. Times are seconds since the epoch.

    `allow_any`: the operator agreed that a user without any senders may use all (A18); it says nothing while there are some.
    """

    name: str  # lower case
    password: Secret  # argon2id, PHC string
    list: str = "default"
    active: bool = True
    note: str = ""  # never on the wire (A8)
    allow_any: bool = False
    senders: tuple[Sender, ...] = ()
    created_at: float = 0.0
    changed_at: float = 0.0  # later with every change of the account or its senders
    id: int = 0
    scram: Secret | None = None  # SCRAM-SHA-256 verifier, RFC 5803; None: no SCRAM until the password is set anew
    settings: Settings = UNSET  # what is set for the user, and
    list_settings: Settings = UNSET  # for the list; see settings.effective
    named: Scope = Scope()  # this and `verified` follow from `senders`
    verified: Scope = Scope()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "named", Scope.of(self.senders))
        msgspec.structs.force_setattr(self, "verified", Scope.of(sender for sender in self.senders if sender.verified))

    def __repr__(self) -> str:
        return f"<User {self.name}>"
