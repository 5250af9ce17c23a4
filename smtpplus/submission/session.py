"""The ESMTP session: what each command does in each state (RFC 5321 §4.1.4).

The state is a set of bits and the machine a table: for each verb what must be true, and what must not be. The names Twisted's ESMTP has
are kept (do_MAIL, ext_AUTH, portal, delivery), so that checker and delivery can be swapped by whoever knows it. Who the client is, is
the business of `admission`; mail from MAIL to its answer that of `reception`. Failure: a Refusal, caught in one place.
"""

from __future__ import annotations

from typing import Callable

from smtpplus.mail import reasons
from smtpplus.mail.reasons import Refusal
from smtpplus.submission.admission import HELLO, LOGGED_IN, MAIL, RCPT, SECURE, SENDER
from smtpplus.submission.command import no_argument, split
from smtpplus.submission.conduct import JUNK
from smtpplus.submission.framing import COMMAND_LIMIT, EXCHANGE_LIMIT
from smtpplus.submission.reception import CHUNKS, Reception, out_of_order

_FORGOTTEN = b"250 2.0.0 Transaction forgotten\r\n"
_NOTHING_DONE = b"250 2.0.0 Done\r\n"
_GOODBYE = b"221 2.0.0 Goodbye\r\n"
_NOT_VERIFIED = b"252 2.0.0 Addresses are not verified, but mail for them is taken\r\n"  # RFC 5321 §3.5.3
_HELP = b"214 2.0.0 EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\r\n"

_NOT_IMPLEMENTED = frozenset((b"EXPN", b"TURN", b"ETRN", b"SEND", b"SOML", b"SAML"))
_WEB = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH", b"PROXY"))
# browsers made to talk to us, and PROXY headers from where none is believed


class Session(Reception):
    """One client's session."""

    # order

    def step(self) -> bool:
        if self.draining and not self.busy:
            self.bye(reasons.SHUTTING_DOWN.refusal())
            return False
        try:
            if self._reading is not None:
                return self._reading()
            exchange = self._exchange
            line = self._framer.line(COMMAND_LIMIT if exchange is None else EXCHANGE_LIMIT)
            if line is None:
                return False
            if exchange is None:
                self._command(line)
            else:
                self._exchange = None  # unless it goes on
                self.proceed(exchange, line)
        except Refusal as refusal:
            self.give_up()  # a response that is no line ends its exchange, RFC 4954 §4
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
            raise out_of_order(verb, required & ~state, forbidden & state)
        if verb in JUNK and self._conduct.idles():
            self.bye(reasons.TOO_MANY_JUNK_COMMANDS.refusal(limit=str(self.factory.limits.junk_commands)))
            return
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


_RULES: dict[bytes, tuple[Callable[[Session, bytes], None], int, int]] = {  # verb: what runs, state it needs, state it forbids
    b"EHLO": (Session.do_EHLO, 0, 0),
    b"HELO": (Session.do_HELO, 0, 0),
    b"STARTTLS": (Session.ext_STARTTLS, 0, 0),
    b"AUTH": (Session.ext_AUTH, SECURE | HELLO, LOGGED_IN | MAIL),  # RFC 4954 §4
    b"MAIL": (Session.do_MAIL, SECURE | HELLO | SENDER, MAIL),
    b"RCPT": (Session.do_RCPT, SECURE | MAIL, CHUNKS),
    b"DATA": (Session.do_DATA, SECURE | MAIL | RCPT, CHUNKS),
    b"BDAT": (Session.do_BDAT, 0, 0),  # looks at the state itself: its octets must be read in any
    b"RSET": (Session.do_RSET, SECURE, 0),
    b"NOOP": (Session.do_NOOP, 0, 0),
    b"VRFY": (Session.do_VRFY, SECURE, 0),
    b"HELP": (Session.do_HELP, SECURE, 0),
    b"QUIT": (Session.do_QUIT, 0, 0),
}
