"""What a client's machine sees of a mail server: which ports are open, refused or filtered, and what is offered there (B4, B5, B7).

Each port is tried in a thread of its own, since a filtered one answers nothing. A port that is open is spoken to as a mail client
would: greeting, EHLO, STARTTLS with the certificate checked, AUTH. Nothing here raises; what goes wrong is what is told.

Invariant: whatever answers, a port is done with within LONGEST (or twice the patience, if that is more), and MOST octets of each
connection are read. Where TLS is offered, a login counts only if it was offered inside.
"""

from __future__ import annotations

import errno
import smtplib
import socket
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal

import msgspec

from smtpplus.mail.reply import printable

WORKERS = 16
State = Literal["open", "refused", "filtered", "unreachable"]
IMPLICIT = frozenset((465,))
LONGEST = 10.0  # seconds for a port
MOST = 65_536  # octets of one connection before TLS, and again inside


class Port(msgspec.Struct):
    """What was found at one port."""

    port: int
    state: State
    smtp: bool = False
    banner: str = ""
    tls: str = ""  # "starttls", "implicit", or "" without
    version: str = ""
    certificate: str = ""  # "valid", or what is wrong with it
    auth: tuple[str, ...] = ()
    auth_in_clear: bool = False
    fault: str = ""

    @property
    def usable(self) -> bool:
        """Whether a mail client can log in here."""
        return self.smtp and bool(self.auth)


def probe(host: str, ports: Sequence[int], patience: float) -> list[Port]:
    """Try all `ports` of `host`, several at a time, each step for `patience` seconds."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda port: look(host, port, patience), ports))


def best(found: Sequence[Port]) -> Port | None:
    """The port to use: where one can log in, encrypted with a valid certificate rather than not, 587 and 465 first."""
    order = {587: 0, 465: 1}
    usable = [each for each in found if each.usable]
    return min(usable, key=lambda each: (not each.tls, each.certificate != "valid", order.get(each.port, 2), each.port), default=None)


def look(host: str, port: int, patience: float, *, implicit: bool = False) -> Port:
    """Try one port; `implicit`: TLS is expected from the start."""
    try:
        socket.create_connection((host, port), patience).close()
    except ConnectionRefusedError:
        return Port(port, "refused")
    except TimeoutError:
        return Port(port, "filtered")
    except OSError as fault:
        unreachable = fault.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) or isinstance(fault, socket.gaierror)
        return Port(port, "unreachable" if unreachable else "filtered", fault=printable(fault.strerror or str(fault)))
    found = Port(port, "open")
    terms = _Terms(host, port, patience, time.monotonic() + max(LONGEST, 2 * patience))
    try:
        if implicit or port in IMPLICIT or not _speak(found, terms):
            _speak_inside_tls(found, terms)
    except (OSError, _Endless) as fault:  # smtplib's faults are OSErrors
        found.fault = found.fault or printable(str(fault))
    return found


class _Terms(msgspec.Struct, frozen=True):
    """Whom to ask, and how long: seconds for a step, and the end of all on the monotonic clock."""

    host: str
    port: int
    patience: float
    until: float

    def step(self) -> float:
        """How many seconds the next step may take."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise _Endless("it does not come to an end")
        return min(self.patience, left)


class _Endless(Exception):  # no OSError, which smtplib takes for a lost connection
    """A peer that sends more, or for longer, than any mail server does."""


class _Lines:
    """What smtplib reads from: lines of a socket, of MOST octets and until the end of the terms."""

    def __init__(self, peer: socket.socket, terms: _Terms) -> None:
        self._peer = peer
        self._terms = terms
        self._octets = b""
        self._left = MOST

    def readline(self, most: int) -> bytes:
        """The next line, its end included, or `most` octets of it; what there is where the peer closes."""
        while b"\n" not in self._octets and len(self._octets) < most:
            self._peer.settimeout(self._terms.step())
            more = self._peer.recv(4_096)
            if not more:
                break
            self._left -= len(more)
            if self._left < 0:
                raise _Endless(f"it sends more than {MOST} octets of replies")
            self._octets += more
        end = self._octets.find(b"\n") + 1 or len(self._octets)
        line, self._octets = self._octets[: min(end, most)], self._octets[min(end, most) :]
        return line

    def close(self) -> None:
        """The socket is smtplib's to close."""


class _Client(smtplib.SMTP):
    """A client within its terms."""

    def __init__(self, terms: _Terms, **more: Any) -> None:
        self._terms = terms
        super().__init__(terms.host, terms.port, timeout=terms.step(), **more)

    def getreply(self) -> tuple[int, bytes]:  # where smtplib reads
        """The next reply."""
        if self.file is None and self.sock is not None:
            self.file = _Lines(self.sock, self._terms)
        try:
            return super().getreply()
        except (smtplib.SMTPException, _Endless):
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        """Take leave, whatever the peer says to that."""
        with suppress(OSError, _Endless):
            self.docmd("QUIT")
        self.close()


class _InsideTls(_Client, smtplib.SMTP_SSL):
    """The same where TLS comes first."""


def _speak(found: Port, terms: _Terms) -> bool:
    """Speak SMTP; False if nobody greets, as where TLS is expected first."""
    try:
        client = _Client(terms)
    except (TimeoutError, smtplib.SMTPServerDisconnected):
        return False
    except smtplib.SMTPConnectError as fault:
        found.smtp, found.fault = fault.smtp_code >= 400, printable(f"{fault.smtp_code} {_text(fault.smtp_error)}")
        return True
    with client:
        found.smtp = True
        client.ehlo()
        found.banner = printable(_text(client.ehlo_resp).partition("\n")[0])
        mechanisms = _mechanisms(client)
        found.auth_in_clear = bool(mechanisms)
        if client.has_extn("starttls"):
            found.tls = "starttls"
            _start_tls(found, client, terms)
        else:
            found.auth = mechanisms
    return True


def _start_tls(found: Port, client: smtplib.SMTP, terms: _Terms) -> None:
    """Turn on TLS: with the certificate checked, and if it does not pass, anew without."""
    try:
        client.starttls(context=ssl.create_default_context())
        found.certificate = "valid"
        _after_tls(found, client)
    except ssl.SSLCertVerificationError as fault:
        found.certificate = printable(fault.verify_message)
        with _Client(terms) as again:
            again.ehlo()
            again.starttls(context=_unchecked())
            _after_tls(found, again)


def _speak_inside_tls(found: Port, terms: _Terms) -> None:
    for context in (ssl.create_default_context(), _unchecked()):
        try:
            with _InsideTls(terms, context=context) as client:
                found.smtp, found.tls = True, "implicit"
                found.certificate = found.certificate or "valid"
                _after_tls(found, client)
                return
        except ssl.SSLCertVerificationError as fault:
            found.certificate = printable(fault.verify_message)


def _after_tls(found: Port, client: smtplib.SMTP) -> None:
    client.ehlo()
    found.banner = printable(_text(client.ehlo_resp).partition("\n")[0])
    found.auth = _mechanisms(client)
    found.version = client.sock.version() or "" if isinstance(client.sock, ssl.SSLSocket) else ""


def _mechanisms(client: smtplib.SMTP) -> tuple[str, ...]:
    return tuple(printable(client.esmtp_features.get("auth", "")).split())


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _text(octets: bytes | str | None) -> str:
    return octets.decode("utf-8", "replace") if isinstance(octets, bytes) else octets or ""
