"""Logging in at a smarthost (RFC 4954): SCRAM-SHA-256, PLAIN, LOGIN, the best that is offered first, without any I/O.

With SCRAM (RFC 5802, RFC 7677) the password never travels, and who does not know it cannot pass for the smarthost: its last message is
proved before the login counts. A mechanism that is refused hands over to the next: PLAIN after SCRAM always, as a smarthost may
have no verifier for the account; LOGIN only if PLAIN was not understood, so that a wrong password is not tried twice in
the clear. Failure: LoginFault, in words.

What a peer says at login may be its echo of what we sent. Invariant: nothing of that, and no part of the password, is told to anybody.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import unicodedata
from typing import Callable, Protocol

from smtpplus.delivery.terms import Credentials
from smtpplus.mail.reply import Reply

ITERATIONS = range(4096, 200_001)  # RFC 7677 §4 from below; from above our own limit: 100 ms of the reactor's time, once
REPEATED = "the reply repeated what was sent at login and is not shown"
_FRAGMENT = 8  # characters of a secret that are taken for it, as an echo may be cut: ours; 6 octets in base64
_NOT_UNDERSTOOD = range(500, 505)


class LoginFault(Exception):
    """The peer's part of an exchange makes no sense; str() says why."""


class Exchange(Protocol):
    """One try with one mechanism."""

    command: str  # AUTH …

    def respond(self, challenge: str) -> str:
        """The answer to a 334; LoginFault."""

    def proved(self) -> bool:
        """Whether a 235 may be believed."""


class Login:
    """The mechanisms to try, in their order. `offered` is what stands behind AUTH in the answer to EHLO; `random` gives octets."""

    __slots__ = ("_left", "_mechanism", "_secrets", "exchange")

    def __init__(self, credentials: Credentials, offered: str, random: Callable[[int], bytes]) -> None:
        names = offered.upper().split()
        known: dict[str, Callable[[], Exchange]] = {
            "SCRAM-SHA-256": lambda: Scram(credentials, random),
            "PLAIN": lambda: _Plain(credentials),
            "LOGIN": lambda: _Login(credentials),
        }
        self._left = [(name, make) for name, make in known.items() if name in names]
        self._mechanism = ""
        password = credentials.password
        self._secrets = {_bare(secret) for text in {password, _prepared(password)} for secret in (text, _encoded(text.encode()))}
        self.exchange: Exchange | None = None

    def next(self, code: int = 0) -> str | None:
        """The command that begins the next try, after one that was refused with `code`; None if there is none."""
        if not self._left or (self._mechanism == "PLAIN" and code not in _NOT_UNDERSTOOD):
            return None
        self._mechanism, make = self._left.pop(0)
        self.exchange = make()
        self._secrets.add(_bare(self.exchange.command.partition(" ")[2].partition(" ")[2]))
        return self.exchange.command

    def respond(self, challenge: str) -> str:
        """The answer to a 334 in the try that was begun last; LoginFault."""
        assert self.exchange is not None
        response = self.exchange.respond(challenge)
        self._secrets.add(_bare(response))
        return response

    def is_in(self, text: str) -> bool:
        """Whether `text` has the password or what was sent so far, or a part of these, in whatever case and with whatever blanks."""
        bare = _bare(text)
        return any(_occurs(secret, bare) for secret in self._secrets)

    def shown(self, reply: Reply) -> Reply:
        """What may be told of a reply of the peer."""
        return Reply(reply.code, reply.enhanced, REPEATED) if self.is_in(reply.text) else reply


def _bare(text: str) -> str:
    """`text` without what an echo may change."""
    return "".join(text.split()).casefold().rstrip("=")


def _occurs(secret: str, text: str) -> bool:
    length = min(len(secret), _FRAGMENT)
    return bool(secret) and any(secret[start : start + length] in text for start in range(len(secret) - length + 1))


def _encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


class _Plain:
    """RFC 4616, with the initial response of RFC 4954 §4."""

    def __init__(self, credentials: Credentials) -> None:
        self._response = _encoded(b"\0" + credentials.username.encode() + b"\0" + credentials.password.encode())
        self.command = f"AUTH PLAIN {self._response}"

    def respond(self, challenge: str) -> str:
        response, self._response = self._response, ""  # for a peer that asks in spite of the initial response
        if not response:
            raise LoginFault("it asks again")
        return response

    def proved(self) -> bool:
        return True


class _Login:
    """draft-murchison-sasl-login: name and password as they are asked for, whatever the prompts say."""

    command = "AUTH LOGIN"

    def __init__(self, credentials: Credentials) -> None:
        self._responses = [_encoded(credentials.username.encode()), _encoded(credentials.password.encode())]

    def respond(self, challenge: str) -> str:
        if not self._responses:
            raise LoginFault("it asks again")
        return self._responses.pop(0)

    def proved(self) -> bool:
        return True


class Scram:
    """The client's side of SCRAM-SHA-256 without channel binding (RFC 5802 §5)."""

    def __init__(self, credentials: Credentials, random: Callable[[int], bytes]) -> None:
        name = _prepared(credentials.username).replace("=", "=3D").replace(",", "=2C")
        self._password = _prepared(credentials.password)
        self._nonce = _encoded(random(18))
        self._bare = f"n={name},r={self._nonce}"
        self._proof_of_peer = b""
        self._proved = False
        self.command = f"AUTH SCRAM-SHA-256 {_encoded(b'n,,' + self._bare.encode())}"

    def respond(self, challenge: str) -> str:
        try:
            text = base64.b64decode(challenge, validate=True).decode()
            attributes = {part[0]: part[2:] for part in text.split(",") if part[1:2] == "="}
            if self._proof_of_peer:
                self._prove(attributes)
                return ""
            return self._final(text, attributes)
        except (ValueError, KeyError, binascii.Error):
            raise LoginFault("its part of SCRAM makes no sense") from None

    def _final(self, first: str, attributes: dict[str, str]) -> str:
        nonce, salt, iterations = attributes["r"], base64.b64decode(attributes["s"], validate=True), int(attributes["i"])
        if not nonce.startswith(self._nonce) or nonce == self._nonce or "m" in attributes:
            raise ValueError
        if iterations not in ITERATIONS:
            raise LoginFault(f"it asks for {iterations} iterations of SCRAM")
        salted = _salted(self._password, salt, iterations)
        without_proof = f"c=biws,r={nonce}"
        said = ",".join((self._bare, first, without_proof)).encode()
        client_key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), said)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._proof_of_peer = _hmac(_hmac(salted, b"Server Key"), said)
        return _encoded(f"{without_proof},p={_encoded(proof)}".encode())

    def _prove(self, attributes: dict[str, str]) -> None:
        if not hmac.compare_digest(base64.b64decode(attributes["v"], validate=True), self._proof_of_peer):
            raise LoginFault("it does not know the password itself")
        self._proved = True

    def proved(self) -> bool:
        return self._proved


def _prepared(text: str) -> str:
    """The part of SASLprep that changes what people type: compatibility forms (RFC 4013 §2.2)."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


@functools.lru_cache(maxsize=16)
def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    """Kept, as a smarthost has the same salt for every session."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
