"""The header field X-SMTPAPI: what a message asks of the relay itself, as JSON; it is removed before delivery (A30).

    X-SMTPAPI: {"Schedule": "2026-12-24T08:00:00+01:00", "Priority": 2, "CampaignCode": "spring"}

Encoded words of RFC 2047, which raw UTF-8 has become when this is read, are read as what they stand for. All members are optional and
named without regard to case; others are somebody else's and ignored. `Schedule` is a time with its zone, as ISO 8601 writes it
(without a zone: UTC), or seconds since the epoch; one that is over means at once. A `Priority` that is no level says nothing, as
everywhere. What cannot be read is refused with its place: a message that was to wait must not go now.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from smtpplus.mail import reasons
from smtpplus.mail.header import decoded
from smtpplus.mail.reasons import Refusal

FIELD = "x-smtpapi"
CAMPAIGN_LIMIT = 100  # characters


class Wishes(msgspec.Struct, frozen=True):
    """What a message asks for."""

    level: int | None = None
    release_at: float = 0.0  # seconds since the epoch; 0: at once
    campaign: str = ""


NOTHING = Wishes()


def read(values: Sequence[str], *, now: float, longest: float) -> Wishes:
    """The wishes of the fields `values`, unfolded. Refusal if there are several, or what is asked for cannot be read, or lies more than
    `longest` seconds ahead."""
    if not values:
        return NOTHING
    if len(values) > 1:
        raise _refusal("the field stands there more than once")
    try:
        said = _json(values[0])
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        raise _refusal(f"it is not JSON{where}") from None
    if not isinstance(said, dict):
        raise _refusal("it is not a JSON object")
    members = {str(name).lower(): value for name, value in said.items()}
    release_at = _moment(members.get("schedule"))
    if release_at > now + longest:
        raise _refusal(f"Schedule lies more than {longest:.0f} seconds ahead")
    return Wishes(_level(members.get("priority")), release_at if release_at > now else 0.0, _campaign(members.get("campaigncode")))


def _json(text: str) -> Any:
    """What `text` stands for; its encoded words are decoded only if it cannot be read with them."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if "=?" not in text:
            raise
        return json.loads(decoded(text))


def _moment(value: Any) -> float:
    if value is None or value == "":
        return 0.0
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e11:
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise _refusal('Schedule is no time such as "2026-12-24T08:00:00+01:00"')


def _level(value: Any) -> int | None:
    """A level as a number or its digit; nonsense has no opinion."""
    if isinstance(value, str) and value.strip() in {"1", "2", "3", "4", "5"}:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 5 else None


def _campaign(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > CAMPAIGN_LIMIT or not value.isprintable():
        raise _refusal(f"CampaignCode is no text of up to {CAMPAIGN_LIMIT} printable characters")
    return value.strip()


def _refusal(cause: str) -> Refusal:
    return reasons.BAD_SMTPAPI.refusal(cause=cause)
