"""What connections and messages under way cost in memory, as stages of `make bench`.

*idle*: 10,000 clients that said EHLO and nothing more, above what the process has without them. *idle, TLS*: the same behind STARTTLS,
a thousand of them. *concurrent*: 1,000 clients that send 10 MiB each at the same time, the highest that the process had. The clients
take turns by `select`, so that all messages are under way together. Failure: RuntimeError, if a client is not answered as it should be.
"""

from __future__ import annotations

import resource
import selectors
import shutil
import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from bench.relay import Smtpplus
from bench.traffic import HOST, RECIPIENT, SENDER

MIB = 1024**2
IDLE, IDLE_TLS, CONCURRENT = 10_000, 1_000, 1_000
MESSAGE = 10 * MIB
_SETTINGS = f"""
[limits]
connections = {IDLE + 1000}
connections_per_client = {IDLE + 1000}
idle = "1h"
login = "1h"
message_size = "50 MiB"
"""
_DIALOG = (  # what is sent, and the code that must come for it
    (b"", b"220"),
    (b"EHLO client.example.com\r\n", b"250 "),
    (b"MAIL FROM:<%s>\r\n" % SENDER.encode(), b"250"),
    (b"RCPT TO:<%s>\r\n" % RECIPIENT.encode(), b"250"),
    (b"DATA\r\n", b"354"),
)
_HEADER = b"From: <%s>\r\nSubject: bench\r\n\r\n" % SENDER.encode()
_BODY = (b"0123456789" * 7 + b"\r\n") * (65_536 // 72)
PATIENCE = 600.0  # seconds for a stage


class Row(msgspec.Struct, frozen=True):
    """One result."""

    name: str
    octets: int
    limit: int  # octets; 0: none


def measure(directory: str, next_hop: int) -> list[Row]:
    """All stages, each on a server of its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = []
    for stage in (_idle, _idle_tls, _concurrent):
        path = Path(tempfile.mkdtemp(prefix="smtpplus-bench-", dir=directory))
        try:
            server = Smtpplus(path / "server", next_hop=next_hop, more=_SETTINGS)
            try:
                rows.append(stage(server))
            finally:
                server.stop()
        finally:
            shutil.rmtree(path, ignore_errors=True)
    return rows


def report(rows: list[Row]) -> str:
    """The table."""
    lines = ["", f"{'memory':56} {'MiB':>7} {'limit':>7}"]
    lines += [f"{row.name:56} {row.octets / MIB:7.0f} {row.limit // MIB or '-':>7}" for row in rows]
    return "\n".join(lines) + "\n"


def _connect(port: int) -> socket.socket:
    client = socket.create_connection((HOST, port), 60.0)
    for octets, code in _DIALOG[:2]:
        client.sendall(octets)
        if code not in client.recv(4096):
            raise RuntimeError("an idle client is not answered as it should be")
    return client


def _idle(server: Smtpplus) -> Row:
    before = server.memory()
    clients = [_connect(server.port) for _ in range(IDLE)]
    time.sleep(2.0)
    used = server.memory() - before
    for client in clients:
        client.close()
    return Row(f"{IDLE} idle connections, above the process without them", used, 250 * MIB)


def _idle_tls(server: Smtpplus) -> Row:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before = server.memory()
    clients = []
    for _ in range(IDLE_TLS):
        plain = _connect(server.port)
        plain.sendall(b"STARTTLS\r\n")
        plain.recv(4096)
        secure = context.wrap_socket(plain)
        secure.sendall(b"EHLO client.example.com\r\n")
        secure.recv(4096)
        clients.append(secure)
    time.sleep(2.0)
    used = server.memory() - before
    for client in clients:
        client.close()
    return Row(f"{IDLE_TLS} idle connections under TLS, above the same", used, 0)


class _Sender:
    """One client that sends a large message, never waiting."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), 60.0)
        self.socket.setblocking(False)
        self._step = 0
        self._left = MESSAGE
        self._pending = memoryview(b"")
        self._reply = b""

    def readable(self) -> bool:
        """Read; True when the message was accepted."""
        octets = self.socket.recv(4096)
        self._reply += octets
        if not octets or not self._reply.endswith(b"\r\n"):
            if octets:
                return False
            raise RuntimeError("the server closed a connection")
        code = _DIALOG[self._step][1] if self._step < len(_DIALOG) else b"250"
        if code not in self._reply:
            raise RuntimeError(f"unexpected reply: {self._reply!r}")
        self._reply = b""
        self._step += 1
        if self._step > len(_DIALOG):
            return True
        self._pending = memoryview(_DIALOG[self._step][0] if self._step < len(_DIALOG) else _HEADER)
        return False

    @property
    def writes(self) -> bool:
        """Whether there is something to send."""
        return bool(self._pending) or (self._step == len(_DIALOG) and self._left > 0)

    def writable(self) -> None:
        """Send a piece."""
        if not self._pending:
            if self._left <= 0:
                return
            self._left -= len(_BODY)
            self._pending = memoryview(_BODY if self._left > 0 else _BODY + b".\r\n")
        self._pending = self._pending[self.socket.send(self._pending) :]


def _concurrent(server: Smtpplus) -> Row:
    highest, over = [server.memory()], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            highest[0] = max(highest[0], server.memory())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        _send_all(server.port)
    finally:
        over.set()
        watcher.join()
    return Row(f"{CONCURRENT} concurrent messages of {MESSAGE // MIB} MiB, the whole process", highest[0], 400 * MIB)


def _send_all(port: int) -> None:
    """All clients connect first, then all send."""
    deadline = time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        for _ in range(CONCURRENT):
            sender = _Sender(port)
            selector.register(sender.socket, selectors.EVENT_READ, sender)
        while selector.get_map():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(selector.get_map())} messages are not accepted in time")
            for key, events in selector.select(10.0):
                sender = key.data
                if events & selectors.EVENT_READ and sender.readable():
                    selector.unregister(sender.socket)
                    sender.socket.close()
                    continue
                if events & selectors.EVENT_WRITE:
                    sender.writable()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if sender.writes else 0)
                if wanted != key.events:
                    selector.modify(sender.socket, wanted, sender)
