"""What the doctor sees of ports, on real sockets, and which it recommends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtpplus.operation import reach
from smtpplus.operation.doctor import _advice
from smtpplus.operation.health import Finding, descriptors, disk
from smtpplus.operation.reach import Port, best, look

HOST = "127.0.0.1"
PATIENCE = 10.0  # seconds for a peer that answers, however busy the machine is


def answer(server: socket.socket, talk: Callable[[socket.socket], None]) -> None:
    """Let `talk` have each connection to `server`, in a thread of its own, until the server is closed or the peer has gone."""

    def talk_and_close(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk_and_close, args=server.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


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

        def greet(connection: socket.socket) -> None:
            connection.sendall(greeting)
            connection.recv(64)

        answer(server, greet)
        found = look(HOST, server.getsockname()[1], PATIENCE if greeting else 0.5)
        assert found.state == "open"
        assert not found.usable
        assert found.smtp is greeting.startswith(b"554")


@pytest.mark.parametrize(("greeting", "piece"), [(b"", b"220-x\r\n" * 100), (b"", b"2"), (b"220 x\r\n", b"250-A\r\n" * 100)])
def test_who_talks_without_end_is_left(greeting: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """B4: endless greetings, a line without end, and endless replies end with a fault that says so."""
    monkeypatch.setattr(reach, "LONGEST", 1.0)
    with socket.create_server((HOST, 0)) as server:

        def chatter(connection: socket.socket) -> None:
            if greeting:
                connection.sendall(greeting)
                connection.recv(1_000)
            while True:
                connection.sendall(piece)
                time.sleep(0.01)

        answer(server, chatter)
        found = look(HOST, server.getsockname()[1], 0.5)
    assert not found.usable
    assert found.fault.startswith(("it sends more", "it does not come"))


def test_broken_tls_is_not_recommended() -> None:
    """B4: where STARTTLS is offered and answered by garbage, the login offered in clear does not make the port one to use."""
    with socket.create_server((HOST, 0)) as server:

        def talk(connection: socket.socket) -> None:
            with connection.makefile("rb") as lines:
                connection.sendall(b"220 x\r\n")
                for line in lines:
                    if line.startswith(b"STARTTLS"):
                        connection.sendall(b"220 go\r\n" + b"\xff\x00garbage" * 10)
                        break
                    connection.sendall(b"250-x\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n" if line.startswith(b"ehlo") else b"250 ok\r\n")

        answer(server, talk)
        found = look(HOST, server.getsockname()[1], PATIENCE)
    assert (found.smtp, found.tls, found.auth_in_clear, found.auth, found.usable) == (True, "starttls", True, (), False)
    assert found.fault
    assert best([found]) is None


def test_an_open_port_is_not_said_to_be_silent() -> None:
    """B4: where something listens that is no mail server, that is what is said."""
    (said, _) = _advice([Port(80, "open")], None, "a.com", "Ports")
    assert said.startswith("No mail server answers")
    (said, _) = _advice([Port(80, "refused")], None, "a.com", "Ports")
    assert said.startswith("Nothing listens")


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
