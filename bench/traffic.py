"""The two ends of a measurement: Postfix's smtp-source in front, its smtp-sink behind. Both are C and cost a small part of a core."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from types import TracebackType

HOST = "127.0.0.1"
SOURCE = "/usr/sbin/smtp-source"
SINK = "/usr/sbin/smtp-sink"
SENDER, RECIPIENT = "a@example.com", "b@example.net"
PATIENCE = 300.0  # seconds that any one run may take
_COUNT = re.compile(rb"mesg=\s*(\d+)")


def free_port() -> int:
    """A port of the loopback address that nobody held a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def await_port(port: int, process: subprocess.Popen[bytes] | None = None, greets: bool = True) -> None:
    """Return when somebody answers at `port` (with 220); RuntimeError after a minute, or when `process` ends."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the process for port {port} ended with {process.returncode}")
        try:
            with socket.create_connection((HOST, port), 5.0) as connection:
                if not greets or connection.recv(512).startswith(b"220"):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"nobody answers on port {port}")


def send(port: int, *, messages: int, sessions: int, length: int, reuse: bool) -> float:
    """Submit `messages` of `length` octets from `sessions` parallel clients; the seconds it took. A refusal is an error."""
    command = [SOURCE, "-l", str(length), "-m", str(messages), "-s", str(sessions), "-f", SENDER, "-t", RECIPIENT]
    command += ["-d"] if reuse else []
    begun = time.monotonic()
    done = subprocess.run([*command, f"{HOST}:{port}"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    taken = time.monotonic() - begun
    if done.returncode != 0 or "warning" in done.stderr:
        raise RuntimeError(f"smtp-source ended with {done.returncode}: {done.stderr[-500:]}")
    return taken


class Sink:
    """smtp-sink on `port`, counting. Use as a context manager; it lasts for all runs."""

    def __init__(self, interface: str = HOST) -> None:
        self.port = free_port()
        self._count = 0
        self._counted = threading.Condition()
        as_root = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen([SINK, *as_root, "-c", f"{interface}:{self.port}", "1024"], stdout=subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Sink:
        await_port(self.port, self._process)
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(30.0)

    @property
    def count(self) -> int:
        """Messages taken since the start."""
        return self._count

    def await_count(self, count: int) -> None:
        """Return at the moment the count is reached; RuntimeError if it is not in time."""
        with self._counted:
            if not self._counted.wait_for(lambda: self._count >= count, PATIENCE):
                raise RuntimeError(f"smtp-sink has {self._count} of {count} messages")

    def _read(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while piece := os.read(self._process.stdout.fileno(), 65536):
            found = _COUNT.findall(rest + piece)
            rest = (rest + piece)[-64:]
            if found:
                with self._counted:
                    self._count = int(found[-1])
                    self._counted.notify_all()
