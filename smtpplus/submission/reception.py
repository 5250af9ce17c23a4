"""From MAIL to the answer to the message: the commands of a transaction, and the octets between them.

Message data is read to its end whatever is to be said about it, DATA to its final dot and BDAT by the number that it names, so that
nothing of it runs as a command. Whatever is waited for, the replies keep the order of the commands (see channel). A message is answered
when it is durable. Failure: a Refusal, caught in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from twisted.internet.defer import Deferred

from smtpplus.mail import priority, reasons
from smtpplus.mail.envelope import Recipient
from smtpplus.mail.reasons import Refusal
from smtpplus.mail.reply import Reply
from smtpplus.mail.transparency import Literal, Unstuffer
from smtpplus.submission.admission import HELLO, LOGGED_IN, MAIL, NOBODY, RCPT, SECURE, SENDER
from smtpplus.submission.authentication import Authentication
from smtpplus.submission.checker import Forward, Path
from smtpplus.submission.command import Chunk, no_argument, parse_bdat, parse_mail, parse_rcpt
from smtpplus.submission.parameters import NONE, MailParameters
from smtpplus.submission.transaction import Transaction

if TYPE_CHECKING:
    from smtpplus.submission.listener import SubmissionFactory

CHUNKS = 64  # state, see admission: a chunk of the transaction's message came

_MISSING: dict[int, tuple[reasons.Reason, str]] = {  # what is answered when a bit is not there, in this order
    SECURE: (reasons.TLS_REQUIRED, ""),
    HELLO: (reasons.BAD_SEQUENCE, "say EHLO first"),
    SENDER: (reasons.AUTH_REQUIRED, ""),
    MAIL: (reasons.BAD_SEQUENCE, "say MAIL first"),
    RCPT: (reasons.BAD_SEQUENCE, "no recipient was accepted yet"),
}
_PRESENT = {
    MAIL: "a transaction is under way",
    LOGGED_IN: "the session is logged in already",
    CHUNKS: "the message comes in chunks",  # RFC 3030 §2: DATA and BDAT exclude each other
}

_SENDER_ACCEPTED = b"250 2.1.0 Sender accepted\r\n"
_RECIPIENT_ACCEPTED = b"250 2.1.5 Recipient accepted\r\n"
_SEND_DATA = b"354 End data with <CR><LF>.<CR><LF>\r\n"


class Reception(Authentication):
    """One client's transactions, one after the other."""

    def __init__(self, factory: SubmissionFactory, address: str, port: int) -> None:
        super().__init__(factory, address, port)
        self._transaction: Transaction | None = None
        self._reading: Callable[[], bool] | None = None  # what takes the octets that are message data
        self._chunk: Chunk | None = None
        self._failed: Refusal | None = None  # a chunk was refused, and the client's last one is still to come
        self._begun = 0  # transactions

    @property
    def takes_data(self) -> bool:
        return self._reading is not None

    def do_MAIL(self, rest: bytes) -> None:
        if self.delivery is None:  # from a trusted network, and the first time: who is it?
            self.wait(self.trust(), lambda _: self.do_MAIL(rest))
            return
        if self.factory.full():
            raise reasons.STORAGE_FAULT.refusal()
        sender, parameters = parse_mail(rest)
        self._origin = origin = Path(sender)
        limit = self.size_limit
        if parameters.size > limit:
            raise reasons.TOO_LARGE.refusal(limit=str(limit))
        most = self.factory.limits.messages_per_connection
        if most and self._begun >= most:
            raise reasons.TOO_MANY_MESSAGES.refusal(limit=str(most))
        if parameters is not NONE:
            parameters = self.factory.offer.settle(parameters, secure=self.startedTLS, now=self.factory.wall())
        valid = self.delivery.validateFrom(self._helo, origin)
        if isinstance(valid, Deferred):
            self.wait(valid, lambda _: self._begin(origin, parameters))
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
        self._failed = None
        self._begun += 1
        self._state |= MAIL
        self.reply(_SENDER_ACCEPTED if parameters.priority is None else self._prioritized(parameters.priority))

    def _prioritized(self, asked: int) -> bytes:
        """The answer to MAIL with MT-PRIORITY: what became of it (RFC 6710 §4.1)."""
        level = priority.effective(self.delivery.level, priority.mt_level(asked), self.delivery.ceiling)
        if level == priority.mt_level(asked):
            return _SENDER_ACCEPTED
        return b"250 2.3.6 %d is the priority that the message gets\r\n" % priority.mt_priority(level)

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
            self.wait(valid, lambda _: self._add(recipient))
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
        self._transaction.begin_data(Unstuffer(), self._trace)
        self._reading = self._data
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

    def do_BDAT(self, rest: bytes) -> None:
        """A chunk follows, and is read whatever is to be said about it (RFC 3030 §2)."""
        try:
            chunk = parse_bdat(rest)
        except Refusal as refusal:
            self.refuse(refusal)
            self.bye(reasons.OUT_OF_STEP.refusal())
            return
        missing = (SECURE | MAIL | RCPT) & ~self._state
        if missing:
            chunk.refusal = self._failed or out_of_order(b"BDAT", missing, 0)
        elif not self._state & CHUNKS:
            assert self._transaction is not None
            self._transaction.begin_data(Literal(), self._trace)
            self._state |= CHUNKS
        self._chunk = chunk
        self._reading = self._chunk_data

    def _chunk_data(self) -> bool:
        """Hand on what was read of a chunk; behind its last octet, and not before nothing is to be waited for, answer it."""
        chunk, transaction = self._chunk, self._transaction
        assert chunk is not None
        if not chunk.left:
            self._chunk = self._reading = None
            self._end_of_chunk(chunk, transaction)
            return True
        data = self._framer.take(chunk.left)
        if not data:
            return False
        chunk.left -= len(data)
        if chunk.refusal is None and transaction is not None:
            pause = transaction.feed(data)
            if pause is not None:
                self.wait(pause)
        return True

    def _end_of_chunk(self, chunk: Chunk, transaction: Transaction | None) -> None:
        if chunk.refusal is not None or transaction is None:
            self._refuse_chunk(chunk)
        elif chunk.last:
            pause = transaction.finish()
            if pause is None:
                self._end_of_data(transaction)
            else:
                self.wait(pause, lambda _: self._end_of_data(transaction))
        elif transaction.refusal is not None:
            self.abandon()
            self._failed = transaction.refusal
            raise transaction.refusal
        else:
            self.reply(b"250 2.0.0 %d octets taken\r\n" % chunk.size)

    def _refuse_chunk(self, chunk: Chunk) -> None:
        """A chunk that was read for nothing. Those behind one that failed fail with it, up to the last, and it is no new mistake."""
        failed = self._failed
        if failed is None:
            assert chunk.refusal is not None
            raise chunk.refusal
        if chunk.last:
            self._failed = None
        text = failed.reply.text.encode("ascii", "backslashreplace").decode("ascii")
        self.reply(Reply(failed.reply.code, failed.reply.enhanced, text).wire())

    def _end_of_data(self, transaction: Transaction) -> None:
        """The end of data came, and nothing is to be waited for: on to the spool, or the refusal that was kept back."""
        self._transaction = None
        self._reading = None
        self._state &= ~(MAIL | RCPT | CHUNKS)
        self.wait(transaction.end(), self._accepted, transaction)

    def _accepted(self, _: object, transaction: Transaction) -> None:
        """The message is durable: only now is it ours (RFC 5321 §4.2.5)."""
        self.messages += 1
        self._tell_untold()
        self._conduct.forgive()
        self._origin = NOBODY
        self.reply(transaction.thanks)

    def abandon(self) -> None:
        """Forget the transaction, if there is one."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()
        self._reading = self._chunk = self._failed = None
        self._state &= ~(MAIL | RCPT | CHUNKS)
        self._origin = NOBODY

    @property
    def protocol_name(self) -> str:
        """The `with` of the Received field: RFC 3848, RFC 6531 §4.3."""
        utf8 = self._transaction is not None and self._transaction.parameters.smtputf8
        if not (self._extended or self.startedTLS or self._state & LOGGED_IN):
            return "SMTP"
        name = "UTF8SMTP" if utf8 else "ESMTP"
        return f"{name}{'S' if self.startedTLS else ''}{'A' if self._state & LOGGED_IN else ''}"


def out_of_order(verb: bytes, missing: int, present: int) -> Refusal:
    """The refusal for a state that a command cannot have."""
    command = verb.decode("ascii")
    for bit, (reason, cause) in _MISSING.items():
        if missing & bit:
            return reason.refusal(command=command, cause=cause)
    return reasons.BAD_SEQUENCE.refusal(command=command, cause=_PRESENT[present & -present])
