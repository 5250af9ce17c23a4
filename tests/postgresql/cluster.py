"""A PostgreSQL server for the length of a test run: its data in a temporary directory, on a port of its own of the loopback address."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from tests.rig.daemon import HOST, Daemon, Settings, free_ports

PATIENCE = 60.0  # seconds a start or a stop may take on a busy machine
USER = "smtpplus"


def binaries() -> Path | None:
    """Where `initdb` and `postgres` are: in the path, or where Debian puts the newest of them; None if they are not installed."""
    found = shutil.which("initdb")
    if found and Path(found).with_name("postgres").exists():
        return Path(found).parent
    places = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in places), key=lambda path: int(path.parent.name.partition(".")[0]), default=None)


class Cluster:
    """Use as a context manager: leaving it ends the server and removes its data. It is as durable as one that is installed."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._directory = Path(tempfile.mkdtemp(prefix="smtpplus-postgresql-"))
        self._owner = _unprivileged() if os.geteuid() == 0 else None  # the server refuses to run as root
        self._password = secrets.token_hex(16)
        self._port = free_ports(1)[0]
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Cluster:
        try:
            self._make()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._directory)

    def _make(self) -> None:
        secret = self._directory / "password"
        secret.write_text(self._password)
        if self._owner is not None:
            for path in (self._directory, secret):
                os.chown(path, self._owner, -1)
        said = ["-U", USER, "--pwfile", str(secret), "-A", "scram-sha-256", "-E", "UTF8", "--no-locale"]
        made = subprocess.run(
            [self._programs / "initdb", "-D", self._directory / "data", *said],
            user=self._owner,
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr

    def start(self) -> None:
        """Start the server and wait until it answers."""
        told = [f"listen_addresses={HOST}", f"port={self._port}", f"unix_socket_directories={self._directory}"]
        command = [str(self._programs / "postgres"), "-D", str(self._directory / "data")]
        for each in told:
            command += ["-c", each]
        with (self._directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                command, user=self._owner, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.ask("postgres", "SELECT 1")
                return
            except psycopg.OperationalError as fault:
                assert time.monotonic() < deadline and self._server.poll() is None, f"{fault}\n{self.log()}"
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT breaks all connections off, SIGQUIT is a crash."""
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(PATIENCE)
            self._server = None

    def make(self, name: str) -> str:
        """The URL of a new database."""
        self.ask("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        """The URL of a database."""
        return f"postgresql://{USER}:{self._password}@{HOST}:{self._port}/{name}"

    def ask(self, database: str, query: str) -> list[Any]:
        """The rows that a query returns."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            done = connection.execute(query.encode())
            return done.fetchall() if done.description else []

    def log(self) -> str:
        """The last part of what the server wrote."""
        return (self._directory / "log").read_text("utf-8", "replace")[-4000:]


def _unprivileged() -> int:
    try:
        return pwd.getpwnam("postgres").pw_uid
    except KeyError:
        return pwd.getpwnam("nobody").pw_uid


class ServedDaemon(Daemon):
    """A daemon whose database `name` is made on a cluster."""

    def __init__(
        self, directory: Path, cluster: Cluster, *, routes: list[Settings], settings: Settings | None = None, name: str = ""
    ) -> None:
        self._cluster = cluster
        self.database = name or f"d{secrets.token_hex(4)}"
        url = cluster.url(self.database) if name else cluster.make(self.database)
        super().__init__(directory, routes=routes, settings={**(settings or {}), "database": url})

    def stored(self, table: str) -> int:
        return int(self._cluster.ask(self.database, f"SELECT count(*) FROM {table}")[0][0])
