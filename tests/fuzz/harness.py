"""A session without a network, and an account of what it may do with any octets at all.

`hold` feeds a session octets, cut as told, and returns what it said, what it accepted and whether it closed. `judge` goes over the same
octets by itself, with nothing of ours but the replies, and finds: each command has one answer, in order; nothing of a message's data
was a command; what was accepted is what was sent; nothing of ours went wrong. Both raise AssertionError.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import tempfile
from pathlib import Path
from typing import Any

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.mail import smtp
from twisted.mail.interfaces import IMessageDelivery
from zope.interface import implementer

from smtpplus.accounts.passwords import Scram
from smtpplus.config import Configuration, Limits, Listen
from smtpplus.events import Events
from smtpplus.mail import reasons
from smtpplus.mail.envelope import Envelope
from smtpplus.submission.acceptance import Acceptance
from smtpplus.submission.credentials import ITrustedClient
from smtpplus.submission.listener import Dependencies, SubmissionFactory
from smtpplus.submission.scram import IProof, IVerifiers, pretended
from smtpplus.submission.sessions import Sessions

NOW = 1_800_000_000.0
LIMIT = 200_000  # octets of a message
TURNS = 10_000  # of the clock, at most, until a session has nothing more to do
_REPLY = re.compile(rb"(?:\d{3}-[^\r\n]*\r\n)*\d{3} [^\r\n]*\r\n")
_BDAT = re.compile(rb"BDAT [ \t]*([0-9]{1,20})(?:[ \t]+(?:LAST))?[ \t]*", re.IGNORECASE)
_LOCAL_FAULT = reasons.LOCAL_FAULT.reply().wire()[:9]


@implementer(IMessageDelivery)
class AnyDelivery:
    """Everybody may send everything to everybody; every second check takes its time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return later(self._clock, origin) if b"slow" in origin.addrstr else origin

    def validateTo(self, user: smtp.User) -> Any:
        return later(self._clock, bytes) if b"slow" in user.dest.addrstr else bytes

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: by fuzz"


def later(clock: Clock, result: Any) -> Deferred[Any]:
    """A Deferred that fires in the next turn."""
    done: Deferred[Any] = Deferred()
    clock.callLater(0.001, done.callback, result)
    return done


@implementer(IRealm, ICredentialsChecker, IVerifiers)
class AnyPortal:
    """Whoever says "right" is right."""

    credentialInterfaces = (IUsernamePassword, ITrustedClient, IProof)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def requestAvatarId(self, credentials: Any) -> Any:
        if ITrustedClient.providedBy(credentials) or getattr(credentials, "password", b"") == b"right":
            return later(self._clock, credentials.username)
        return later(self._clock, None).addCallback(lambda _: _wrong())

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return succeed((IMessageDelivery, AnyDelivery(self._clock), lambda: None))

    def verifier(self, name: str) -> Deferred[Scram]:
        return later(self._clock, pretended(b"key", name))


def _wrong() -> None:
    raise UnauthorizedLogin


class ListSpool:
    """Keeps what is committed, a turn later."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.kept: list[bytes] = []

    def accept(self, envelope: Envelope, content: bytes) -> Deferred[None]:
        return later(self._clock, None).addCallback(lambda _: self.kept.append(content))

    def begin(self, envelope_id: int) -> ListIntake:
        return ListIntake(self, self._clock)


class ListIntake:
    """A large message. Every write makes its client wait."""

    def __init__(self, spool: ListSpool, clock: Clock) -> None:
        self._spool, self._clock = spool, clock
        self._chunks: list[bytes] = []

    def write(self, octets: bytes) -> Deferred[None]:
        self._chunks.append(octets)
        return later(self._clock, None)

    def commit(self, envelope: Envelope) -> Deferred[None]:
        return self._spool.accept(envelope, b"".join(self._chunks))

    def abort(self) -> None:
        self._chunks.clear()


class Pipe:
    """The transport: what is written, and whether more is wanted."""

    disconnecting = False

    def __init__(self) -> None:
        self.written = bytearray()
        self.paused = False
        self.closed = False

    def write(self, octets: bytes) -> None:
        assert not self.closed, "written after the end"
        self.written += octets

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def loseConnection(self) -> None:
        self.closed = True

    abortConnection = loseConnection

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 25)


@attrs.frozen
class Outcome:
    """What became of a session."""

    replies: list[bytes]
    accepted: list[bytes]
    closed: bool


_STATE = Path(tempfile.gettempdir())


def hold(octets: bytes, cuts: list[int]) -> Outcome:
    """Feed `octets` in pieces of the lengths `cuts`, again from the first when they are used up; whole without any."""
    clock = Clock()
    clock.advance(NOW)
    portal = AnyPortal(clock)
    spool = ListSpool(clock)
    network = ipaddress.ip_network("192.0.2.1")
    listen = Listen(tls="none", auth_without_tls="always", trusted_networks=(network,), trusted_as="fuzz")
    limits = Limits(message_size=LIMIT, recipients=5, bad_commands=1_000_000, auth_failures_per_address=0)
    configuration = Configuration(hostname="mail.example.com", state_directory=_STATE, listen=(listen,), limits=limits)
    events = Events()
    new_id = itertools.count(1).__next__
    acceptance = Acceptance(configuration=configuration, events=events, spool=spool, new_id=new_id, now=clock.seconds)
    joined = Portal(portal, [portal])
    needs = Dependencies(configuration=configuration, events=events, portal=joined, spool=spool, new_id=new_id, tls=None, reactor=clock)
    factory = SubmissionFactory(needs, listen, Sessions(configuration, clock), acceptance)
    session, pipe = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)), Pipe()
    session.makeConnection(pipe)
    lengths = itertools.cycle(cuts or [len(octets) or 1])
    fed = 0
    for _ in range(TURNS + len(octets)):
        if fed < len(octets) and not pipe.paused and not pipe.closed:
            length = next(lengths)
            session.dataReceived(octets[fed : fed + length])
            fed += length
        elif clock.getDelayedCalls():
            clock.advance(0.001)
        else:
            break
    else:
        raise AssertionError("the session never comes to rest")
    assert pipe.closed or fed >= len(octets), "the session stopped reading for good"
    closed = pipe.closed
    session.connectionLost()
    assert acceptance.held == 0, "memory of the budget is lost"
    return Outcome(_replies(bytes(pipe.written)), spool.kept, closed)


def _replies(written: bytes) -> list[bytes]:
    replies = _REPLY.findall(written)
    assert b"".join(replies) == written, f"this is no sequence of replies: {written!r}"
    for reply in replies:
        assert not reply.startswith(_LOCAL_FAULT), "something of ours went wrong"
        assert len({line[:3] for line in reply.splitlines()}) == 1, reply
    return replies


def judge(octets: bytes, outcome: Outcome) -> None:
    """Whether the outcome is one that `octets` may have."""
    assert outcome.replies[0].startswith(b"220 ")
    account = _Account(octets, outcome)
    account.go_over()
    assert not account.replies, f"nobody asked for {account.replies[:3]}"
    assert not account.accepted, "more was accepted than was sent"
    if not outcome.closed:
        account.judge_rest()


class _Account:
    """The octets once more, by the replies alone. `at` is where the next command begins."""

    def __init__(self, octets: bytes, outcome: Outcome) -> None:
        self.octets = octets
        self.replies = outcome.replies[1:]
        self.accepted = list(outcome.accepted)
        self.at = 0
        self._chunks: list[bytes] = []

    def go_over(self) -> None:
        """Match commands and replies until one side has no more."""
        while self.replies and self._command():
            pass

    def judge_rest(self) -> None:
        """What was not answered: nothing that is whole."""
        line, end, rest = self.octets[self.at :].partition(b"\r\n")
        found = _BDAT.fullmatch(line)
        if found is not None and end:
            assert len(rest) < int(found[1]), "a chunk was not answered"
        else:
            assert not end, f"not answered: {line[:80]!r}"

    def _command(self) -> bool:
        """Take one command and its replies; whether there may be another."""
        reply = self.replies.pop(0)
        code = reply[:3]
        if code == b"421":
            return False
        end = self.octets.find(b"\r\n", self.at)
        if end < 0:  # a line is refused as soon as it cannot become a right one
            assert code == b"500", reply
            self.at = len(self.octets)
            return bool(self.replies)
        line, self.at = self.octets[self.at : end], end + 2
        verb = line.partition(b" ")[0].upper()
        found = _BDAT.fullmatch(line)
        if found is not None and code != b"500" and not (code == b"501" and b"decoded" in reply):
            self._chunk(int(found[1]), last=b"LAST" in line.upper(), accepted=code == b"250")
        elif code == b"354":
            assert verb == b"DATA", line
            return self._data()
        elif code == b"250" and verb in {b"RSET", b"EHLO", b"HELO"}:
            self._chunks.clear()
        elif code == b"221":
            assert verb == b"QUIT", line
            return False
        return True  # behind 334 the next line is the response, and has its own reply

    def _data(self) -> bool:
        """A message up to its end, and the answer to it."""
        end = self.octets.find(b"\r\n.\r\n", self.at - 2)
        if end < 0:
            assert not self.replies or self.replies[0].startswith(b"421"), f"answered before the end of data: {self.replies[0]!r}"
            self.replies.clear()
            self.at = len(self.octets)
            return False
        sent = self.octets[self.at - 2 : end + 2].replace(b"\r\n.", b"\r\n")[2:]
        self.at = end + 5
        reply = self.replies.pop(0)
        if reply.startswith(b"250"):
            lines = sent.replace(b"\r\n", b"")
            assert b"\n" not in lines and b"\r" not in lines, "a bare line end was accepted"
            _compare(sent, self.accepted.pop(0))
        else:
            assert reply[:1] in {b"4", b"5"}, reply
        return True

    def _chunk(self, size: int, *, last: bool, accepted: bool) -> None:
        """A chunk's octets are never commands, whatever is answered."""
        assert len(self.octets) - self.at >= size, "a chunk was answered before its end"
        self._chunks.append(self.octets[self.at : self.at + size])
        self.at += size
        if accepted and last:
            _compare(b"".join(self._chunks), self.accepted.pop(0))
        if last or not accepted:
            self._chunks.clear()


def _compare(sent: bytes, kept: bytes) -> None:
    """The body is what was sent, to the octet; the header is ours to complete."""
    begin = 2 if sent.startswith(b"\r\n") else sent.find(b"\r\n\r\n") + 4
    if begin == 3:
        return  # no body
    body = sent[begin:]
    assert kept.endswith(body), "the body is not what was sent"
    assert kept[: len(kept) - len(body)].endswith(b"\r\n\r\n"), "the body does not begin where it did"
    assert kept.startswith(b"Received: "), "no trace"


def check(data: bytes) -> None:
    """All of it for one input: a first octet that says how the rest is cut, and the octets."""
    if not data:
        return
    octets = data[1:]
    whole = hold(octets, [])
    judge(octets, whole)
    cut = hold(octets, [data[0] % 7 + 1, data[0] // 7 + 1] if len(octets) < 4096 else [data[0] * 37 + 1])
    assert [reply[:4] for reply in cut.replies] == [reply[:4] for reply in whole.replies], "the cuts make a difference"
    assert cut.accepted == whole.accepted, "the cuts make a difference to what is accepted"
