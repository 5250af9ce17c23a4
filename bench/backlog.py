"""A relay that is started on a queue made beforehand: messages go into its database by the spool's own statements."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import machine
from bench.traffic import HOST, await_port, free_port
from smtpplus.mail.envelope import CHUNK, Envelope, Recipient
from smtpplus.queue import rows
from smtpplus.queue.entry import EnvelopeIds
from smtpplus.storage import schema, writes
from smtpplus.storage.engine import create_engine, migrate
from smtpplus.storage.statement import Row

BIN = Path(sys.executable).parent
BATCH = 2000  # messages in one transaction


class Relay:
    """smtpplus in `directory`; `settings` is added to what it needs. Nothing runs before `start`."""

    def __init__(self, directory: Path, settings: str) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.port = free_port()
        self._database = directory / "state" / "smtpplus.sqlite"
        self._config = directory / "smtpplus.toml"
        self._config.write_text(
            f"""
hostname = "bench.example.com"
state_directory = "{directory}/state"
[[listen]]
ports = "{self.port}"
interfaces = ["{HOST}"]
trusted_networks = ["127.0.0.0/8"]
trusted_as = "bench"
[log]
format = "json"
[http]
listen = ""
{settings}
"""
        )
        environment = {key: value for key, value in os.environ.items() if key != "SMTPPLUS_CONFIG"}
        command = [str(BIN / "smtpplus"), "--config", str(self._config), "user", "add", "bench", "--domains", "example.com", "--vouch"]
        subprocess.run(command, capture_output=True, check=True, timeout=60.0, env=environment)
        self._process: subprocess.Popen[bytes] | None = None

    def fill(self, domains: list[str], messages: int, *, size: int, level: int = 3) -> None:
        """Queue `messages` of `size` octets, to the `domains` in turn."""
        url = f"sqlite:///{self._database}"
        migrate(url)
        engine = create_engine(url)
        new_id = EnvelopeIds(1)
        content = b"From: a@example.com\r\nTo: b@example.net\r\nSubject: bulk\r\n\r\n"
        content += (b"x" * 76 + b"\r\n") * ((size - len(content)) // 78 + 1)
        pieces = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
        for first in range(0, messages, BATCH):
            now = time.time()
            envelopes = [
                Envelope(new_id(), "a@example.com", (Recipient(f"b@{domains[number % len(domains)]}"),), "bench", level, len(content), now)
                for number in range(first, min(messages, first + BATCH))
            ]
            inserted: list[Row] = [
                (each.id, schema.QUEUED, each.sender, each.user, each.level, each.size, now, len(pieces), None, pieces[0])
                for each in envelopes
            ]
            with engine.begin() as connection:
                writes.INSERT_MESSAGE.run(connection, inserted)
                writes.INSERT_RECIPIENT.run(connection, [row for each in envelopes for _, row in rows.recipients(each)])
                if len(pieces) > 1:
                    for each in envelopes:
                        writes.INSERT_CHUNK.run(connection, [(each.id, index, piece) for index, piece in enumerate(pieces) if index])
        engine.dispose()

    def start(self) -> float:
        """Start it; the moment at which that was asked for, by time.monotonic()."""
        begun = time.monotonic()
        command = [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "smtpplus", "--config", str(self._config)]
        with (self.directory / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.directory)
        await_port(self.port, self._process)
        return begun

    def stop(self) -> None:
        """End it at once; nobody needs its queue any more."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(60.0)

    def memory(self) -> int:
        """The most that the process has had in memory, in MiB."""
        assert self._process is not None
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
        return 0

    def processor_seconds(self) -> float:
        """The processor time that the process has used."""
        assert self._process is not None
        return machine.processor_seconds(self._process.pid)

    def queued(self) -> int:
        """Recipients in its queue."""
        with contextlib.closing(sqlite3.connect(self._database)) as database:
            return int(database.execute("SELECT count(*) FROM recipients").fetchone()[0])

    def urgent_times(self) -> list[float]:
        """For each delivered message of level 1: seconds from its acceptance to the next hop's 250, as the mail log has them."""
        accepted: dict[str, float] = {}
        times: list[float] = []
        for event in self._events():
            if event["event"] == "Accepted" and event["level"] == 1:
                accepted[event["id"]] = event["at"]
            elif event["event"] == "Delivered" and event["id"] in accepted:
                times.append(event["at"] - accepted[event["id"]])
        return times

    def _events(self) -> Iterator[dict[str, Any]]:
        with (self.directory / "state" / "mail.log").open("rb") as log:
            for line in log:
                if b'"Accepted"' in line or b'"Delivered"' in line:
                    yield json.loads(line)
