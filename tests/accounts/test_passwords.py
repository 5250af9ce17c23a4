"""Passwords: how they are made, kept and compared."""

from __future__ import annotations

import argon2
import pytest

from smtpplus.accounts import passwords


def test_generated_passwords_have_128_bits() -> None:
    """A6: a generated password is a reversible writing of 130 random bits: each of them changes it, and the rest does not matter."""
    made = passwords.generate(bytes)  # zeros
    assert len(made) == passwords.LENGTH
    variants = {made}
    for bit in range(130):
        octets = (1 << bit).to_bytes(17, "big")
        variants.add(passwords.generate(lambda _count, octets=octets: octets))  # type: ignore[misc]  # mypy cannot infer a default's type here
    assert len(variants) == 131


def test_generated_passwords_survive_any_client() -> None:
    """A1: letters and digits only, without those that are misread, so that every client and shell takes the password as it is."""
    made = "".join(passwords.generate() for _ in range(200))
    assert set(made) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert len({made[start : start + 26] for start in range(0, len(made), 26)}) == 200


@pytest.mark.parametrize("password", [b"secret", "pässwörd".encode(), b"\xff\xfe", b"x" * 1000])
def test_hash_and_verify(password: bytes) -> None:
    """A6: a hash is argon2id, does not hold the password, and fits it alone."""
    hashed = passwords.hash_password(password)
    assert hashed.startswith("$argon2id$")
    assert passwords.verify(hashed, password)
    assert not passwords.verify(hashed, password + password[:1])
    assert passwords.hash_password(password) != hashed


@pytest.mark.parametrize("hashed", ["", "plain", "$argon2id$v=19$m=1", passwords.DUMMY[:-3], "$argon2id$ü"])
def test_damaged_hashes_fit_nothing(hashed: str) -> None:
    """A hash that was damaged fits no password and raises nothing."""
    assert not passwords.verify(hashed, "plain")


def test_unknown_users_cost_what_known_ones_do() -> None:
    """B1: the hash compared for unknown users has the parameters of a real one, so that it takes the same time."""
    assert argon2.extract_parameters(passwords.DUMMY) == argon2.extract_parameters(passwords.hash_password("x"))
