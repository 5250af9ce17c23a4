"""What may be set for the whole server, for a list, and for a user, and what is in force for a user in the end (A20, A32).

A `Settings` says what one of the three sets; None means that it says nothing. `effective` merges them: the user's word counts, else
that of the user's list, else the server's. It is pure, so that the session, `check` and `user show` cannot differ. In the
database a `Settings` is JSON without what is None. How people write a setting is the business of `forms`.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from smtpplus.config import Configuration

Mode = Literal["block", "alert"]
Origin = Literal["server", "list", "user"]
Level = Annotated[int, Meta(ge=1, le=5)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
LARGEST = 999_999_999_999_999  # octets of a message
Octets = Annotated[int, Meta(ge=1, le=LARGEST)]


class Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one of server, list and user sets; None: nothing said here. A count of 0 is no limit.

    One that a newer release has written, and we do not know, is passed over when it is read.
    """

    unauthorized: Mode | None = None  # what happens to mail of a sender that is not authorized (A19, A20)
    require_verified: bool | None = None  # A9
    priority: Level | None = None  # of a message that says none itself, and the least it gets (A23, A24)
    ceiling: Level | None = None  # the highest level a message may have
    budget: Count | None = None  # messages an hour at levels 1 and 2 (D2)
    rate: Count | None = None  # recipients a minute (C7)
    quota: Count | None = None  # recipients a day (C7)
    per_user: str | None = None  # what one user may send besides, as config.values.rates reads it; "": no more limits (C7)
    per_list: str | None = None  # what all users of the list may send together, in the same way; of no use to a single user
    message_size: Octets | None = None
    alerts: tuple[str, ...] | None = None  # addresses that get alerts (B6)


UNSET = Settings()  # says nothing


class Effective(msgspec.Struct, frozen=True):
    """What is in force, and for each value who said so."""

    unauthorized: Mode
    require_verified: bool
    priority: int
    ceiling: int
    budget: int
    rate: int
    quota: int
    per_user: str
    per_list: str
    message_size: int
    alerts: tuple[str, ...]
    origins: dict[str, Origin]


NAMES = Settings.__struct_fields__
USER_NAMES = tuple(name for name in NAMES if name != "per_list")  # what may be set for a single user


def server_settings(configuration: Configuration) -> Settings:
    """What the configuration sets: every value."""
    return Settings(
        unauthorized=configuration.senders.unauthorized,
        require_verified=configuration.senders.require_verified,
        priority=configuration.priority.default,
        ceiling=configuration.priority.ceiling,
        budget=configuration.priority.budget,
        rate=configuration.limits.rate,
        quota=configuration.limits.quota,
        per_user=configuration.limits.per_user,
        per_list=configuration.limits.per_list,
        message_size=configuration.limits.message_size,
        alerts=configuration.alerts.to,
    )


SERVER = server_settings(Configuration(hostname="localhost"))  # the defaults


@functools.lru_cache(maxsize=4096)
def effective(server: Settings, list_: Settings, user: Settings) -> Effective:
    """What is in force for a user with these `Settings`, in a list with those. `server` must set every value."""
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    sources: tuple[tuple[Origin, Settings], ...] = (("user", user), ("list", list_), ("server", server))
    for name in NAMES:
        for origin, settings in sources:
            value = getattr(settings, name)
            if value is not None:
                values[name], origins[name] = value, origin
                break
    return Effective(**values, origins=origins)


@functools.lru_cache(maxsize=4096)
def decode(text: str) -> Settings:
    """Settings from the database; equal ones are one object. A value that is unknown here says nothing."""
    try:
        return msgspec.json.decode(text, type=Settings)
    except msgspec.ValidationError:
        return msgspec.convert({name: value for name, value in msgspec.json.decode(text).items() if _known(name, value)}, Settings)


def _known(name: str, value: Any) -> bool:
    try:
        msgspec.convert({name: value}, Settings)
    except msgspec.ValidationError:
        return False
    return True


def encode(settings: Settings) -> str:
    """Settings for the database."""
    return msgspec.json.encode(settings).decode()
