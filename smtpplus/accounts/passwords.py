"""Passwords: made by the system, kept as argon2id, compared in the same time whether the user exists or not.

Nothing here keeps a password. `verify` against `DUMMY` is for users that do not exist: it costs what a real comparison costs, so
that an answer's time tells nothing (B1).
"""

from __future__ import annotations

import os
from typing import Callable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # 32 characters: no i, l, o, u to misread
LENGTH = 26  # characters of 5 bits each: 130 bits
# OWASP Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane. About 30 ms, and memory stays small with several at a time.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
DUMMY = "$argon2id$v=19$m=19456,t=2,p=1$FwPg3Oe6xzcHDhAW2ezBdQ$5kYKvx4k++GetllGnATQWw4KSeSYwOJu4C0DcKUt7Mk"


def generate(random: Callable[[int], bytes] = os.urandom) -> str:
    """A new password of 130 bits, letters and digits that are hard to misread. `random(n)` gives n octets."""
    number = int.from_bytes(random(17), "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 5 * LENGTH, 5))


def hash_password(password: str | bytes) -> str:
    """The argon2id PHC string to keep; salted, so never the same twice. Takes about 30 ms: not on the reactor's thread."""
    return _HASHER.hash(password)


def verify(hashed: str, password: str | bytes) -> bool:
    """Whether `password` is the one; False too for a damaged hash. Takes about 30 ms: not on the reactor's thread."""
    try:
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError, UnicodeError):
        return False
