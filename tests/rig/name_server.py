"""A DNS authority on loopback for TXT records: twisted.names in a process of its own, so that no test needs a reactor for it.

It answers from a JSON file, read anew for each question: `{"_smtpplus.b.example": ["text", …]}`. A name that is not in the file
does not exist; one that begins with `broken.` is answered SERVFAIL.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from twisted.internet import defer, reactor
from twisted.names import common, dns, error, server

HOST = "127.0.0.1"
READY = 30.0  # seconds


class NameServer:
    """An authority on 127.0.0.1:`port`, UDP and TCP. Use as a context manager; `publish` sets the TXT records of a name."""

    def __init__(self, directory: Path) -> None:
        self._zone = directory / "zone.json"
        self._zone.write_text("{}")

    @property
    def server(self) -> str:
        """As `[dns] servers` names it."""
        return f"{HOST}:{self.port}"

    def publish(self, name: str, *texts: str) -> None:
        """Let `name` have these records and no others; without any it does not exist."""
        zone = json.loads(self._zone.read_text())
        self._zone.write_text(json.dumps({**zone, name.lower(): texts}))

    def __enter__(self) -> NameServer:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = int(free.getsockname()[1])
        command = [sys.executable, "-m", "tests.rig.name_server", str(self._zone), str(self.port)]
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "the name server ended"
            try:
                socket.create_connection((HOST, self.port), 1.0).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"no name server within {READY:.0f} s")

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait(READY)


class _Zone(common.ResolverBase):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def _lookup(self, name: bytes, cls: int, kind: int, timeout: object) -> defer.Deferred[object]:
        asked = name.decode().lower()
        if asked.startswith("_smtpplus.broken."):
            return defer.fail(RuntimeError(asked))
        texts = json.loads(self._path.read_text()).get(asked)
        if not texts:
            return defer.fail(error.DNSNameError(name))
        answers = [
            dns.RRHeader(
                name, dns.TXT, dns.IN, 1, dns.Record_TXT(*(text[i : i + 255].encode() for i in range(0, len(text), 255))), auth=True
            )
            for text in texts
        ]
        return defer.succeed((answers if kind in (dns.TXT, dns.ALL_RECORDS) else [], [], []))


def main(zone: str, port: str) -> None:
    """Serve until killed."""
    factory = server.DNSServerFactory(clients=[_Zone(Path(zone))])
    loop: object = reactor
    loop.listenUDP(int(port), dns.DNSDatagramProtocol(factory), interface=HOST)  # type: ignore[attr-defined]  # the reactor is a module
    loop.listenTCP(int(port), factory, interface=HOST)  # type: ignore[attr-defined]  # the same
    loop.run()  # type: ignore[attr-defined]  # the same


if __name__ == "__main__":
    main(*sys.argv[1:])
