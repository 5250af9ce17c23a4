"""The exchanges of AUTH (RFC 4954), without I/O: responses go in, challenges or credentials come out.

An exchange knows nothing of accounts; whoever started it gives the credentials to the portal. Secrets have no repr and live as
long as the exchange. Failure: Refusal, and the exchange is over.
"""

from __future__ import annotations

import base64
import binascii
from typing import Callable, Protocol

from twisted.cred.credentials import IUsernamePassword
from zope.interface import implementer

from smtpplus.mail import reasons


@implementer(IUsernamePassword)
class Login:
    """User and password as the client gave them, for any checker that takes IUsernamePassword."""

    __slots__ = ("mechanism", "password", "username")

    def __init__(self, username: bytes, password: bytes, mechanism: str) -> None:
        self.username = username
        self.password = password
        self.mechanism = mechanism

    def __repr__(self) -> str:
        return f"<Login of {self.username!r} by {self.mechanism}>"

    def checkPassword(self, password: bytes) -> bool:
        """Whether the client's password is this one; Twisted's own checkers ask so."""
        return self.password == password


class Exchange(Protocol):
    """One AUTH command under way."""

    mechanism: str

    def step(self, response: bytes | None) -> bytes | Login:
        """The next challenge, or the credentials. `response` is decoded; None if the client sent no initial one."""


class Plain:
    """PLAIN: authorization identity, user and password in one response (RFC 4616 §2)."""

    __slots__ = ()
    mechanism = "PLAIN"

    def step(self, response: bytes | None) -> bytes | Login:
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise reasons.AUTH_MALFORMED.refusal()
        identity, user, password = parts
        if identity and identity != user:  # nobody acts for another
            raise reasons.LOGIN_FAILED.refusal()
        return Login(user, password, self.mechanism)


class UserThenPassword:
    """LOGIN: the user, then the password, each asked for (draft-murchison-sasl-login-00)."""

    __slots__ = ("_user",)
    mechanism = "LOGIN"

    def __init__(self) -> None:
        self._user: bytes | None = None

    def step(self, response: bytes | None) -> bytes | Login:
        if response is None:
            return b"Username:"
        if self._user is None:
            self._user = response
            return b"Password:"
        if not self._user or not response:
            raise reasons.AUTH_MALFORMED.refusal()
        return Login(self._user, response, self.mechanism)


MECHANISMS: dict[str, Callable[[], Exchange]] = {Plain.mechanism: Plain, UserThenPassword.mechanism: UserThenPassword}


def begin(argument: bytes) -> tuple[Exchange, bytes | None]:
    """The exchange that AUTH's argument asks for, and its initial response: None if none, b"" for "=" (RFC 4954 §4)."""
    name, _, initial = argument.strip(b" ").partition(b" ")
    if not name:
        raise reasons.BAD_ARGUMENT.refusal(command="AUTH", cause="the name of a mechanism is missing")
    mechanism = MECHANISMS.get(name.decode("ascii", "replace").upper())
    if mechanism is None:
        raise reasons.MECHANISM_UNKNOWN.refusal(parameter=name.decode("ascii", "replace"))
    if not initial:
        return mechanism(), None
    return mechanism(), b"" if initial == b"=" else decode(initial)


def decode(line: bytes) -> bytes:
    """A response without its base64; Refusal if it is "*" or not base64 (RFC 4954 §4)."""
    if line == b"*":
        raise reasons.AUTH_CANCELLED.refusal()
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error:
        raise reasons.AUTH_MALFORMED.refusal() from None


def encode(challenge: bytes) -> bytes:
    """The 334 reply that carries a challenge."""
    return b"334 " + base64.b64encode(challenge) + b"\r\n"
