"""What the server offers: the answer to EHLO, and whether the parameters of a message are within it.

The keywords stand in one table, each with the function that says under which circumstances it is offered, so that nothing is announced
that would not work. Times that depend on the clock are settled here: what a client gave as an interval becomes a time. Failure: Refusal.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Callable

import msgspec

from smtpplus.config import Configuration
from smtpplus.mail import reasons
from smtpplus.mail.reasons import Refusal
from smtpplus.submission.parameters import MailParameters

LEAST_BY = 60  # seconds: nothing sooner can be promised to come back, min-by-time of RFC 2852 §4
_STEP = 60.0  # seconds for which the latest time of release that was announced stays as it is


class Circumstances(msgspec.Struct, frozen=True):
    """What the offer depends on."""

    secure: bool  # TLS is on
    tls: bool  # TLS is to be had
    mechanisms: str  # for AUTH, separated by blanks; "": it is not offered now
    size: int  # octets that a message may have
    hold: int  # seconds for which a message may be held; 0: FUTURERELEASE is off
    latest: float  # the latest time of release, seconds since the epoch
    recipients: int  # per message
    messages: int  # per connection; 0: no limit


def _bare(at: Circumstances) -> str | None:
    """A keyword without parameters, always offered."""
    return ""


def _limits(at: Circumstances) -> str | None:
    """RFC 9422 §3."""
    return f"{f'MAILMAX={at.messages} ' if at.messages else ''}RCPTMAX={at.recipients}"


def _future_release(at: Circumstances) -> str | None:
    """The longest interval and the latest time, RFC 4865 §4."""
    return f"{at.hold} {datetime.fromtimestamp(at.latest, UTC):%Y-%m-%dT%H:%M:%SZ}" if at.hold else None


KEYWORDS: tuple[tuple[str, Callable[[Circumstances], str | None]], ...] = (  # keyword, and its parameters; None: not offered
    ("PIPELINING", _bare),
    ("SIZE", lambda at: str(at.size)),
    ("8BITMIME", _bare),
    ("SMTPUTF8", _bare),
    ("CHUNKING", _bare),
    ("ENHANCEDSTATUSCODES", _bare),
    ("DSN", _bare),
    ("MT-PRIORITY", _bare),
    ("FUTURERELEASE", _future_release),
    ("DELIVERBY", lambda at: str(LEAST_BY)),
    ("LIMITS", _limits),
    ("REQUIRETLS", lambda at: "" if at.secure else None),  # RFC 8689 §2: only under TLS
    ("STARTTLS", lambda at: "" if at.tls and not at.secure else None),
    ("AUTH", lambda at: at.mechanisms or None),
    ("HELP", _bare),
)


class Offer:
    """The offer of one listener. Answers are made once for all sessions in the same circumstances."""

    __slots__ = ("_hold", "_hostname", "_made", "_messages", "_recipients", "_tls", "_until")

    def __init__(self, configuration: Configuration, *, tls: bool) -> None:
        self._hostname = configuration.hostname
        self._tls = tls
        self._hold = int(configuration.submission.future_release)
        self._recipients = configuration.limits.recipients
        self._messages = configuration.limits.messages_per_connection
        self._made: dict[tuple[bool, str, int], bytes] = {}
        self._until = 0.0  # when what was made says too little of the future

    def ehlo(self, *, secure: bool, mechanisms: str, size: int, now: float) -> bytes:
        """The answer to EHLO."""
        if now >= self._until or now < self._until - _STEP:
            self._made.clear()
            self._until = now + _STEP
        key = (secure, mechanisms, size)
        answer = self._made.get(key)
        if answer is None:
            latest = self._until - _STEP + self._hold
            at = Circumstances(secure, self._tls, mechanisms, size, self._hold, latest, self._recipients, self._messages)
            answer = self._made[key] = self._compose(at)
        return answer

    def _compose(self, at: Circumstances) -> bytes:
        lines = [self._hostname]
        for keyword, says in KEYWORDS:
            parameters = says(at)
            if parameters is not None:
                lines.append(f"{keyword} {parameters}" if parameters else keyword)
        *first, last = lines
        return "".join([*(f"250-{line}\r\n" for line in first), f"250 {last}\r\n"]).encode("ascii")

    def settle(self, parameters: MailParameters, *, secure: bool, now: float) -> MailParameters:
        """`parameters`, their times settled; Refusal if they want what is not offered."""
        if parameters.require_tls and not secure:
            raise reasons.TLS_REQUIRED.refusal() if self._tls else _not_offered("REQUIRETLS", "there is no TLS here")
        release_at = self._release_at(parameters, now) if parameters.hold_for or parameters.hold_until else 0.0
        if parameters.by is None:
            return msgspec.structs.replace(parameters, release_at=release_at) if release_at else parameters
        seconds, mode = parameters.by
        if mode[0] == "R" and seconds < LEAST_BY:
            raise _not_offered("BY", f"the least time is {LEAST_BY} seconds")
        if release_at and mode[0] == "R" and now + seconds <= release_at:
            raise _out_of_range("it would be returned before it is released")
        return msgspec.structs.replace(parameters, release_at=release_at, deliver_by=now + seconds)

    def _release_at(self, parameters: MailParameters, now: float) -> float:
        """When a message goes out that is to be held (RFC 4865 §5)."""
        if not self._hold:
            raise _not_offered("HOLDFOR" if parameters.hold_for else "HOLDUNTIL", "messages are not held here")
        if parameters.hold_for and parameters.hold_until:
            raise _out_of_range("HOLDFOR and HOLDUNTIL exclude each other")
        release_at = now + parameters.hold_for if parameters.hold_for else parameters.hold_until
        if release_at <= now:
            raise _out_of_range("the time of HOLDUNTIL is over")
        if release_at > now + self._hold:
            raise _out_of_range(f"a message is held for {self._hold} seconds at most")
        return release_at


def _not_offered(parameter: str, cause: str) -> Refusal:
    return reasons.BAD_PARAMETER.refusal(command="MAIL", parameter=parameter, cause=cause)


def _out_of_range(cause: str) -> Refusal:
    return reasons.BAD_ARGUMENT.refusal(command="MAIL", cause=cause)
