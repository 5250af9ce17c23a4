"""A session with each smarthost that a [[route]] names, as the daemon would have one: connection, EHLO, TLS as the route says, login, QUIT.

What is said and what counts is delivery.dialogue's, which the daemon speaks too; only the octets are carried here, by blocking sockets.
No mail is offered. Nothing here raises: what goes wrong is a finding, with the remedy.

Invariant: whatever answers, an address is done with within LONGEST seconds, and MOST octets of it are read.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from smtpplus.delivery.dialogue import Dialogue
from smtpplus.delivery.fault import Fault
from smtpplus.delivery.opening import TARGETS
from smtpplus.delivery.resolver import literal
from smtpplus.delivery.routing import Hop, Way
from smtpplus.delivery.terms import Step, Terms, terms_for
from smtpplus.mail import reasons
from smtpplus.mail.reply import printable
from smtpplus.operation.health import Finding

if TYPE_CHECKING:
    from smtpplus.config import Configuration, Endpoint
    from smtpplus.delivery.routing import Router

PATIENCE = 5.0  # seconds for each step
LONGEST = 15.0  # seconds for an address
MOST = 65_536  # octets read of a session
WORKERS = 8  # sessions at a time
Clock = Callable[[], float]  # seconds, from anywhere
_PART = "smarthost"
_REMEDIES = {  # where mail.reasons has none, as the daemon tries again by itself
    reasons.CONNECTION_REFUSED: "look whether it runs, and whether the [[route]] names the right port",
    reasons.CONNECTION_TIMED_OUT: "look whether a firewall stands between, and whether the [[route]] names the right host and port",
    reasons.CONNECTION_LOST: "the log of the next hop says why; a port that wants TLS from the start is named by smtps://",
    reasons.TLS_UNAVAILABLE: "let it offer STARTTLS, or say otherwise with tls of the [[route]]",
    reasons.TLS_FAILED: "let it have a trusted certificate for its name, or say otherwise with tls of the [[route]]",
    reasons.DNS_FAILED: "correct the host in the [[route]], or [dns] servers",
}


class Met(msgspec.Struct, frozen=True):
    """A session was open."""

    encryption: str  # protocol, "" without
    proved: bool  # by a certificate for its name


def sessions(router: Router, configuration: Configuration, patience: float = PATIENCE, clock: Clock = time.monotonic) -> Iterator[Finding]:
    """A finding for each smarthost."""
    hops = router.smarthosts()
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(lambda hop: _finding(hop, configuration, patience, clock), hops)


def _finding(hop: Hop, configuration: Configuration, patience: float, clock: Clock) -> Finding:
    found = _visit(hop, configuration, patience, clock)
    if isinstance(found, Met):
        tls = f"{found.encryption}, {'its certificate is good' if found.proved else 'its certificate is not looked at'}"
        login = f"; it takes the login of {hop.username}" if hop.username else ""
        return Finding(_PART, True, f"{hop.destination} takes a session ({tls if found.encryption else 'not encrypted'}){login}")
    fault, place = found
    remedy = fault.reason.remedy if "{" not in fault.reason.remedy else ""
    remedy = remedy or _REMEDIES.get(fault.reason, "ask who runs it; the mail log has what it says to the daemon")
    return Finding(_PART, False, f"{hop.destination}: {printable(fault.reply(place, hop.host).text)}", remedy)


def _visit(hop: Hop, configuration: Configuration, patience: float, clock: Clock) -> Met | tuple[Fault, str]:
    """The first address that takes a session; else the last one's fault, and which that is."""
    found: tuple[Fault, str] = (Fault(reasons.DNS_FAILED, "there is no such host"), "")
    try:
        addresses = _addresses(hop.host, configuration.dns.servers)
    except OSError as fault:
        return Fault(reasons.DNS_FAILED, str(fault)), ""
    policy = hop.tls or configuration.delivery.tls
    for address in addresses[:TARGETS]:
        wanted = terms_for(hop, policy, address, configuration.hostname)
        time_left = _TimeLeft(patience, clock)
        met = wanted if isinstance(wanted, Fault) else _session(hop, address, wanted, time_left)
        if isinstance(met, Fault) and met.reason is reasons.TLS_FAILED and isinstance(wanted, Terms) and _may_be_plain(hop, wanted):
            met = _session(hop, address, msgspec.structs.replace(wanted, tls="none"), time_left)
        if isinstance(met, Met):
            return met
        found = met, f"{hop.host}[{address}]:{hop.port}"
    return found


def _may_be_plain(hop: Hop, wanted: Terms) -> bool:
    """As delivery.opening has it (RFC 7435)."""
    return hop.way is Way.SMTP and wanted.tls == "opportunistic" and not wanted.insists


def _addresses(host: str, servers: Sequence[Endpoint]) -> list[str]:
    """The addresses of a host. OSError."""
    if address := literal(host):
        return [address]
    if not servers:
        return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)))
    from smtpplus.operation.txt import LookupFault, addresses

    try:
        return addresses(host, servers)
    except LookupFault as fault:
        raise OSError(str(fault)) from None


class _TimeLeft:
    """For all that is done with an address, whatever the number of sessions."""

    def __init__(self, patience: float, clock: Clock) -> None:
        self._patience = patience
        self._clock = clock
        self._until = clock() + LONGEST

    def step(self) -> float:
        """How many seconds the next step may take. TimeoutError."""
        left = self._until - self._clock()
        if left <= 0:
            raise TimeoutError
        return min(self._patience, left)


def _session(hop: Hop, address: str, wanted: Terms, time_left: _TimeLeft) -> Met | Fault:
    source = next((each for each in hop.source if (":" in each) is (":" in address)), None)
    try:
        peer = socket.create_connection((address, hop.port), time_left.step(), (source, 0) if source else None)
    except ConnectionRefusedError:
        return Fault(reasons.CONNECTION_REFUSED)
    except TimeoutError:
        return Fault(reasons.CONNECTION_TIMED_OUT)
    except OSError as fault:
        return Fault(reasons.SOURCE_UNFIT if source else reasons.CONNECTION_LOST, fault.strerror or str(fault))
    carrier = _Carrier(peer, hop.host, wanted, time_left)
    try:
        return carrier.meet()
    except ssl.SSLError as fault:
        return Fault(reasons.TLS_FAILED, getattr(fault, "verify_message", "") or fault.reason or str(fault))
    except TimeoutError:
        return Fault(reasons.CONNECTION_TIMED_OUT)
    except OSError as fault:
        return Fault(reasons.CONNECTION_LOST, fault.strerror or str(fault))
    finally:
        carrier.peer.close()


class _Carrier:
    """Carries octets between a peer and a dialogue until the session is open. OSError, SSLError among it."""

    def __init__(self, peer: socket.socket, host: str, wanted: Terms, time_left: _TimeLeft) -> None:
        self.peer = peer
        self._host = host
        self._wanted = wanted
        self._time_left = time_left
        self._left = MOST
        self._dialogue = Dialogue(wanted)

    def meet(self) -> Met | Fault:
        """Open the session, and take leave."""
        dialogue = self._dialogue
        if self._wanted.secure:
            self._encrypt()
        step = Step.WAIT
        while step in (Step.WAIT, Step.START_TLS):
            if step is Step.START_TLS:
                self._encrypt()
                dialogue.secured()
            self._send()
            step = dialogue.receive(self._read())
        if step is not Step.READY:
            return dialogue.fault or Fault(reasons.CONNECTION_LOST, "the peer closed it")
        dialogue.quit()
        self._send()
        encrypted = self.peer.version() or "TLS" if isinstance(self.peer, ssl.SSLSocket) else ""
        return Met(encrypted, bool(encrypted) and self._wanted.tls == "verify")

    def _encrypt(self) -> None:
        context = ssl.create_default_context()
        if self._wanted.tls != "verify":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.peer.settimeout(self._time_left.step())
        self.peer = context.wrap_socket(self.peer, server_hostname=self._host)

    def _send(self) -> None:
        self.peer.settimeout(self._time_left.step())
        self.peer.sendall(self._dialogue.take())

    def _read(self) -> bytes:
        self.peer.settimeout(self._time_left.step())
        data = self.peer.recv(4_096)
        self._left -= len(data)
        if not data or self._left < 0:
            raise OSError("the peer closed it" if not data else f"it sends more than {MOST} octets of replies")
        return data
