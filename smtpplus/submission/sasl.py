"""The exchanges of AUTH (RFC 4954), without I/O: responses go in, challenges or credentials come out.

An exchange knows nothing of accounts; whoever started it gives the credentials to the portal. Secrets have no repr and live as
long as the exchange. Failure: Refusal, and the exchange is over.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Callable, Protocol

import attrs
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpplus.mail import reasons

Avatar = tuple[Any, Any, Callable[[], object]]  # what a portal gives: the interface, the avatar, how to log out


class Credentials(Protocol):
    """What an exchange leads to, for the portal.

    `identity` is who the client wants to be, b"" for the user that it logs in as; `last` what the server says before it says that all is
    well, b"" for nothing.
    """

    identity: bytes
    username: bytes
    mechanism: str
    last: bytes


@implementer(IUsernamePassword)
class Login:
    """User and password as the client gave them, for any checker that takes IUsernamePassword."""

    __slots__ = ("identity", "last", "mechanism", "password", "username")

    def __init__(self, username: bytes, password: bytes, mechanism: str, identity: bytes = b"") -> None:
        self.identity = identity
        self.username = username
        self.password = password
        self.mechanism = mechanism
        self.last = b""

    def __repr__(self) -> str:
        return f"<Login by {self.mechanism}>"  # in the name's field may stand the password

    def checkPassword(self, password: bytes) -> bool:
        """Whether the client's password is this one; Twisted's own checkers ask so."""
        return self.password == password


class Exchange(Protocol):
    """One AUTH command under way."""

    @property
    def mechanism(self) -> str:
        """Its name."""

    def step(self, response: bytes | None) -> bytes | Deferred[bytes] | Credentials | Confirmed:
        """The next challenge, or the credentials. `response` is decoded; None if the client sent no initial one."""


@attrs.frozen
class Confirmed:
    """The client heard the last word: it is `avatar` from now on."""

    avatar: Avatar
    credentials: Credentials


@attrs.frozen
class LastWord:
    """What remains of an exchange when the server had more to say at its end: the client's empty response (RFC 4954 §4)."""

    avatar: Avatar
    credentials: Credentials

    @property
    def mechanism(self) -> str:
        return self.credentials.mechanism

    def step(self, response: bytes | None) -> Confirmed:
        if response:
            self.avatar[2]()
            raise reasons.AUTH_MALFORMED.refusal()
        return Confirmed(self.avatar, self.credentials)


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
        return Login(user, password, self.mechanism, identity)


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


def begin(argument: bytes, more: Callable[[str], Exchange | None] = lambda name: None) -> tuple[Exchange, bytes | None]:
    """The exchange that AUTH's argument asks for, and its initial response: None if none, b"" for "=" (RFC 4954 §4).

    `more` makes the exchanges that are not in MECHANISMS, or None.
    """
    name, _, initial = argument.strip(b" ").partition(b" ")
    if not name:
        raise reasons.BAD_ARGUMENT.refusal(command="AUTH", cause="the name of a mechanism is missing")
    asked = name.decode("ascii", "replace").upper()
    exchange = MECHANISMS[asked]() if asked in MECHANISMS else more(asked)
    if exchange is None:
        raise reasons.MECHANISM_UNKNOWN.refusal(parameter=name.decode("ascii", "replace"))
    if not initial:
        return exchange, None
    return exchange, b"" if initial == b"=" else decode(initial)


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
