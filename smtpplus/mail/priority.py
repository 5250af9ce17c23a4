"""Priority levels 1 (very high) to 5 (very low): read from header fields, combined with the user's, written for display.

Reading has no errors: a value that makes no sense, or a field that occurs twice, says nothing and the next field is asked. The scales
of three words reach only 2 and 4, so that no mail client reaches level 1 by accident.
"""

from __future__ import annotations

import re
from typing import Mapping, Sequence

HIGHEST, NORMAL, LOWEST = 1, 3, 5

PRIORITY_FIELDS = frozenset(("x-priority", "importance", "priority", "x-msmail-priority"))

_X_PRIORITY = re.compile(r"\s*([1-5])\s*(?:\(.*\)\s*)?").fullmatch  # "1", "1 (Highest)"
_WORDS: tuple[tuple[str, Mapping[str, int]], ...] = (
    ("importance", {"high": 2, "normal": 3, "low": 4}),  # RFC 2156 §5.3.4
    ("priority", {"urgent": 2, "normal": 3, "non-urgent": 4}),  # RFC 2156 §5.3.6
    ("x-msmail-priority", {"high": 2, "normal": 3, "low": 4}),
)
_DISPLAY = {
    1: [("X-Priority", "1"), ("Importance", "high"), ("Priority", "urgent"), ("X-MSMail-Priority", "High")],
    2: [("X-Priority", "2"), ("Importance", "high"), ("Priority", "urgent"), ("X-MSMail-Priority", "High")],
    4: [("X-Priority", "4"), ("Importance", "low"), ("Priority", "non-urgent"), ("X-MSMail-Priority", "Low")],
    5: [("X-Priority", "5"), ("Importance", "low"), ("Priority", "non-urgent"), ("X-MSMail-Priority", "Low")],
}
_MT_PRIORITY = {1: 6, 2: 4, 3: 0, 4: -4, 5: -6}


def message_level(values: Mapping[str, Sequence[str]]) -> int | None:
    """The level a message asks for by its fields (A21), or None. `values`: all values of each field by its lower-case name."""
    said = values.get("x-priority", ())
    if len(said) == 1:
        found = _X_PRIORITY(said[0])
        if found:
            return int(found[1])
    for name, words in _WORDS:
        said = values.get(name, ())
        if len(said) == 1:
            level = words.get(said[0].strip().lower())
            if level is not None:
                return level
    return None


def mt_level(priority: int) -> int:
    """The level of an MT-PRIORITY parameter, -9..9 (RFC 6710 §3). ValueError outside."""
    if not -9 <= priority <= 9:
        raise ValueError(f"MT-PRIORITY {priority} is not between -9 and 9")
    if priority == 0:
        return NORMAL
    if priority > 0:
        return 1 if priority > 5 else 2
    return 5 if priority < -5 else 4


def mt_priority(level: int) -> int:
    """The MT-PRIORITY parameter to send for a level."""
    return _MT_PRIORITY[level]


def effective(user: int, message: int | None, ceiling: int = HIGHEST) -> int:
    """The higher of the user's and the message's priority, which is the smaller number (A23, A24), but not above `ceiling` (D2)."""
    return max(user if message is None or user < message else message, ceiling)


def display_fields(level: int) -> list[tuple[str, str]]:
    """The header fields that show a level in the recipient's client (A28): one set, or none for 3. They replace PRIORITY_FIELDS."""
    return list(_DISPLAY.get(level, ()))
