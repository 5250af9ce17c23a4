"""AUTH: exchanges, the portal, failures and what they cost; and clients that are trusted by their network.

Invariant: the words for a failed login are the same whatever failed, and so is what is done before they are said; the true reason
is in the event. Who fails too often waits, without anything of ours waiting with it (see attempts). Failure: Refusal.
"""

from __future__ import annotations

from typing import Any, Callable

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.mail.interfaces import IMessageDelivery
from twisted.python.failure import Failure

from smtpplus.events import Authenticated, AuthenticationFailed
from smtpplus.mail import reasons
from smtpplus.mail.reasons import Refusal
from smtpplus.mail.reply import printable
from smtpplus.submission import sasl, scram
from smtpplus.submission.admission import LOGGED_IN, SENDER, Admission
from smtpplus.submission.checker import adapted
from smtpplus.submission.credentials import LoginRefused, TrustedClient

_LOGIN_DONE = b"235 2.7.0 Authentication successful\r\n"


class Authentication(Admission):
    """How a client becomes a user."""

    def ext_AUTH(self, rest: bytes) -> None:
        if not self.may_log_in:
            raise reasons.ENCRYPTION_FOR_AUTH.refusal()
        exchange, response = sasl.begin(rest, self._scram)
        self._respond(exchange, response)

    def proceed(self, exchange: sasl.Exchange, line: bytes) -> None:
        """The next line of an exchange. Refusal if it ends it."""
        try:
            response = sasl.decode(line)
        except Refusal:
            _part(exchange)
            raise
        self._respond(exchange, response)

    def give_up(self) -> None:
        """End the exchange, if there is one."""
        exchange, self._exchange = self._exchange, None
        _part(exchange)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.give_up()
        super().connectionLost(reason)

    def _scram(self, name: str) -> sasl.Exchange | None:
        """The exchange of a SCRAM mechanism; None if it is not offered."""
        verifiers = self.factory.verifiers
        if verifiers is None or name not in {scram.PLAIN, scram.BOUND} or (name == scram.BOUND and not self.startedTLS):
            return None
        certificate = self.transport.getHandle().get_certificate(as_cryptography=True) if self.startedTLS else None
        return scram.ScramExchange(name, verifiers.verifier, None if certificate is None else scram.end_point(certificate))

    def _respond(self, exchange: sasl.Exchange, response: bytes | None) -> None:
        """One step of an AUTH exchange."""
        answer = exchange.step(response)
        if isinstance(answer, Deferred):
            self.wait(answer, lambda challenge: self._challenge(exchange, challenge))
        elif isinstance(answer, bytes):
            self._challenge(exchange, answer)
        elif isinstance(answer, sasl.Confirmed):
            self._logged_in(answer.avatar, answer.credentials)
        else:
            self._take_turn(answer)

    def _challenge(self, exchange: sasl.Exchange, challenge: bytes) -> None:
        self._exchange = exchange
        self.reply(sasl.encode(challenge))

    def _take_turn(self, credentials: sasl.Credentials) -> None:
        """Have the credentials checked, when it is their turn."""
        user = credentials.username.decode("utf-8", "replace")
        wait = self.factory.attempts.wait(self.address, user, self.tick())
        if wait is None:
            self.bye(reasons.TOO_MANY_FAILED_LOGINS.refusal(limit=f"{self.factory.attempts.limit} an hour for an address and user"))
        elif wait > 0:
            turn: Deferred[None] = deferLater(self.factory.clock, wait, self._check, credentials)
            self.wait(turn)
        else:
            self._check(credentials)

    def _check(self, credentials: sasl.Credentials) -> None:
        if self.lost:
            return
        login = self.portal.login(credentials, self, IMessageDelivery).addCallback(_themselves, credentials)
        self.wait(login.addCallbacks(self._right, self._login_failed, callbackArgs=(credentials,), errbackArgs=(credentials,)))

    def _right(self, avatar: sasl.Avatar, credentials: sasl.Credentials) -> None:
        """The portal let somebody in; a mechanism may have a last word to say before it is true."""
        if self.lost:
            avatar[2]()
        elif credentials.last:
            self._challenge(sasl.LastWord(avatar, credentials), credentials.last)
        else:
            self._logged_in(avatar, credentials)

    def _logged_in(self, avatar: sasl.Avatar, credentials: sasl.Credentials) -> None:
        self._admit(avatar)
        self._state |= LOGGED_IN
        self.reply(_LOGIN_DONE)
        user = self.delivery.name or printable(credentials.username.decode("utf-8", "replace"))
        self._tell(Authenticated, self.name, self.client, user, credentials.mechanism, self._tls_in_use())

    def _login_failed(self, failure: Failure, credentials: sasl.Credentials) -> Failure | None:
        if not failure.check(UnauthorizedLogin):
            return failure
        reason = getattr(failure.value, "reason", reasons.LOGIN_FAILED.code)
        self.factory.attempts.failed(self.address, credentials.username.decode("utf-8", "replace"), self.tick())
        user = getattr(failure.value, "user", "")  # never what was typed: it may be the password
        port = self.transport.getHost().port if not self.lost else 0
        reply, reference = self._referred(reasons.LOGIN_FAILED.reply())
        self._tell(AuthenticationFailed, self.name, self.client, port, user, credentials.mechanism, reason, reference)
        self.reply(reply.wire())
        self._failed_logins += 1
        limit = self.factory.limits.auth_failures_per_connection
        if self._failed_logins >= limit and not self.lost:
            self.bye(reasons.TOO_MANY_FAILED_LOGINS.refusal(limit=f"{limit} for a connection"))
        return None

    def _admit(self, avatar: sasl.Avatar) -> None:
        """The portal let somebody in, who is logged out at once if nobody is there any more."""
        if self.lost:
            avatar[2]()
            return
        self._logout()
        _, delivery, self._onLogout = avatar
        self.delivery = adapted(delivery)
        self._state |= SENDER

    @property
    def logged_in(self) -> bool:
        """Whether the client has shown a password."""
        return self._state & LOGGED_IN != 0

    def trust(self) -> Deferred[None]:
        """Let a client from a trusted network in as `trusted_as`."""
        login: Deferred[Any] = self.portal.login(TrustedClient(self.factory.trusted_as), self, IMessageDelivery)
        return login.addCallbacks(self._admit, _not_trusted, errbackArgs=(self.factory.trusted_as,))

    def _tls_in_use(self) -> str:
        if not self.startedTLS or self.lost:
            return ""
        connection = self.transport.getHandle()
        return f"{connection.get_protocol_version_name()} {connection.get_cipher_name()}"


def _themselves(avatar: sasl.Avatar, credentials: sasl.Credentials) -> sasl.Avatar:
    """Nobody acts for another, RFC 4616 §2. Found out when the password was right, so that it costs what every login costs."""
    if credentials.identity in {b"", credentials.username}:
        return avatar
    avatar[2]()
    raise LoginRefused(reasons.OTHER_IDENTITY.code, getattr(avatar[1], "name", ""))


def _not_trusted(failure: Failure, user: str) -> Failure:
    if not failure.check(UnauthorizedLogin):
        return failure
    unknown = getattr(failure.value, "reason", "") == reasons.UNKNOWN_USER.code
    return Failure(reasons.TRUSTED_USER.refusal(user=user, cause="there is no such user" if unknown else "that user is not active"))


def _part(exchange: sasl.Exchange | None) -> None:
    """An exchange ends too early: log out whom the portal let in for it."""
    logout: Callable[[], object] | None = exchange.avatar[2] if isinstance(exchange, sasl.LastWord) else None
    if logout is not None:
        logout()
