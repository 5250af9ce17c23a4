"""DKIM: dkimpy, which shares nothing with us, verifies what we sign; canonicalization is compared with its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import dkim as dkimpy  # type: ignore[import-untyped]  # dkimpy has no annotations
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from dkim.canonicalization import Relaxed  # type: ignore[import-untyped]  # as above
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail import dkim
from smtpplus.mail.dkim import Algorithm, BodyHash
from smtpplus.mail.header import Header, find_header_end

RSA = rsa.generate_private_key(65_537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
HEAD = b"From: Ann <ann@a.example>\r\nTo: b@b.example\r\nSubject: =?utf-8?q?h=C3=A9?=\r\n   hello \t there \r\nX-Other: not signed\r\n"

# Lines of what canonicalization has to do with, and now and then anything
_BODY = st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"b ", b".", b"\xe9", b"\r\n\r\n", b"x" * 70]), max_size=40).map(b"".join)
_ANY = st.binary(max_size=60).map(lambda octets: octets.replace(b"\r", b"").replace(b"\n", b"\r\n"))


def _rsa_sign(octets: bytes) -> bytes:
    return RSA.sign(octets, padding.PKCS1v15(), hashes.SHA256())


def _ed25519_sign(octets: bytes) -> bytes:
    return ED25519.sign(hashlib.sha256(octets).digest())  # RFC 8463 §3


_SIGN: dict[Algorithm, Callable[[bytes], bytes]] = {"rsa": _rsa_sign, "ed25519": _ed25519_sign}
_PUBLIC: dict[Algorithm, bytes] = {
    "rsa": RSA.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    "ed25519": ED25519.public_key().public_bytes_raw(),
}


def signed(message: bytes, algorithm: Algorithm, size: int = 1_000_000) -> bytes:
    """`message` with a signature on top; the body is fed in pieces of `size` octets."""
    end = find_header_end(message)
    body = BodyHash()
    for start in range(end, len(message), size):
        body.feed(message[start : start + size])
    covered = dkim.cover(Header.parse(message[:end]))
    outlined = dkim.outline(covered, body.finish(), algorithm=algorithm, domain="a.example", selector="s", at=1e9)
    return dkim.field(outlined, _SIGN[algorithm](dkim.signing_input(covered, outlined))) + message


def verifies(message: bytes, algorithm: Algorithm) -> bool:
    """What dkimpy says of the first signature, with the key where the record says."""

    def look_up(name: bytes, **_: Any) -> bytes | None:
        assert name.rstrip(b".") == dkim.record_name("a.example", "s").encode()
        return dkim.record(algorithm, _PUBLIC[algorithm]).encode()

    return bool(dkimpy.verify(message, dnsfunc=look_up, minkey=1024))


@pytest.fixture(params=["rsa", "ed25519"])
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    kind: Algorithm = request.param
    return kind


@given(body=_BODY | _ANY, size=st.integers(1, 50))
def test_dkimpy_verifies_every_body(body: bytes, size: int) -> None:
    """Whatever the body, and however it is cut into pieces, the signature verifies as the message is after transmission."""
    message = signed(HEAD + b"\r\n" + body, "ed25519", size)
    assert verifies(message if message.endswith(b"\r\n") else message + b"\r\n", "ed25519")


@given(_BODY | _ANY)
def test_rsa_verifies_too(body: bytes) -> None:
    """The same with RSA, for a body that ends its last line."""
    assert verifies(signed(HEAD + b"\r\n" + body + b"\r\n", "rsa"), "rsa")


@given(
    value=st.lists(st.sampled_from([*" \tab:;=<>\xe9", "x\x0bx", "x\x0cx"])).map("".join),
    name=st.sampled_from(["Subject", "TO", "list-Id"]),
)
def test_dkimpy_verifies_every_field(value: str, name: str) -> None:
    """Fields with any blanks, folds and 8-bit octets verify, and a second field of the same name too."""
    raw = f"{name}: {value.replace('b', chr(13) + chr(10) + ' b')}\r\n".encode()
    assert verifies(signed(b"From: a@a.example\r\n" + raw + raw.replace(b"a", b"c") + b"\r\nbody\r\n", "ed25519"), "ed25519")


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"\r\n", b" ", b"\r\n" * 20_000]), max_size=8))
def test_the_body_hash_is_dkimpys(pieces: list[bytes]) -> None:
    """The hash of a body in pieces is that of dkimpy's relaxed canonicalization of all of it, bare CR and LF included."""
    body = b"".join(pieces)
    wire = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    ours = BodyHash()
    for piece in pieces:
        ours.feed(piece)
    assert ours.finish() == hashlib.sha256(Relaxed.canonicalize_body(wire)).digest()


def test_the_hash_of_nothing() -> None:
    """A message without a body, or with empty lines alone, has the hash that RFC 6376 §3.4.4 names."""
    for body in (b"", b"\r\n", b"\r\n" * 5, b" \t\r\n\r\n"):
        ours = BodyHash()
        ours.feed(body)
        assert base64.b64encode(ours.finish()) == b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@pytest.mark.parametrize(
    "change",
    [
        (b"Subject: ", b"Subject: x"),
        (b"From: ", b"From: Eve <eve@e.example>\r\nFrom: "),
        (b"\r\n\r\n", b"\r\n\r\nmore\r\n"),
        (b"To: ", b"to: c@c.example\r\nTo: x"),
    ],
)
def test_what_is_changed_does_not_verify(change: tuple[bytes, bytes], algorithm: Algorithm) -> None:
    """A changed field, a second From put before the first, and a changed body break the signature; a field that is not signed does not."""
    message = signed(HEAD + b"\r\nbody\r\n", algorithm)
    assert not verifies(message.replace(*change, 1), algorithm)
    assert verifies(message.replace(b"not signed", b"changed"), algorithm)


def test_the_field_is_well_formed(algorithm: Algorithm) -> None:
    """From is named once more than it occurs, lines are short, and every tag of RFC 6376 §3.5 that is wanted is there."""
    message = signed(HEAD + b"List-Unsubscribe: <https://a.example/u>\r\nMessage-ID: <1@a>\r\nDate: x\r\nCc: d@d\r\n\r\n", algorithm)
    field = message[: message.index(b"From: Ann")]
    assert max(map(len, field.split(b"\r\n"))) <= 78
    text = b"".join(field.split())
    assert text.startswith(b"DKIM-Signature:v=1;a=" + algorithm.encode() + b"-sha256;c=relaxed/relaxed;t=1000000000;d=a.example;s=s;")
    assert b";h=cc:date:message-id:list-unsubscribe:subject:to:from:from;bh=" in text


def test_who_signs() -> None:
    """The domains of From decide: normalized, each once, in order; nobody's if it cannot be read."""
    assert dkim.author_domains("Ann <ann@A.Example>") == ("a.example",)
    assert dkim.author_domains("a@a.example, b@B.example, c@a.example") == ("a.example", "b.example")
    assert dkim.author_domains("x@bücher.example") == ("xn--bcher-kva.example",)
    assert dkim.author_domains("nobody") == ()


def test_records() -> None:
    """A record is found under its name, is cut into strings of 255, and is read back, however DNS has spaced it."""
    text = dkim.record("rsa", _PUBLIC["rsa"])
    assert [len(each) for each in dkim.strings(text)] == [255, len(text) - 255]
    assert dkim.published_key(text) == ("rsa", base64.b64encode(_PUBLIC["rsa"]).decode())
    assert dkim.published_key(" p = AB C ") == ("rsa", "ABC")
    assert dkim.published_key("v=DKIM1;k=ed25519;p=") == ("ed25519", "")
    assert dkim.published_key("v=spf1 -all") == dkim.published_key("v=DKIM2; p=x") == ("", "")
