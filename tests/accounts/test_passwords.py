"""Passwords: how they are made, kept and compared."""

from __future__ import annotations

import base64
import hashlib
import hmac

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


def test_scram_verifier() -> None:
    """C1: the verifier checks the client's proof of RFC 7677 §3, makes the server's signature, and holds no password."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    text = passwords.scram_verifier("pencil", lambda _: salt, 4096)
    assert text is not None
    assert "pencil" not in text
    verifier = passwords.Scram.parse(text)
    assert (verifier.iterations, verifier.salt, str(verifier)) == (4096, salt, text)
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}".encode()
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(verifier.stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == verifier.stored_key
    assert base64.b64encode(hmac.digest(verifier.server_key, message, "sha256")) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_scram_verifiers_are_salted() -> None:
    """C1: one password gives another verifier each time, with enough iterations (RFC 7677 §4), and its repr shows nothing."""
    first, second = passwords.scram_verifier("pässword"), passwords.scram_verifier("pässword".encode())
    assert first and second and first != second
    assert passwords.Scram.parse(first).iterations >= 4096
    assert repr(passwords.Scram.parse(first)) == "Scram(…)"


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0627\u0628", "\u0627\u0628"),
    ],
)
def test_saslprep(text: str, prepared: str) -> None:
    """C1: passwords are compared as RFC 4013 §3 prepares them."""
    assert passwords.saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u06271", "\u0627a\u0628", "", "\u00ad", "\U0001f600", "\ue000"])
def test_what_scram_cannot_carry(text: str) -> None:
    """C1: a password that SASLprep prohibits has no verifier; it goes on working with PLAIN."""
    with pytest.raises(ValueError):
        passwords.saslprep(text)
    assert passwords.scram_verifier(text) is None
    assert passwords.scram_verifier(b"\xff") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SCRAM-SHA-1$4096:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-256$1:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-256$4096:c2FsdA==$AAAA:" + "A" * 43 + "=",
        "SCRAM-SHA-256$4096:c2Fsd$" + "A" * 43 + "=:" + "A" * 43 + "=",
    ],
)
def test_no_verifier(text: str) -> None:
    """C1, A12: what is no SCRAM-SHA-256 verifier, or a weak one, is not taken for one."""
    with pytest.raises(ValueError):
        passwords.Scram.parse(text)
