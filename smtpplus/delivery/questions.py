"""Questions to name servers, over UDP and, where an answer is cut short, over TCP (RFC 1035 §4.2).

`Names` is Twisted's resolver with its own ways to the servers: what cannot be asked fails that one question, and never hangs those
after it; an answer counts only from whom was asked, to what was asked. Each question has a socket of its own, whose port is as hard to
guess as its number, and none of them is told in the log. So many questions are under way at most; the others wait for their turn, those
for urgent mail in front.
"""

from __future__ import annotations

import heapq
import socket
from typing import Any, Callable, Coroutine, Sequence, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IAddress, IConnector, IReadDescriptor
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.names import dns
from twisted.names.client import Resolver as NamesResolver
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

AT_ONCE = 400  # questions under way, each with a file descriptor, of which a process has 1,024 at least as a rule; ours
LARGEST = 65_535  # octets of an answer
TCP_PATIENCE = 10.0  # seconds for a connection and the answer on it, ours
LEAST = 5  # the level of a question of which nobody said that it is for more urgent mail

Key = tuple[str, int]  # name and type that are asked for


class Unasked(OSError):
    """No server could be asked, or none gave a whole answer."""


class Turns:
    """So many questions at once; of those that wait the most urgent is next, of equal ones the first that came."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._levels: dict[Key, int] = {}
        self._waiting: list[tuple[int, int, Key, Deferred[None]]] = []  # a heap; of one question the first item counts
        self._came = 0

    def hurry(self, key: Key, level: int) -> None:
        """What is asked under `key` is for mail of that level, from now on until `over`."""
        if level < self._levels.get(key, LEAST):
            self._levels[key] = level
            for _, came, other, turn in [each for each in self._waiting if each[2] == key]:
                heapq.heappush(self._waiting, (level, came, other, turn))

    def over(self, key: Key) -> None:
        """It is answered."""
        self._levels.pop(key, None)

    async def take(self, key: Key, question: Callable[[], Coroutine[Deferred[Any], Any, dns.Message]]) -> dns.Message:
        """Ask when its turn has come."""
        if not self._free:
            turn: Deferred[None] = Deferred()
            self._came += 1
            heapq.heappush(self._waiting, (self._levels.get(key, LEAST), self._came, key, turn))
            await turn
        else:
            self._free -= 1
        try:
            return await question()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[3]
            if not turn.called:
                turn.callback(None)
                return
        self._free += 1


class Names(NamesResolver):
    """Asks the servers in their order, round after round, until one answers."""

    def __init__(self, *, resolv: str | None, servers: Sequence[tuple[str, int]], timeout: tuple[int, ...], reactor: Any) -> None:
        init: Any = super().__init__  # Twisted does not type it
        init(resolv=resolv, servers=list(servers), timeout=timeout, reactor=reactor)
        self._rounds = timeout  # seconds to wait in each
        self.connections: list[_Stream] = []
        self.turns = Turns(AT_ONCE)

    def stop(self) -> None:
        """Watch the system's settings no longer, and give up what is asked over TCP."""
        call = getattr(self, "_parseCall", None)  # Twisted's Resolver has no way to stop
        if call is not None and call.active():
            call.cancel()
        for connection in list(self.connections):
            connection.abort()

    def queryUDP(self, queries: Sequence[dns.Query], timeout: Sequence[int] | None = None) -> Deferred[dns.Message]:
        """`timeout` are the seconds for each round over the servers."""
        rounds = timeout or self._rounds
        return Deferred.fromCoroutine(self.turns.take(_key(queries), lambda: self._by_datagram(queries, rounds)))

    def queryTCP(self, queries: Sequence[dns.Query], timeout: float = TCP_PATIENCE) -> Deferred[dns.Message]:
        return Deferred.fromCoroutine(self.turns.take(_key(queries), lambda: self._by_stream(queries, timeout)))

    @property
    def _known(self) -> list[tuple[str, int]]:
        servers = cast(list[tuple[str, int]], self.servers)
        return [*servers, *self.dynServers]

    async def _by_datagram(self, queries: Sequence[dns.Query], rounds: Sequence[int]) -> dns.Message:
        fault: Exception = Unasked("no name servers are known")
        for seconds in rounds:
            for address in self._known:
                try:
                    return await _Datagram(self._reactor, address, queries).answer.addTimeout(seconds, self._reactor)
                except (DeferredTimeout, OSError) as error:
                    fault = error
        raise fault

    async def _by_stream(self, queries: Sequence[dns.Query], seconds: float) -> dns.Message:
        cause = "no name servers are known"
        for host, port in self._known:
            stream = _Stream(queries, self.connections)
            self._reactor.connectTCP(host, port, _Once(stream), timeout=seconds)
            try:
                return await stream.answer.addTimeout(seconds, self._reactor)
            except (DeferredTimeout, Unasked) as error:
                cause = str(error)
        raise Unasked(f"a long answer cannot be had: {cause}")


def _key(queries: Sequence[dns.Query]) -> Key:
    return queries[0].name.name.decode("latin-1"), queries[0].type


def _asked(queries: Sequence[dns.Query]) -> dns.Message:
    message = dns.Message(dns.randomSource(), recDes=1)
    message.queries = list(queries)
    return message


def _read(octets: bytes, asked: dns.Message) -> dns.Message | None:
    """The answer that the octets are; None if they are none, or one to something else."""
    message = dns.Message()
    try:
        message.fromStr(octets)
    except Exception:  # whatever a stranger may send
        return None
    if not message.answer or message.id != asked.id:
        return None
    echoed = [(query.name.name.lower(), query.type) for query in message.queries]
    return message if echoed in ([], [(query.name.name.lower(), query.type) for query in asked.queries]) else None


@implementer(IReadDescriptor)
class _Datagram:
    """One question over UDP. The socket is connected: the kernel lets in what comes from the server alone."""

    def __init__(self, reactor: Any, address: tuple[str, int], queries: Sequence[dns.Query]) -> None:
        """OSError if there is no socket to be had, or no way to the server."""
        self._reactor = reactor
        self._asked = _asked(queries)
        self.answer: Deferred[dns.Message] = Deferred(lambda _: self._close())
        octets = self._asked.toStr()
        self._socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(address)
            self._socket.send(octets)
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def doRead(self) -> None:
        try:
            octets = self._socket.recv(LARGEST)
        except OSError:
            return  # nobody listens there, which may change: the time limit counts
        message = _read(octets, self._asked)
        if message is not None:
            self._close()
            self.answer.callback(message)

    def _close(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "DNS"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or cannot watch the socket."""
        self._close()
        if not self.answer.called:
            self.answer.errback(Unasked(str(reason.value)))


class _Stream(Int16StringReceiver):
    """One question over TCP. `all_` are those that live."""

    def __init__(self, queries: Sequence[dns.Query], all_: list[_Stream]) -> None:
        self._asked = _asked(queries)
        self._all = all_
        self.answer: Deferred[dns.Message] = Deferred(lambda _: self.abort())

    def connectionMade(self) -> None:
        self._all.append(self)
        if self.answer.called:
            self.abort()
        else:
            cast(Any, self).sendString(self._asked.toStr())

    def stringReceived(self, string: bytes) -> None:
        message = _read(string, self._asked)
        if message is not None and not message.trunc and not self.answer.called:
            self.answer.callback(message)
            cast(Any, self.transport).loseConnection()
        else:
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._all.remove(self)
        self.failed("the server closed the connection")

    def failed(self, cause: str) -> None:
        if not self.answer.called:
            self.answer.errback(Unasked(cause))

    def abort(self) -> None:
        if self.transport is not None:
            cast(Any, self.transport).abortConnection()


class _Once(ClientFactory):
    """Of one connection."""

    noisy = False

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def buildProtocol(self, addr: IAddress | IPv4Address | IPv6Address | None) -> _Stream:
        return self._stream

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._stream.failed(str(reason.value))
