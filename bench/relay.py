"""smtpplus with default settings but for addresses, paths and the next hop.

Clients of a trusted network submit without a login, as those of Postfix's mynetworks do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from bench.application import PASSWORD, USER
from bench.traffic import HOST, await_port, free_port

BIN = Path(sys.executable).parent


class Smtpplus:
    """One start in `directory`; `more` is added to its settings; `signed` names the algorithm by which it signs (DKIM).

    `profile` is a file for the statistics of cProfile, which see the reactor's thread.
    """

    name = "smtpplus"

    def __init__(self, directory: Path, *, next_hop: int, profile: Path | None = None, more: str = "", signed: str = "") -> None:
        self.directory = directory
        self.port = free_port()
        directory.mkdir(parents=True)
        self._config = directory / "smtpplus.toml"
        self._config.write_text(self._settings(next_hop) + more)
        self._cli("user", "add", USER, "--domains", "example.com", "--vouch", "--password-stdin", stdin=PASSWORD)
        if signed:
            self._cli("dkim", "add", "example.com", "--algorithm", signed)
        profiling = ["--profile", str(profile), "--profiler", "cprofile", "--savestats"] if profile else []
        command = [str(BIN / "twistd"), "--nodaemon", "--pidfile=", *profiling, "smtpplus", "--config", str(self._config)]
        with (directory / "daemon.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=directory)
        await_port(self.port, self._process)

    def memory(self) -> int:
        """Octets that it has in memory (RSS)."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """Stop it; what it had accepted stays in the queue."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(120.0)

    def queued(self) -> int:
        """Messages in the queue, read from its database."""
        with contextlib.closing(sqlite3.connect(self.directory / "state" / "smtpplus.sqlite")) as database:
            return int(database.execute("SELECT count(*) FROM messages WHERE state = 1").fetchone()[0])

    def log(self) -> str:
        """The last that it said."""
        return (self.directory / "daemon.log").read_text("utf-8", "replace")[-4000:]

    def _cli(self, *arguments: str, stdin: str = "") -> str:
        environment = {key: value for key, value in os.environ.items() if key != "SMTPPLUS_CONFIG"}
        command = [str(BIN / "smtpplus"), "--config", str(self._config), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60.0, check=False, env=environment)
        if done.returncode != 0:
            raise RuntimeError(f"smtpplus {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def _settings(self, next_hop: int) -> str:
        return f"""
hostname = "bench.example.com"
state_directory = "{self.directory}/state"
[[listen]]
ports = "{self.port}"
interfaces = ["{HOST}"]
trusted_networks = ["127.0.0.0/8"]
trusted_as = "{USER}"
[http]
listen = ""
[[route]]
destination = "*"
via = "smtp://{HOST}:{next_hop}"
"""
