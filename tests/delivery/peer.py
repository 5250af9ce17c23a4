"""A next hop that plays a script: blocking sockets in threads of their own, sharing nothing with smtpplus.

A script is a function over a `Line`, one per connection; the last one plays for all further connections. What the client sent is kept
per connection, to the octet. Nothing waits longer than `PATIENCE`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

PATIENCE = 20.0  # seconds
EHLO = "250-next.example\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
TLS_EHLO = EHLO.replace("250-PIPELINING", "250-STARTTLS\r\n250-PIPELINING")


class Line:
    """One connection, seen from the peer."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.buffer = bytearray()
        self.received = bytearray()

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def read(self) -> bool:
        """Take in more; False at the end of the stream."""
        data = self.socket.recv(65_536)
        self.buffer += data
        self.received += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """What comes up to and with `mark`; EOFError if the client leaves before."""
        start = 0
        while (place := self.buffer.find(mark, start)) < 0:
            start = max(0, len(self.buffer) - len(mark))
            if not self.read():
                raise EOFError(mark)
        end = place + len(mark)
        taken = bytes(self.buffer[:end])
        del self.buffer[:end]
        return taken

    def command(self, verb: str) -> str:
        """The next command, which must begin with `verb`."""
        text = self.until(b"\r\n").decode()
        assert text.upper().startswith(verb), f"{text!r} came instead of {verb}"
        return text

    def gone(self) -> None:
        """Wait until the client says QUIT or closes."""
        while b"QUIT\r\n" not in self.buffer:
            if not self.read():
                return
        self.send("221 2.0.0 bye\r\n")

    def greet(self, ehlo: str = EHLO) -> None:
        """The session up to the first MAIL."""
        self.send("220 next.example ESMTP\r\n")
        self.command("EHLO")
        self.send(ehlo)

    def greet_encrypted(self, certificate: Path, ehlo: str = EHLO, clear: str = TLS_EHLO) -> None:
        """The session up to the first MAIL, over STARTTLS; `clear` is what the peer offers before."""
        self.greet(clear)
        self.command("STARTTLS")
        self.send("220 go\r\n")
        self.start_tls(certificate)
        self.command("EHLO")
        self.send(ehlo)

    def envelope(self, *rcpt: str) -> None:
        """MAIL, one RCPT per reply, DATA: everything is taken but what the replies to RCPT say."""
        self.command("MAIL")
        self.send("250 2.1.0 ok\r\n")
        for reply in rcpt or ("250 2.1.5 ok",):
            self.command("RCPT")
            self.send(reply + "\r\n")
        self.command("DATA")
        self.send("354 go\r\n")

    def message(self, reply: str = "250 2.0.0 taken", *rcpt: str) -> bytes:
        """One whole transaction; the data as it came, with its final dot."""
        self.envelope(*rcpt)
        data = self.until(b"\r\n.\r\n")
        self.send(reply + "\r\n")
        return data

    def start_tls(self, certificate: Path) -> None:
        """TLS as the server, with a PEM file of key and certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)


Script = Callable[[Line], None]


def plain(line: Line) -> None:
    """Takes one message."""
    line.greet()
    line.message()
    line.gone()


def offering(line: Line) -> None:
    """Offers TLS, and takes one message without."""
    line.greet(TLS_EHLO)
    line.message()
    line.gone()


def rubbish(line: Line) -> None:
    """Answers the handshake with what is none."""
    line.greet(TLS_EHLO)
    line.command("STARTTLS")
    line.send("220 go\r\n")
    line.read()
    line.send("rubbish\r\n" * 100)
    line.gone()


def encrypted(certificate: Path, ehlo: str = EHLO) -> Script:
    """Takes one message over TLS."""

    def script(line: Line) -> None:
        line.greet_encrypted(certificate, ehlo)
        line.message()
        line.gone()

    return script


class Peer:
    """Listens on `host`:`port` and plays; port 0 is a free one. Use as a context manager; leaving it raises what a script raised.

    One that is `asleep` has the port and refuses connections until `wake`.
    """

    def __init__(self, *scripts: Script, asleep: bool = False, host: str = "127.0.0.1", port: int = 0) -> None:
        self.scripts = scripts
        self.lines: list[Line] = []
        self.faults: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._asleep = asleep
        self._listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind((host, port))
        self.port = int(self._listening.getsockname()[1])

    @property
    def via(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> Peer:
        if not self._asleep:
            self.wake()
        return self

    def wake(self) -> None:
        """Listen."""
        self._listening.listen(100)
        self._start(self._accept)

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # it never woke
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        if fault is None and self.faults:
            raise self.faults[0]

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            line = Line(connection)
            self.lines.append(line)
            self._start(self._play, line, self.scripts[min(len(self.lines), len(self.scripts)) - 1])

    def _play(self, line: Line, script: Script) -> None:
        try:
            script(line)
        except (ConnectionError, EOFError, ssl.SSLError):
            pass  # the client left, or would not have our certificate: what it did before is what tests look at
        except BaseException as fault:
            self.faults.append(fault)
        finally:
            line.socket.close()
