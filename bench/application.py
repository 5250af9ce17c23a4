"""The typical application's sessions, run by a client in C so that the client is not what is measured (`application.c`).

The client is compiled with the machine's gcc and libssl when it is first wanted. Whatever is not answered as it should be is an error.
"""

from __future__ import annotations

import base64
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from bench.traffic import PATIENCE

Security = Literal["clear", "tls", "resumed"]
CLIENTS = 8
USER, PASSWORD = "bench", "bench-correct-horse"
SOURCE = Path(__file__).with_suffix(".c")
_RESUMED_AT_LEAST = 0.9  # of the sessions that could be: a thread's first one cannot


class Application:
    """The client program. Use as a context manager."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="smtpplus-bench-client-")
        self._program = Path(self._directory.name) / "application"
        command = ["gcc", "-O2", "-o", str(self._program), str(SOURCE), "-lssl", "-lcrypto", "-lpthread"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise RuntimeError("the client of this stage needs gcc and libssl-dev: run  make bench-setup") from None
        if done.returncode != 0:
            raise RuntimeError(f"the client of this stage could not be compiled (make bench-setup installs what it needs): {done.stderr}")

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *exception: object) -> None:
        self._directory.cleanup()

    def send(self, port: int, security: Security, *, messages: int, length: int) -> float:
        """One session per message, by CLIENTS at a time; the seconds it took."""
        auth = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
        command = [str(self._program), str(port), str(messages), str(CLIENTS), str(length), security, auth]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the client ended with {done.returncode}: {done.stderr[-500:]}")
        seconds, resumed = done.stdout.split()
        if security == "resumed" and int(resumed) < _RESUMED_AT_LEAST * (messages - CLIENTS):
            raise RuntimeError(f"only {resumed} of {messages} TLS sessions were resumed")
        return float(seconds)
