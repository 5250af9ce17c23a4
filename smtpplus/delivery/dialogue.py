"""The client's side of an SMTP session without any I/O: octets of the peer in, octets for the peer and a `Step` out.

The driver passes what it reads to `receive`, writes what `take` gives, and does what the step says:

    WAIT       nothing but wait for more, at most `patience` seconds
    START_TLS  begin TLS, then call `secured`
    READY      the session is open: call `begin` for a transaction, or `quit`
    CONTENT    send the message data, then call `content_sent` together with the final dot, or with each chunk (BDAT)
    DONE       the transaction is over: `replies` has a verdict per recipient; `closing` says whether the session is unusable
    BROKEN     the session is over and must be cut; `fault` says why; recipients without a reply in `replies` have none
    CLOSED     the peer said goodbye

A reply is looked up in `_ON` by what it answers; how the two find each other is delivery.exchange.
"""

from __future__ import annotations

import os
import re
from typing import Callable, ClassVar

from smtpplus.delivery.exchange import Exchange
from smtpplus.delivery.fault import answered
from smtpplus.delivery.login import REPEATED, Login, LoginFault
from smtpplus.delivery.replies import Malformed
from smtpplus.delivery.terms import Awaited, Proposal, Step, Terms
from smtpplus.mail import reasons
from smtpplus.mail.reply import Reply, from_peer

OFFER_KEPT = 512  # octets of a line that offers an extension, RFC 5321 §4.5.3.1.5
RECIPIENTS = 100  # proposed at a time to a peer that does not say how many it takes: every one takes as many, RFC 5321 §4.5.3.1.8
_GO_ON = frozenset((Awaited.AUTH, Awaited.DATA, Awaited.QUIT))  # what 3xx may answer; anything may answer QUIT
_LIMITS = re.compile(r"\b(MAILMAX|RCPTMAX|RCPTDOMAINMAX)=([1-9][0-9]{0,5})\b").findall  # RFC 9422 §4


class Dialogue(Exchange):
    """One session."""

    def __init__(self, terms: Terms, random: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__()
        self._terms = terms
        self._random = random  # octets, for SCRAM
        self._login: Login | None = None
        self._accepted = 0  # recipients the peer took so far, and that are not decided
        self._rcpt = 0  # RCPT commands answered so far
        self._open = False  # the peer knows a sender: RSET before the next MAIL
        self._sending = False  # message data is on its way, without its end
        self._chunked = False  # it goes by BDAT
        self.secure = terms.secure
        self.extensions: dict[str, str] = {}  # keyword → parameters, upper case keywords; RFC 5321 §4.1.1.1
        self.pipelining = False
        self.size_limit = 0  # octets the peer takes in a message; 0: it does not say
        self.mail_limit = 0  # transactions the peer takes in a session; 0: it does not say
        self.recipient_limit = RECIPIENTS  # in a transaction
        self.domain_limit = 0  # different ones of a transaction's recipients; 0: it does not say
        self.taken = 0  # recipients of the transaction that the peer took, whatever it said of the message
        self.refusal: Reply | None = None  # of the transaction's message, rather than of a recipient
        self.unwilling = False  # the peer took the session, and then wanted no mail now, whosever it is
        self.replies: list[Reply | None] = []  # per recipient of the transaction; None: not decided

    # --- what the driver calls ------------------------------------------------------------------------------------------------

    def secured(self) -> None:
        """TLS stands: start anew, for nothing learned before it counts (RFC 3207 §4.2)."""
        self.secure = True
        if not self._awaited:
            self.extensions = {}
            self._send(Awaited.EHLO, f"EHLO {self._terms.hostname}")

    def begin(self, proposal: Proposal) -> None:
        """Begin a transaction: MAIL, RCPT for each address, DATA or then BDAT. ValueError for an address that holds a line end."""
        addresses = proposal.addresses
        commands = [f"MAIL FROM:<{proposal.sender}>{proposal.mail}\r\n"]
        if proposal.rcpt:
            commands += [f"RCPT TO:<{address}>{rest}\r\n" for address, rest in zip(addresses, proposal.rcpt, strict=True)]
        else:
            commands += [f"RCPT TO:<{address}>\r\n" for address in addresses]
        awaited = [Awaited.MAIL, *[Awaited.RCPT] * len(addresses)]
        if not proposal.chunked:
            commands.append("DATA\r\n")
            awaited.append(Awaited.DATA)
        if self._open:
            commands.insert(0, "RSET\r\n")
            awaited.insert(0, Awaited.RSET)
        text = "".join(commands)
        if text.count("\n") != len(commands) or text.count("\r") != len(commands):
            raise ValueError("an address holds a line end")
        self.replies = [None] * len(addresses)
        self._accepted = self._rcpt = self.taken = 0
        self.refusal = None
        self._chunked = proposal.chunked
        if self.pipelining:  # RFC 2920 §3.1
            self._awaited.extend(awaited)
            self._out = text.encode()
        else:
            self._unsent.extend(zip(awaited, (command.encode() for command in commands), strict=True))
            self._proceed()

    def content_sent(self, last: bool = True) -> None:
        """The message data and its final dot are with the transport; in a chunked transaction a chunk, the `last` or not."""
        if self._chunked:
            self._awaited.append(Awaited.FINAL if last else Awaited.CHUNK)
        self._sending = not last

    def quit(self) -> None:
        """End the session. Only between transactions."""
        self._send(Awaited.QUIT, "QUIT")

    # --- what any reply may be ------------------------------------------------------------------------------------------------

    def _answer(self, awaited: Awaited, code: int, lines: list[bytes]) -> Step:
        if code == 421 and awaited is not Awaited.QUIT:  # RFC 5321 §3.8: may answer anything
            reply = from_peer(code, lines)
            return self._goodbye(self._login.shown(reply) if self._login is not None else reply)
        if 300 <= code < 400 and awaited not in _GO_ON:  # neither yes nor no
            return self._breach(f"it answers {awaited.words} with {code}")
        return self._ON[awaited](self, code, lines)

    def _malformed(self, fault: Malformed) -> Step:
        """Behind the final dot what begins as a verdict is one, though it has no end: not to believe it would send the message again."""
        if not fault.code or self._sending or not self._awaited or self._awaited[0] is not Awaited.FINAL:
            return self._breach(REPEATED) if self._login is not None and self._login.is_in(str(fault)) else super()._malformed(fault)
        self.closing = True
        return self._answer(self._awaited.popleft(), fault.code, [b"(" + str(fault).encode() + b")"])

    def _refused(self, code: int, lines: list[bytes]) -> Step:
        """The peer will not have the session."""
        self.fault = answered(from_peer(code, lines))
        return Step.BROKEN

    def _goodbye(self, reply: Reply) -> Step:
        """The peer closes: who is not decided yet hears 421."""
        if None in self.replies:
            self.unwilling = True
            self.closing = True
            return self._decide(reply)
        self.fault = answered(reply)
        return Step.BROKEN

    # --- opening the session --------------------------------------------------------------------------------------------------

    def _on_greeting(self, code: int, lines: list[bytes]) -> Step:
        return self._send(Awaited.EHLO, f"EHLO {self._terms.hostname}") if code < 300 else self._refused(code, lines)

    def _on_ehlo(self, code: int, lines: list[bytes]) -> Step:
        if code >= 500:  # RFC 5321 §3.2: a peer that does not know it
            return self._send(Awaited.HELO, f"HELO {self._terms.hostname}")
        if code >= 300:
            return self._refused(code, lines)
        for line in lines[1:]:
            keyword, _, parameters = line[:OFFER_KEPT].decode("ascii", "replace").replace("AUTH=", "AUTH ", 1).partition(" ")
            self.extensions[keyword.upper()] = parameters
        return self._choose_tls()

    def _on_helo(self, code: int, lines: list[bytes]) -> Step:
        return self._choose_tls() if code < 300 else self._refused(code, lines)

    def _choose_tls(self) -> Step:
        self.pipelining = "PIPELINING" in self.extensions
        limit = self.extensions.get("SIZE", "")
        self.size_limit = int(limit) if limit.isdecimal() and len(limit) <= 20 else 0  # RFC 1870 §3
        found = {name: int(number) for name, number in _LIMITS(self.extensions.get("LIMITS", "").upper())}
        self.mail_limit = found.get("MAILMAX", 0)
        self.recipient_limit = found.get("RCPTMAX", RECIPIENTS)
        self.domain_limit = found.get("RCPTDOMAINMAX", 0)
        if self.secure or self._terms.tls == "none":
            return self._log_in()
        if "STARTTLS" in self.extensions:
            return self._send(Awaited.STARTTLS, "STARTTLS")
        return self._break(reasons.TLS_UNAVAILABLE, "STARTTLS is not offered") if self._terms.insists else self._log_in()

    def _on_starttls(self, code: int, lines: list[bytes]) -> Step:
        if code < 300:
            return Step.START_TLS
        return self._break(reasons.TLS_UNAVAILABLE, str(from_peer(code, lines))) if self._terms.insists else self._log_in()

    def _log_in(self) -> Step:
        if self._terms.credentials is None:
            return Step.READY
        self._login = Login(self._terms.credentials, self.extensions.get("AUTH", ""), self._random)
        return self._try_login(0, "it offers none of SCRAM-SHA-256, PLAIN and LOGIN")

    def _try_login(self, code: int, cause: str) -> Step:
        """Begin with the next mechanism; without one, the last one's refusal is the end."""
        assert self._login is not None
        command = self._login.next(code)
        return self._break(reasons.PEER_LOGIN_FAILED, cause) if command is None else self._send(Awaited.AUTH, command)

    def _on_auth(self, code: int, lines: list[bytes]) -> Step:
        login = self._login
        assert login is not None
        assert login.exchange is not None
        if code < 300:
            if login.exchange.proved():
                return Step.READY
            return self._break(reasons.PEER_LOGIN_FAILED, "it did not prove that it knows the password")
        if code >= 400:
            return self._try_login(code, str(login.shown(from_peer(code, lines))))
        try:
            return self._send(Awaited.AUTH, login.respond(lines[0].strip().decode("ascii", "replace")))
        except LoginFault as fault:
            return self._break(reasons.PEER_LOGIN_FAILED, str(fault))

    # --- a transaction --------------------------------------------------------------------------------------------------------

    def _proceed(self) -> Step:
        """The next command that waits for its turn; without one, and with nothing awaited, the transaction is over."""
        if self._awaited:
            return Step.WAIT
        if not self._unsent:
            if not (self._chunked and self._accepted):
                return Step.DONE
            self._sending = True
            return Step.CONTENT
        awaited, command = self._unsent.popleft()
        self._awaited.append(awaited)
        self._out = command
        return Step.WAIT

    def _decide(self, reply: Reply) -> Step:
        """All recipients that are not decided hear `reply`; no command is sent any more."""
        self.replies = [each or reply for each in self.replies]
        if reply.code >= 400 and (self._accepted or not self._rcpt or reply.code == 421):  # not for want of recipients
            self.refusal = self.refusal or reply
        self._accepted = 0
        self._unsent.clear()
        return Step.DONE

    def _on_rset(self, code: int, lines: list[bytes]) -> Step:
        self._open = False
        return self._proceed() if code < 300 else self._breach("it refuses RSET")

    def _on_mail(self, code: int, lines: list[bytes]) -> Step:
        if code >= 400:
            self.unwilling = code < 500
            self._decide(from_peer(code, lines))
        else:
            self._open = True
        return self._proceed()

    def _on_rcpt(self, code: int, lines: list[bytes]) -> Step:
        number, self._rcpt = self._rcpt, self._rcpt + 1
        if self.replies[number] is None:
            if code < 300:
                self._accepted += 1
                self.taken += 1
            else:
                self.replies[number] = _of_recipient(from_peer(code, lines))
        if self._rcpt == len(self.replies) and not self._accepted:
            self._unsent.clear()  # no DATA
        return self._proceed()

    def _on_data(self, code: int, lines: list[bytes]) -> Step:
        if code >= 400:
            return self._decide(from_peer(code, lines))
        if code < 300:
            return self._breach(f"it answers DATA with {code}")
        self._awaited.append(Awaited.FINAL)
        if not self._accepted:  # RFC 2920 §3.1: nobody to send to, but the peer wants data
            self._out = b".\r\n"
            return Step.WAIT
        self._sending = True
        return Step.CONTENT

    def _on_chunk(self, code: int, lines: list[bytes]) -> Step:
        if code < 300:
            return Step.WAIT
        self.closing = True  # what is on its way is of no use to anybody
        return self._decide(from_peer(code, lines))

    def _on_final(self, code: int, lines: list[bytes]) -> Step:
        self._open = False
        if self._sending:
            if code < 400:
                return self._breach(f"it answers {code} in the middle of the data")
            self.closing = True  # the rest of the data would be read as commands
        return self._decide(from_peer(code, lines))

    def _on_quit(self, code: int, lines: list[bytes]) -> Step:
        return Step.CLOSED

    def _on_nothing(self, code: int, lines: list[bytes]) -> Step:
        return self._breach("it answers what was not asked")

    _ON: ClassVar[dict[Awaited, Callable[[Dialogue, int, list[bytes]], Step]]] = {
        Awaited.GREETING: _on_greeting,
        Awaited.EHLO: _on_ehlo,
        Awaited.HELO: _on_helo,
        Awaited.STARTTLS: _on_starttls,
        Awaited.AUTH: _on_auth,
        Awaited.RSET: _on_rset,
        Awaited.MAIL: _on_mail,
        Awaited.RCPT: _on_rcpt,
        Awaited.DATA: _on_data,
        Awaited.CHUNK: _on_chunk,
        Awaited.FINAL: _on_final,
        Awaited.QUIT: _on_quit,
        Awaited.NOTHING: _on_nothing,
    }


def _of_recipient(reply: Reply) -> Reply:
    """A refusal of a recipient; 552 for too many of them is to be read as 452 (RFC 5321 §4.5.3.1.10)."""
    if reply.code != 552 or reply.enhanced not in ("", "5.5.3"):
        return reply
    return Reply(452, reply.enhanced.replace("5.5.3", "4.5.3"), reply.text)


def is_too_many(reply: Reply | None) -> bool:
    """Whether a recipient was refused for those before it."""
    return reply is not None and reply.code == 452 and reply.enhanced in ("", "4.5.3")
