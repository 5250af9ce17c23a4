"""Passwords: made by the system, kept as argon2id and as SCRAM verifier, compared in the same time whether the user exists or not.

Nothing here keeps a password. `verify` against `DUMMY` is for users that do not exist: it costs what a real comparison costs, so
that an answer's time tells nothing (B1).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import stringprep
import unicodedata
from typing import Callable

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # 32 characters: no i, l, o, u to misread
LENGTH = 26  # characters of 5 bits each: 130 bits
# OWASP Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane. About 30 ms, and memory stays small with several at a time.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
DUMMY = "$argon2id$v=19$m=19456,t=2,p=1$FwPg3Oe6xzcHDhAW2ezBdQ$5kYKvx4k++GetllGnATQWw4KSeSYwOJu4C0DcKUt7Mk"
SCRAM_ITERATIONS = 16_384  # at least 4096 by RFC 7677 §4; more costs the client at each login, and a generated password needs no more
_RFC_5803 = re.compile(r"SCRAM-SHA-256\$([0-9]{1,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)", re.ASCII)
_PHC = re.compile(r"\$argon2(?:id|i|d)\$v=19\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,9})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,128}", re.ASCII)
_COSTLY = (1_048_576, 64, 64)  # KiB, passes, lanes: more would let one login stop the server
_PROHIBITED = (  # RFC 4013 §2.3, and what Unicode 3.2 did not assign (§2.5)
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


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


def accepted(hashed: str) -> str:
    """A hash that was made elsewhere, if `verify` can judge by it and one login does not cost too much; ValueError."""
    found = _PHC.fullmatch(hashed)
    if found is None:
        raise ValueError("the password is no argon2 hash ($argon2id$v=19$…); leave it out, and one is made and shown")
    if any(int(cost) > most for cost, most in zip(found.groups(), _COSTLY, strict=True)):
        raise ValueError("the password's hash costs too much memory or time; leave it out, and one is made and shown")
    return hashed


class Scram(msgspec.Struct, frozen=True):
    """A SCRAM-SHA-256 verifier (RFC 5802 §3, RFC 7677): enough to check a login, not to log in elsewhere."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return "Scram(…)"

    def __str__(self) -> str:
        """As RFC 5803 §2 writes it: what `User.scram` holds."""
        salt, stored, server = (base64.b64encode(part).decode("ascii") for part in (self.salt, self.stored_key, self.server_key))
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    @classmethod
    def parse(cls, text: str) -> Scram:
        """A verifier from its text; ValueError."""
        found = _RFC_5803.fullmatch(text)
        if found is None:
            raise ValueError("this is no SCRAM-SHA-256 verifier")
        salt, stored, server = (base64.b64decode(part, validate=True) for part in found.groups()[1:])
        if int(found[1]) < 4096 or not salt or len(stored) != 32 or len(server) != 32:
            raise ValueError("this is no SCRAM-SHA-256 verifier")
        return cls(int(found[1]), salt, stored, server)


def scram_verifier(password: str | bytes, random: Callable[[int], bytes] = os.urandom, iterations: int = SCRAM_ITERATIONS) -> str | None:
    """The SCRAM-SHA-256 verifier to keep (RFC 5802 §3); None for a password that SCRAM cannot carry, see saslprep. About 10 ms."""
    try:
        text = saslprep(password if isinstance(password, str) else password.decode("utf-8"))
    except ValueError:
        return None
    salt = random(16)
    salted = hashlib.pbkdf2_hmac("sha256", text.encode("utf-8"), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return str(Scram(iterations, salt, stored, hmac.digest(salted, b"Server Key", "sha256")))


def saslprep(text: str) -> str:
    """A password as SCRAM compares it (RFC 4013). ValueError for what is prohibited, and for the empty text."""
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared or any(table(character) for character in prepared for table in _PROHIBITED):
        raise ValueError("the password has a character that SASLprep prohibits")
    if any(map(stringprep.in_table_d1, prepared)):  # RFC 3454 §6: right to left throughout, or not at all
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(map(stringprep.in_table_d2, prepared)):
            raise ValueError("the password mixes directions of writing in a way that SASLprep prohibits")
    return prepared
