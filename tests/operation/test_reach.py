"""What the doctor sees of ports, on real sockets, and which it recommends."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from smtpplus.operation.health import Finding, descriptors, disk
from smtpplus.operation.reach import Port, best, look

HOST = "127.0.0.1"


def test_refused_and_filtered() -> None:
    """B4: a port where nobody listens is refused; one that swallows connections is filtered."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        assert look(HOST, held.getsockname()[1], 2.0).state == "refused"
        held.listen(0)
        fillers = []
        for _ in range(8):  # a full line of connections is answered with silence
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(held.getsockname())
            fillers.append(filler)
        assert look(HOST, held.getsockname()[1], 0.5).state == "filtered"
        for filler in fillers:
            filler.close()


def test_a_name_that_does_not_exist() -> None:
    """A host that is not in DNS is unreachable, not an error."""
    assert look("no.such.host.invalid", 25, 1.0).state == "unreachable"


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.0 400 no\r\n\r\n", b"554 5.7.1 not you\r\n"])
def test_whatever_answers_is_told(greeting: bytes) -> None:
    """Something else than a mail server, one that is silent, or one that refuses, is told as what it is and never raises."""
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            for _ in range(4):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(greeting)
                    connection.settimeout(1.0)
                    try:
                        connection.recv(64)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        found = look(HOST, server.getsockname()[1], 0.5)
        assert found.state == "open"
        assert not found.usable
        assert found.smtp is greeting.startswith(b"554")


def test_which_port_to_use() -> None:
    """B4: encrypted before clear, a valid certificate before another, 587 and 465 before the rest; none where nobody can log in."""

    def port(number: int, **more: Any) -> Port:
        facts: dict[str, Any] = {"smtp": True, "auth": ("PLAIN",), "tls": "starttls", "certificate": "valid"}
        return Port(number, "open", **facts | more)

    clear, bad = port(25, tls="", certificate=""), port(587, certificate="self-signed certificate")
    found = [clear, bad, port(2525), port(465), Port(26, "refused")]
    chosen = []
    while (one := best(found)) is not None:
        chosen.append(one.port)
        found.remove(one)
    assert chosen == [465, 2525, 587, 25]
    assert best([port(25, auth=())]) is None


def test_limits_of_the_machine(tmp_path: Path) -> None:
    """Too few file descriptors for what the configuration allows is found, with the number to set; room on the disk is told."""
    from smtpplus.config import Configuration, Limits

    few, many = Configuration(limits=Limits(connections=10)), Configuration(limits=Limits(connections=1_000_000_000))
    (good,), (bad,) = descriptors(few, 0), descriptors(many, 0)
    assert (isinstance(good, Finding), bad.good) == (True, False)
    assert "LimitNOFILE=1000" in bad.remedy
    (room,) = disk(Configuration(state_directory=tmp_path))
    assert "are free under" in room.text
