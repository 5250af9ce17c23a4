"""A connection before its client is known: limits, greeting, EHLO, TLS; and how anything is refused.

Invariant: what was known of a client before TLS is forgotten with it, and AUTH is there only where `auth_without_tls` lets it be. Failure:
Refusal, which `refuse` answers, states and counts; anything unexpected is logged with its traceback and answered 451 4.3.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.mail import smtp
from twisted.python.failure import Failure

from smtpplus.events import Connected, Disconnected, Refused, RefusedMore
from smtpplus.mail import reasons
from smtpplus.mail.envelope import queue_id
from smtpplus.mail.reasons import Refusal
from smtpplus.mail.reply import Reply, printable
from smtpplus.submission import sasl
from smtpplus.submission.channel import Channel
from smtpplus.submission.checker import Hello, Path
from smtpplus.submission.command import no_argument, parse_hello
from smtpplus.submission.conduct import Conduct

if TYPE_CHECKING:
    from smtpplus.submission.listener import SubmissionFactory

# The state of a session
SECURE = 1  # TLS is on, or not asked for
HELLO = 2  # EHLO or HELO was said
SENDER = 4  # may submit: logged in, or from a trusted network
LOGGED_IN = 8
MAIL = 16  # in a transaction
RCPT = 32  # it has a recipient

RATE_WINDOW = 30.0  # seconds over which the rate of a message's data is measured
LINGER = 30.0  # seconds a client has to take our last words
NOBODY = Path("")  # the sender while there is no transaction
_BEGIN_TLS = b"220 2.0.0 Begin TLS now\r\n"


class Admission(Channel):
    """One client's connection. `name` is the session's name in events, `client` "address:port"."""

    factory: SubmissionFactory
    portal: Any
    _helo: Hello
    _log = Logger()

    def __init__(self, factory: SubmissionFactory, address: str, port: int) -> None:
        super().__init__()
        self.factory = factory
        self.portal = factory.portal
        self.address = address
        self.client = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        self.name = queue_id(factory.acceptance.new_id()).lower()
        self.messages = 0
        self.draining = False
        self.delivery: Any = None  # an ISubmissionDelivery
        self._state = factory.first_state(address)
        self._helo = (b"", address.encode("ascii"))
        self._extended = False
        self._exchange: sasl.Exchange | None = None
        self._origin = NOBODY
        self._recipient = ""  # the one under consideration
        self._conduct = Conduct(factory.limits)
        self._begun_at = 0.0  # seconds since the epoch
        self._measured: tuple[float, int] | None = None  # when a slow sender began to be looked at, and the octets until then
        self._failed_logins = 0
        self._onLogout: Callable[[], object] | None = None

    def abandon(self) -> None:
        """Forget the transaction, if there is one."""
        raise NotImplementedError

    # connection

    def connectionMade(self) -> None:
        super().connectionMade()
        self._begun_at = self.seen
        self._tell(Connected, self.name, self.client, self.transport.getHost().port)
        refusal = self.factory.admit(self)
        if refusal is not None and self.factory.implicit_tls:
            self._turn_away(refusal)
            return
        if self.factory.implicit_tls and self.factory.tls is not None:
            self.secure(self.factory.tls)
            self._state |= SECURE
        if refusal is not None:
            self.bye(refusal)
        else:
            self.reply(self.factory.greeting_reply)
            self._flush()

    def _turn_away(self, refusal: Refusal) -> None:
        """Refuse without a word: the handshake would cost more than the word is worth, and whoever does not take part in it would stay."""
        self.refuse(refusal)
        self._replies.clear()
        self.closing = True
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = self.closing = True
        self.abandon()
        self.factory.leave(self)
        self._tell_untold()
        self._logout()
        self._tell(Disconnected, self.name, self.client, self.messages, printable(reason.getErrorMessage()))

    def tick(self) -> float:
        return self.factory.now

    def next_turn(self, call: Callable[[], None]) -> None:
        self.factory.clock.callLater(0, call)

    def expire(self, now: float, idle: float) -> None:
        """Part from a client that did nothing for `idle` seconds. What waits for us is not idle."""
        if self.closing:
            if now - self.seen > LINGER:
                self.transport.abortConnection()
        elif self.waiting:
            self._measured = None
        elif now - self.seen > idle:
            self.bye(reasons.IDLE.refusal(limit=f"{idle:.0f}"))
        elif not self._state & SENDER:
            if now - self._begun_at > self.factory.limits.login:
                self.bye(reasons.NO_LOGIN.refusal(limit=f"{self.factory.limits.login:.0f}"))
        elif self.takes_data:
            self._expect_progress(now)
        else:
            self._measured = None

    def _expect_progress(self, now: float) -> None:
        """Part from a client that sends its message more slowly than `minimum_rate`, on the average of RATE_WINDOW seconds."""
        if self._measured is None:
            self._measured = (now, self.received)
            return
        since, before = self._measured
        if now - since < RATE_WINDOW:
            return
        rate = self.factory.limits.minimum_rate
        if self.received - before < rate * (now - since):
            self.bye(reasons.TOO_SLOW.refusal(limit=str(rate)))
        self._measured = (now, self.received)

    @property
    def takes_data(self) -> bool:
        """Whether the client is sending a message."""
        raise NotImplementedError

    def drain(self) -> None:
        """The server stops: part now, or when the transaction under way is over."""
        self.draining = True
        if not self.busy:
            self.bye(reasons.SHUTTING_DOWN.refusal())

    @property
    def busy(self) -> bool:
        """Whether something is under way that deserves to be finished."""
        return not self.closing and (self._state & MAIL != 0 or self.waiting)

    def bye(self, refusal: Refusal) -> None:
        """Refuse, and close."""
        if not self.closing:
            self.refuse(refusal)
            self.close()

    # refusals

    def fault(self, failure: Failure) -> None:
        value = failure.value
        if isinstance(value, smtp.SMTPServerError):  # how another IMessageDelivery refuses
            reason = reasons.BAD_RECIPIENT if isinstance(value, smtp.SMTPBadRcpt) else reasons.ADDRESS_NOT_AUTHORIZED
            text = value.resp.decode("utf-8", "replace") if isinstance(value.resp, bytes) else value.resp
            value = Refusal(Reply(value.code, f"{value.code // 100}.0.0", text), reason.code)
        if not isinstance(value, Refusal):
            self._log.failure("fault in session {session}", failure=failure, session=self.name)
            value = reasons.LOCAL_FAULT.refusal()
        self.refuse(value)

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal, state it, count it."""
        told = self._conduct.refused(refusal.reply.code, stranger=not self._state & SENDER)
        reply, reference = self._referred(refusal.reply) if told else (refusal.reply, "")
        if not reply.text.isascii():  # UTF-8 in replies is for clients that asked for it, RFC 6531 §3.7.4; here none needs it
            reply = Reply(reply.code, reply.enhanced, reply.text.encode("ascii", "backslashreplace").decode("ascii"))
        self.reply(reply.wire())
        if told:
            said = str(refusal.reply)
            self._tell(Refused, self.name, self.client, self._user, self._origin.address, self._recipient, refusal.reason, said, reference)
        self._recipient = ""
        if reply.code != 421 and (limit := self._conduct.exceeded):
            self.bye(reasons.TOO_MANY_ERRORS.refusal(limit=str(limit)))

    def _tell_untold(self) -> None:
        """State how many refusals were not stated one by one."""
        if self._conduct.untold:
            self._tell(RefusedMore, self.name, self.client, self._user, self._conduct.untold)

    @property
    def _user(self) -> str:
        return self.delivery.name if self.delivery is not None else ""

    def _referred(self, reply: Reply) -> tuple[Reply, str]:
        """`reply` with a reference that `explain` takes, where mail is refused and not a way of speaking (RFC 3463 §3.6, X.5.X)."""
        if reply.code == 421 or reply.enhanced[1:4] in (".5.", ""):
            return reply, ""
        reference = queue_id(self.factory.acceptance.new_id())
        return Reply(reply.code, reply.enhanced, f"{reply.text} (ref {reference})"), reference

    # commands outside transactions

    def do_HELO(self, rest: bytes) -> None:
        self._greet(rest, extended=False)
        self.reply(self.factory.helo_reply)

    def do_EHLO(self, rest: bytes) -> None:
        self._greet(rest, extended=True)
        self.reply(self.factory.ehlo_reply(self))

    def _greet(self, rest: bytes, *, extended: bool) -> None:
        self._helo = (parse_hello(rest).encode("ascii"), self._helo[1])
        self._extended = extended
        self.abandon()
        self._state |= HELLO

    def ext_STARTTLS(self, rest: bytes) -> None:
        tls = self.factory.tls
        if tls is None or self.startedTLS:
            raise reasons.BAD_SEQUENCE.refusal(
                command="STARTTLS", cause="encryption is on already" if self.startedTLS else "it is not offered"
            )
        no_argument("STARTTLS", rest)
        self.reply(_BEGIN_TLS)
        self.secure(tls)
        self.abandon()  # what was known from the client is forgotten, RFC 3207 §4.2
        self._logout()
        self._state = self.factory.first_state(self.address) | SECURE
        self._helo = (b"", self._helo[1])
        self._extended = False

    @property
    def size_limit(self) -> int:
        """Octets that a message of this client may have: what is set for its user, once that is known."""
        size: int | None = self.delivery.message_size if self.delivery is not None else None
        return self.factory.limits.message_size if size is None else size

    @property
    def may_log_in(self) -> bool:
        """Whether AUTH is offered to this client now."""
        return self.startedTLS or self.factory.allows_clear_login(self.address)

    def _logout(self) -> None:
        if self._onLogout is not None:
            self._onLogout()
        self._onLogout = self.delivery = None

    # facts

    def _tell(self, event: Callable[..., Any], *facts: object) -> None:
        self.factory.events.state(event(self.factory.wall(), *facts))
