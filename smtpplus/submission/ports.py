"""Listening sockets: thousands of them, quickly, and a sentence for each that cannot be had.

A port of a range that cannot be had is skipped, one named alone stops the start (A2). Failure: ListenError, and then nothing is left
listening.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterable
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ServerFactory

from smtpplus.config import Listen

BACKLOG = 1024  # connections that wait to be accepted, per port; the kernel's net.core.somaxconn may allow fewer
SPARE_FILES = 512  # descriptors for everything that is neither a port nor a session


class ListenError(Exception):
    """A port cannot be had; the text is a sentence for the operator."""


class QuietPort(tcp.Port):
    """A listening port that does not write a log line about itself: there are thousands. IPv6 ports are IPv6 only, RFC 3493 §5.3."""

    def startListening(self) -> None:
        """Bind and listen; CannotListenError if the port cannot be had."""
        listening = socket.socket(self.addressFamily, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.addressFamily == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((self.interface, self.port))
            listening.listen(self.backlog)
        except OSError as fault:
            listening.close()
            raise CannotListenError(self.interface, self.port, fault) from None
        self._realPortNumber = listening.getsockname()[1]
        if self.factory is not None:
            self.factory.doStart()
        self.connected = True
        self.socket = listening
        self.fileno = listening.fileno  # type: ignore[method-assign]  # as Twisted's own does
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]  # twisted has no types there

    def _logConnectionLostMsg(self) -> None:
        """Nor about its end."""


def bind(blocks: Iterable[tuple[ServerFactory, Listen]], reactor: Any, *, connections: int) -> tuple[list[tcp.Port], list[str]]:
    """Listen on every port of every block with its factory; the ports, and a sentence for each that was skipped.

    The limit of open files is raised for them and for `connections` beside them, as far as the system lets. ListenError if a port named
    alone cannot be had, or none at all.
    """
    blocks = list(blocks)
    wanted = sum((ports.last - ports.first + 1) * len(listen.interfaces) for _, listen in blocks for ports in listen.ports)
    _allow_files(wanted + connections + SPARE_FILES)
    bound: list[tcp.Port] = []
    skipped: list[str] = []
    try:
        for factory, listen in blocks:
            for interface in listen.interfaces:
                if ":" in interface and len(listen.interfaces) > 1 and not _has_ipv6():
                    skipped.append(f"{interface}: this machine has no IPv6")
                else:
                    _bind_block(factory, listen, interface, reactor, bound, skipped)
        if not bound:
            raise ListenError("no port could be listened on: " + "; ".join(skipped[:3]))
    except ListenError:
        for port in bound:
            port.stopListening()
        raise
    return bound, skipped


def _bind_block(  # noqa: PLR0917  # all of them are needed, and it is called once
    factory: ServerFactory, listen: Listen, interface: str, reactor: Any, bound: list[tcp.Port], skipped: list[str]
) -> None:
    """The ports of one block on one interface, added to `bound` or `skipped`."""
    for ports in listen.ports:
        for number in range(ports.first, ports.last + 1):
            port = QuietPort(number, factory, BACKLOG, interface, reactor)
            try:
                port.startListening()
            except CannotListenError as fault:
                why = sentence(interface, number, fault.socketError)
                if ports.alone or fault.socketError.errno in {errno.EMFILE, errno.ENFILE}:
                    raise ListenError(why) from None
                skipped.append(why)
            else:
                bound.append(port)


def sentence(interface: str, number: int, fault: OSError) -> str:
    """Why a port cannot be had, for the operator."""
    where = f"port {number} on [{interface}]" if ":" in interface else f"port {number} on {interface}"
    if fault.errno == errno.EADDRINUSE:
        return f"{where} is held by another program"
    if fault.errno in {errno.EACCES, errno.EPERM}:
        return f"{where} needs a privilege: start as root, or with CAP_NET_BIND_SERVICE"
    if fault.errno in {errno.EMFILE, errno.ENFILE}:
        return f"{where} cannot be opened: the limit of open files is too low (ulimit -n)"
    return f"{where} cannot be listened on: {os.strerror(fault.errno) if fault.errno else fault}"


def _has_ipv6() -> bool:
    """Whether this machine can listen on IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _allow_files(count: int) -> None:
    """Raise the soft limit of open files to `count`, as far as the hard one lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
