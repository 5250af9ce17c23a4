"""What a client's machine sees of a mail server: which ports are open, refused or filtered, and what is offered there (B4, B5, B7).

Each port is tried in a thread of its own with a bound on its time, since a filtered one answers nothing. A port that is open is
spoken to as a mail client would: greeting, EHLO, STARTTLS with the certificate checked, AUTH. Nothing here raises; what goes wrong
is what is told.
"""

from __future__ import annotations

import errno
import smtplib
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import msgspec

from smtpplus.mail.reply import printable

WORKERS = 16
State = Literal["open", "refused", "filtered", "unreachable"]
IMPLICIT = frozenset((465,))


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
    try:
        if implicit or port in IMPLICIT or not _speak(found, host, patience):
            _speak_inside_tls(found, host, patience)
    except (OSError, smtplib.SMTPException) as fault:
        found.fault = found.fault or printable(str(fault))
    return found


def _speak(found: Port, host: str, patience: float) -> bool:
    """Speak SMTP; False if nobody greets, as where TLS is expected first."""
    try:
        client = smtplib.SMTP(host, found.port, timeout=patience)
    except (TimeoutError, smtplib.SMTPServerDisconnected):
        return False
    except smtplib.SMTPConnectError as fault:
        found.smtp, found.fault = fault.smtp_code >= 400, printable(f"{fault.smtp_code} {_text(fault.smtp_error)}")
        return True
    with client:
        found.smtp = True
        client.ehlo()
        found.banner = printable(_text(client.ehlo_resp).partition("\n")[0])
        found.auth = _mechanisms(client)
        found.auth_in_clear = bool(found.auth)
        if client.has_extn("starttls"):
            found.tls = "starttls"
            _start_tls(found, client, host, patience)
    return True


def _start_tls(found: Port, client: smtplib.SMTP, host: str, patience: float) -> None:
    """Turn on TLS: with the certificate checked, and if it does not pass, anew without."""
    try:
        client.starttls(context=ssl.create_default_context())
        found.certificate = "valid"
        _after_tls(found, client)
    except ssl.SSLCertVerificationError as fault:
        found.certificate = printable(fault.verify_message)
        with smtplib.SMTP(host, found.port, timeout=patience) as again:
            again.ehlo()
            again.starttls(context=_unchecked())
            _after_tls(found, again)


def _speak_inside_tls(found: Port, host: str, patience: float) -> None:
    for context in (ssl.create_default_context(), _unchecked()):
        try:
            with smtplib.SMTP_SSL(host, found.port, timeout=patience, context=context) as client:
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
