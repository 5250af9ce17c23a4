"""The real daemon: `twistd smtpplus` as a process of its own, driven by its configuration, its ports and its command line.

A `Daemon` lives in a directory: configuration, state, log. It survives its process: `kill9` and then `start` is a crash and a
restart on the same state. Nothing here waits without a bound, and every failure carries the end of the daemon's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
READY = 60.0  # seconds a start may take on a busy machine
STOP = 90.0  # seconds a graceful stop may take: more than any `[limits] grace` of these tests
BIN = Path(sys.executable).parent

Settings = Mapping[str, Any]


class DaemonFault(AssertionError):
    """The daemon did not do what the rig asked of it; the text ends with its log."""


def free_ports(count: int) -> list[int]:
    """`count` ports of the loopback address that nobody held a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def toml(settings: Settings) -> str:
    """`settings` as TOML: scalars, lists of scalars, tables (mappings) and arrays of tables (lists of mappings), two levels deep."""
    lines = [f"{key} = {_scalar(value)}" for key, value in settings.items() if not _is_table(value)]
    for key, value in settings.items():
        if _is_table(value):
            tables, head = ([value], f"[{key}]") if isinstance(value, Mapping) else (value, f"[[{key}]]")
            for table in tables:
                lines += ["", head, *(f"{name} = {_scalar(entry)}" for name, entry in table.items())]
    return "\n".join(lines) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _scalar(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_scalar(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False)


class Daemon:
    """One smtpplus in `directory`. `settings` are laid over the rig's own, table by table; `routes` are the `[[route]]` blocks.

    `port` is its submission port on 127.0.0.1. Use as a context manager: leaving it ends the process, whatever happened.
    """

    def __init__(self, directory: Path, *, routes: Sequence[Settings], settings: Settings | None = None) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.state = directory / "state"
        self.config = directory / "smtpplus.toml"
        self.log_path = directory / "daemon.log"
        self.port = free_ports(1)[0]
        self.process: subprocess.Popen[bytes] | None = None
        whole: dict[str, Any] = {
            "hostname": "relay.example.com",
            "state_directory": str(self.state),
            "listen": [{"ports": str(self.port), "interfaces": [HOST], "auth_without_tls": "loopback"}],
            "queue": {"retry": ["1s"]},
            "delivery": {"tls": "none"},
            "http": {"listen": ""},
            "route": [dict(route) for route in routes],
        }
        for key, value in (settings or {}).items():
            whole[key] = {**whole[key], **value} if isinstance(value, Mapping) and key in whole else value
        self.config.write_text(toml(whole))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill9()
        if fault is not None:
            print(self.log())

    def start(self) -> Self:
        """Start the process and wait until it greets."""
        self.launch()
        self.await_greeting()
        return self

    def launch(self) -> None:
        """Start the process and wait for nothing."""
        command = [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "smtpplus", "--config", str(self.config)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.directory)

    def await_greeting(self) -> None:
        """Return when the port greets with 220."""
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise DaemonFault(f"the daemon ended with {self.process.returncode} while starting\n{self.log()}")
            try:
                with socket.create_connection((HOST, self.port), 1.0) as connection:
                    if connection.recv(512).startswith(b"220"):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise DaemonFault(f"no greeting on port {self.port} within {READY:.0f} s\n{self.log()}")

    def kill9(self) -> None:
        """End the process with SIGKILL, as a crash would."""
        self._running().kill()
        self._running().wait(STOP)

    def ask_to_stop(self) -> None:
        """Send SIGTERM and return at once."""
        self._running().send_signal(signal.SIGTERM)

    def await_end(self) -> int:
        """The exit status of a process that is ending by itself."""
        try:
            return self._running().wait(STOP)
        except subprocess.TimeoutExpired:
            raise DaemonFault(f"the daemon still runs after {STOP:.0f} s\n{self.log()}") from None

    def terminate(self) -> None:
        """Ask it to stop, and wait until it has."""
        self.ask_to_stop()
        self.await_stop()

    def await_stop(self) -> None:
        """Wait for the end of a graceful stop. When all has stopped, twistd ends itself with the signal it was stopped by."""
        status = self.await_end()
        if status not in (0, -signal.SIGTERM) or "Server Shut Down." not in self.log_path.read_text("utf-8", "replace")[-2000:]:
            raise DaemonFault(f"the stop was not graceful: status {status}\n{self.log()}")

    def restart(self) -> None:
        """A graceful stop and a start on the same state."""
        self.terminate()
        self.start()

    def cli(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `smtpplus --config … ARGUMENTS`; the caller judges the result."""
        command = [str(BIN / "smtpplus"), "--config", str(self.config), *arguments]
        environment = {key: value for key, value in os.environ.items() if key != "SMTPPLUS_CONFIG"}
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=READY, env=environment, check=False)

    def cli_json(self, *arguments: str) -> Any:
        """The value that `smtpplus … --json` prints; a refusal is a fault."""
        result = self.cli(*arguments, "--json")
        if result.returncode != 0:
            raise DaemonFault(f"smtpplus {' '.join(arguments)} ended with {result.returncode}: {result.stdout}{result.stderr}")
        return json.loads(result.stdout)

    def add_user(self, name: str, *options: str, domains: str = "example.com") -> str:
        """Add a user who may send from `domains`, vouched for; its password."""
        return str(self.cli_json("user", "add", name, "--domains", domains, "--vouch", *options)["password"])

    def stored(self, table: str) -> int:
        """Rows of a table of its database: `messages`, `chunks`, `recipients`."""
        with contextlib.closing(sqlite3.connect(self.state / "smtpplus.sqlite")) as database:
            return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def contents(self) -> dict[str, int]:
        """Names and sizes of its files with content."""
        directory = self.state / "smtpplus.sqlite-content"
        paths = directory.iterdir() if directory.exists() else ()
        return {path.name: path.stat().st_size for path in paths if path.name != "database"}  # that one says whose they are

    def await_empty_queue(self, seconds: float = READY) -> None:
        """Return when no message, chunk, recipient or file with content is stored any more."""
        deadline = time.monotonic() + seconds
        while left := {table: rows for table in ("messages", "chunks", "recipients") if (rows := self.stored(table))} or self.contents():
            if time.monotonic() > deadline:
                raise DaemonFault(f"still stored after {seconds:.0f} s: {left}\n{self.log()}")
            time.sleep(0.05)

    def log(self) -> str:
        """The last part of what the process wrote, and of its mail log."""
        parts = []
        for path in (self.log_path, self.state / "mail.log"):
            if path.exists():
                parts.append(f"--- {path.name}\n" + path.read_text("utf-8", "replace")[-8000:])
        return "\n".join(parts)

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise DaemonFault("the daemon was never started")
        return self.process
