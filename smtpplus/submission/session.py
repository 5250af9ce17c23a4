"""The ESMTP session: what each command does in each state (RFC 5321 §4.1.4).

The state is a set of bits and the machine a table: for each verb what must be true, and what must not be. The names Twisted's ESMTP has
are kept (do_MAIL, ext_AUTH, portal, delivery), so that checker and delivery can be swapped by whoever knows it. Who the client is, is
the business of `admission`; mail from MAIL to the end of data that of `transaction`. Failure: a Refusal, caught in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from twisted.internet.defer import Deferred

from smtpplus.mail import reasons
from smtpplus.mail.envelope import Recipient
from smtpplus.mail.reasons import Refusal
from smtpplus.submission import sasl
from smtpplus.submission.admission import HELLO, LOGGED_IN, MAIL, NOBODY, RCPT, SECURE, SENDER, Admission
from smtpplus.submission.checker import Forward, Path
from smtpplus.submission.command import MailParameters, no_argument, parse_mail, parse_rcpt, split
from smtpplus.submission.framing import COMMAND_LIMIT, EXCHANGE_LIMIT
from smtpplus.submission.transaction import Transaction

if TYPE_CHECKING:
    from smtpplus.submission.listener import SubmissionFactory

_MISSING: dict[int, tuple[reasons.Reason, str]] = {  # what is answered when a bit is not there, in this order
    SECURE: (reasons.TLS_REQUIRED, ""),
    HELLO: (reasons.BAD_SEQUENCE, "say EHLO first"),
    SENDER: (reasons.AUTH_REQUIRED, ""),
    MAIL: (reasons.BAD_SEQUENCE, "say MAIL first"),
    RCPT: (reasons.BAD_SEQUENCE, "no recipient was accepted yet"),
}
_PRESENT = {MAIL: "a transaction is under way", LOGGED_IN: "the session is logged in already"}

_SENDER_ACCEPTED = b"250 2.1.0 Sender accepted\r\n"
_RECIPIENT_ACCEPTED = b"250 2.1.5 Recipient accepted\r\n"
_SEND_DATA = b"354 End data with <CR><LF>.<CR><LF>\r\n"
_FORGOTTEN = b"250 2.0.0 Transaction forgotten\r\n"
_NOTHING_DONE = b"250 2.0.0 Done\r\n"
_GOODBYE = b"221 2.0.0 Goodbye\r\n"
_NOT_VERIFIED = b"252 2.0.0 Addresses are not verified, but mail for them is taken\r\n"  # RFC 5321 §3.5.3
_HELP = b"214 2.0.0 EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP VRFY HELP QUIT\r\n"

_NOT_IMPLEMENTED = frozenset((b"EXPN", b"TURN", b"ETRN", b"SEND", b"SOML", b"SAML", b"BDAT"))
_WEB = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH"))  # a browser made to talk to us


class Session(Admission):
    """One client's session."""

    def __init__(self, factory: SubmissionFactory, address: str, port: int) -> None:
        super().__init__(factory, address, port)
        self._transaction: Transaction | None = None
        self._reading_data = False

    # order

    def step(self) -> bool:
        if self.draining and not self.busy:
            self.bye(reasons.SHUTTING_DOWN.refusal())
            return False
        try:
            if self._reading_data:
                return self._data()
            exchange = self._exchange
            line = self._framer.line(COMMAND_LIMIT if exchange is None else EXCHANGE_LIMIT)
            if line is None:
                return False
            if exchange is None:
                self._command(line)
            else:
                self._exchange = None  # unless it goes on
                self._respond(exchange, sasl.decode(line))
        except Refusal as refusal:
            self.refuse(refusal)
        return True

    def _command(self, line: bytes) -> None:
        """Look up the verb and run it if the state allows."""
        verb, argument = split(line)
        rule = _RULES.get(verb)
        if rule is None:
            self._unknown(verb)
            return
        run, required, forbidden = rule
        state = self._state
        if required & ~state or forbidden & state:
            raise _out_of_order(verb, required & ~state, forbidden & state)
        run(self, argument)

    def _unknown(self, verb: bytes) -> None:
        if not verb:
            raise reasons.SYNTAX.refusal(cause="the line is empty")
        if verb in _NOT_IMPLEMENTED:
            raise reasons.COMMAND_NOT_IMPLEMENTED.refusal(command=verb.decode("ascii"))
        self.refuse(reasons.UNKNOWN_COMMAND.refusal())
        if verb in _WEB:
            self.close()

    # commands that are always the same

    def do_NOOP(self, rest: bytes) -> None:
        self.reply(_NOTHING_DONE)

    def do_VRFY(self, rest: bytes) -> None:
        if not rest.strip():
            raise reasons.BAD_ARGUMENT.refusal(command="VRFY", cause="the address is missing")
        self.reply(_NOT_VERIFIED)

    def do_HELP(self, rest: bytes) -> None:
        self.reply(_HELP)

    def do_RSET(self, rest: bytes) -> None:
        no_argument("RSET", rest)
        self.abandon()
        self.reply(_FORGOTTEN)

    def do_QUIT(self, rest: bytes) -> None:
        self.reply(_GOODBYE)
        self.close()

    # the transaction

    def do_MAIL(self, rest: bytes) -> None:
        if self.delivery is None:  # from a trusted network, and the first time: who is it?
            self.wait(self.trust().addCallback(lambda _: self.do_MAIL(rest)))
            return
        sender, parameters = parse_mail(rest)
        self._origin = origin = Path(sender)
        limit = self.size_limit
        if parameters.size > limit:
            raise reasons.TOO_LARGE.refusal(limit=str(limit))
        valid = self.delivery.validateFrom(self._helo, origin)
        if isinstance(valid, Deferred):
            self.wait(valid.addCallback(lambda _: self._begin(origin, parameters)))
        else:
            self._begin(origin, parameters)

    def _begin(self, origin: Path, parameters: MailParameters) -> None:
        transaction = Transaction(
            self.factory.acceptance,
            self.delivery,
            sender=origin.address,
            parameters=parameters,
            limit=self.size_limit,
            session=self.name,
            client=self.client,
        )
        origin.identity = transaction.identity
        self._transaction = transaction
        self._state |= MAIL
        self.reply(_SENDER_ACCEPTED)

    def do_RCPT(self, rest: bytes) -> None:
        transaction = self._transaction
        assert transaction is not None  # the table asks for MAIL
        recipient = parse_rcpt(rest, smtputf8=transaction.parameters.smtputf8)
        self._recipient = recipient.address
        limit = self.factory.limits.recipients
        if len(transaction.recipients) >= limit:
            raise reasons.TOO_MANY_RECIPIENTS.refusal(limit=str(limit))
        if "@" not in recipient.address:  # <postmaster>
            recipient = Recipient(f"{recipient.address}@{self.factory.hostname}", recipient.notify, recipient.orcpt)
        valid = self.delivery.validateTo(Forward(recipient.address, self._helo, self, self._origin))
        if isinstance(valid, Deferred):
            self.wait(valid.addCallback(lambda _: self._add(recipient)))
        else:
            self._add(recipient)

    def _add(self, recipient: Recipient) -> None:
        if self._transaction is not None:
            self._transaction.recipients.setdefault(recipient.address, recipient)
            self._state |= RCPT
            self._recipient = ""
            self.reply(_RECIPIENT_ACCEPTED)

    def do_DATA(self, rest: bytes) -> None:
        no_argument("DATA", rest)
        assert self._transaction is not None  # the table asks for MAIL
        self._transaction.begin_data(self._trace)
        self._reading_data = True
        self.reply(_SEND_DATA)

    def _trace(self) -> bytes:
        """The delivery's Received field, with CRLF line ends."""
        field: bytes | None = self.delivery.receivedHeader(self._helo, self._origin, [])
        return b"\r\n".join(field.splitlines()) + b"\r\n" if field else b""

    def _data(self) -> bool:
        """Hand on what was read; nothing here looks at it."""
        transaction = self._transaction
        assert transaction is not None
        if transaction.finished:
            self._end_of_data(transaction)
            return True
        data = self._framer.take()
        if not data:
            return False
        pause = transaction.feed(data)
        if rest := transaction.rest:
            self._framer.feed(rest)
        if pause is not None:
            self.wait(pause)
        return True

    def _end_of_data(self, transaction: Transaction) -> None:
        """The final dot came, and nothing is to be waited for: on to the spool, or the refusal that was kept back."""
        self._transaction = None
        self._reading_data = False
        self._state &= ~(MAIL | RCPT)
        self.wait(transaction.end().addCallback(self._accepted, transaction.identity))

    def _accepted(self, _: object, identity: str) -> None:
        """The message is durable: only now is it ours (RFC 5321 §4.2.5)."""
        self.messages += 1
        self._mistakes = 0
        self._origin = NOBODY
        self.reply(b"250 2.0.0 queued as %s\r\n" % identity.encode("ascii"))

    def abandon(self) -> None:
        """Forget the transaction, if there is one."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()
        self._reading_data = False
        self._state &= ~(MAIL | RCPT)
        self._origin = NOBODY

    @property
    def protocol_name(self) -> str:
        """The `with` of the Received field: RFC 3848, RFC 6531 §4.3."""
        utf8 = self._transaction is not None and self._transaction.parameters.smtputf8
        if not (self._extended or self.startedTLS or self._state & LOGGED_IN):
            return "SMTP"
        name = "UTF8SMTP" if utf8 else "ESMTP"
        return f"{name}{'S' if self.startedTLS else ''}{'A' if self._state & LOGGED_IN else ''}"


_RULES: dict[bytes, tuple[Callable[[Session, bytes], None], int, int]] = {  # verb: what runs, state it needs, state it forbids
    b"EHLO": (Session.do_EHLO, 0, 0),
    b"HELO": (Session.do_HELO, 0, 0),
    b"STARTTLS": (Session.ext_STARTTLS, 0, 0),
    b"AUTH": (Session.ext_AUTH, SECURE | HELLO, LOGGED_IN | MAIL),  # RFC 4954 §4
    b"MAIL": (Session.do_MAIL, SECURE | HELLO | SENDER, MAIL),
    b"RCPT": (Session.do_RCPT, SECURE | MAIL, 0),
    b"DATA": (Session.do_DATA, SECURE | MAIL | RCPT, 0),
    b"RSET": (Session.do_RSET, SECURE, 0),
    b"NOOP": (Session.do_NOOP, 0, 0),
    b"VRFY": (Session.do_VRFY, SECURE, 0),
    b"HELP": (Session.do_HELP, SECURE, 0),
    b"QUIT": (Session.do_QUIT, 0, 0),
}


def _out_of_order(verb: bytes, missing: int, present: int) -> Refusal:
    """The refusal for a state that a command cannot have."""
    command = verb.decode("ascii")
    for bit, (reason, cause) in _MISSING.items():
        if missing & bit:
            return reason.refusal(command=command, cause=cause)
    return reasons.BAD_SEQUENCE.refusal(command=command, cause=_PRESENT[present & -present])
