"""The doctor's session with a smarthost: what the daemon would get there, and the remedy."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from pathlib import Path

import pytest

from smtpplus.config import Configuration, Delivery, Route
from smtpplus.config.settings import Log
from smtpplus.delivery.routing import Router
from smtpplus.operation import health
from smtpplus.operation.health import Finding
from smtpplus.operation.smarthosts import LONGEST, Clock, sessions
from tests.delivery.peer import EHLO, Line, Peer, Script
from tests.delivery.pem import certificate

LOGIN = "AUTH PLAIN " + base64.b64encode(b"\0ann\0pencil").decode() + "\r\n"


def visited(*routes: Route, tls: str = "opportunistic", patience: float = 5.0, clock: Clock = time.monotonic) -> list[Finding]:
    configuration = Configuration(hostname="relay.example.com", delivery=Delivery(tls=tls), route=routes)  # type: ignore[arg-type]  # one of its values
    return list(sessions(Router(routes, mx_port=25), configuration, patience, clock))


def plain(line: Line) -> None:
    line.greet()
    line.gone()


def logging_in(reply: str) -> Script:
    def script(line: Line) -> None:
        line.greet(EHLO.replace("250 SMTPUTF8", "250 AUTH PLAIN"))
        assert line.command("AUTH") == LOGIN
        line.send(reply + "\r\n")
        line.gone()

    return script


@pytest.fixture
def password(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text("pencil\n")
    return str(path)


def test_a_session_is_opened_and_left(password: str) -> None:
    """Each host that a route names is met once, with its login, and no mail is offered; other kinds of route are not asked."""
    with Peer(plain) as one, Peer(logging_in("235 2.7.0 ok")) as two:
        found = visited(
            Route("a.com", one.via), Route("b.com", one.via), Route("c.com", two.via, "ann", password), Route("d.com", "discard:"), Route()
        )
        assert [each.good for each in found] == [True, True]
        assert found[0].text == f"{one.via} takes a session (not encrypted)"
        assert found[1].text == f"smtp://ann@127.0.0.1:{two.port} takes a session (not encrypted); it takes the login of ann"
        assert [bytes(line.received) for line in one.lines] == [b"EHLO relay.example.com\r\nQUIT\r\n"]


def test_tls_is_as_the_route_says(password: str, tmp_path: Path) -> None:
    """STARTTLS is used where it is offered; a certificate that nobody trusts is good enough unless the route asks to verify it."""
    path = certificate(tmp_path / "peer.pem", "127.0.0.1")

    def starttls(line: Line) -> None:
        line.greet_encrypted(path)
        line.gone()

    with Peer(starttls) as peer:
        (found,) = visited(Route(via=peer.via))
        assert (found.good, "TLSv1.3, its certificate is not looked at" in found.text) == (True, True), found
        (found,) = visited(Route(via=peer.via, tls="verify"))
        assert (found.good, "self-signed" in found.text, bool(found.remedy)) == (False, True, True), found
    with Peer(plain) as peer:
        (found,) = visited(Route(via=peer.via, tls="required"))
        assert (found.good, "does not offer encryption, which is required" in found.text, bool(found.remedy)) == (False, True, True), found


def test_what_goes_wrong_is_said_with_its_remedy(password: str, tmp_path: Path) -> None:
    """A login that is refused, a password file that is not there, a refused port, a name that is none, a host that is silent or closes."""
    with Peer(logging_in("535 5.7.8 no")) as peer:
        (found,) = visited(Route("*", peer.via, "ann", password))
        assert not found.good
        assert "did not accept our login: 535 5.7.8 no" in found.text
        assert found.remedy == "correct username and password_file of the [[route]]"
        (found,) = visited(Route("*", peer.via, "ann", str(tmp_path / "missing")))
        assert "password_file cannot be read: FileNotFoundError" in found.text
    (found,) = visited(Route(via=peer.via))
    assert (found.good, f"127.0.0.1[127.0.0.1]:{peer.port} refuses connections" in found.text) == (False, True), found
    (found,) = visited(Route(via="smtp://no.such.host.invalid:25"))
    assert (found.good, "correct the host in the [[route]]" in found.remedy) == (False, True), found
    with Peer(lambda line: line.gone()) as silent:
        (found,) = visited(Route(via=silent.via), patience=0.2)
        assert (found.good, "does not answer" in found.text) == (False, True), found
    with Peer(lambda line: line.send("220 next\r\n")) as short, Peer(lambda line: line.send("554 5.7.1 not you\r\n")) as strict:
        one, two = visited(Route("a.com", short.via), Route("b.com", strict.via))
        assert (one.good, "was lost: " in one.text) == (False, True), one
        assert (two.good, "not you" in two.text) == (False, True), two


@pytest.mark.parametrize(("passed", "met"), [(LONGEST / 2, 2), (LONGEST, 1)])
def test_a_session_without_tls_has_what_time_is_left(passed: float, met: int) -> None:
    """An address has LONGEST seconds in all: a session after one whose encryption failed has what that one left of them."""
    now = [1000.0]

    def script(line: Line) -> None:
        if len(peer.lines) > 1:
            plain(line)
            return
        line.greet(EHLO.replace("250 SMTPUTF8", "250 STARTTLS"))
        line.command("STARTTLS")
        line.send("220 go\r\n")
        line.until(b"\x01")
        now[0] += passed
        line.send("this is not TLS\r\n")

    with Peer(script) as peer:
        (found,) = visited(Route(via=peer.via), clock=lambda: now[0])
        assert (found.good, len(peer.lines)) == (met == 2, met), found


def test_what_was_sent_at_login_is_not_shown(password: str) -> None:
    """A smarthost that repeats the login in its refusal does not bring the password before whoever reads the doctor's findings."""
    with Peer(logging_in("501 5.5.4 Syntax error in: " + LOGIN.strip())) as peer:
        (found,) = visited(Route("*", peer.via, "ann", password))
    assert (found.good, "501 5.5.4 the reply repeated what was sent at login" in found.text) == (False, True), found
    assert LOGIN.split()[-1] not in found.text


def test_a_host_that_talks_without_end_is_left(password: str) -> None:
    """Of a peer that sends reply after reply no more than a bounded number of octets is read."""

    def endless(line: Line) -> None:
        line.send("220-next\r\n" * 50_000)

    with Peer(endless) as peer:
        (found,) = visited(Route(via=peer.via))
    assert (found.good, bool(found.remedy)) == (False, True)


def test_the_mail_log_can_be_written(tmp_path: Path) -> None:
    """A log that cannot be written by who runs the daemon has a cross; one that is switched off, or goes elsewhere, has none."""

    def looked(mail: str, process: int = os.getpid()) -> Finding:
        configuration = Configuration(hostname="relay.example.com", state_directory=tmp_path, log=Log(mail=mail))
        (found,) = health.mail_log(configuration, process)
        return found

    assert (looked("mail.log").good, looked("-").good, looked("").good) == (True, None, None)
    (tmp_path / "directory").mkdir()
    assert (looked("directory").good, "is a directory" in looked("directory").text) == (False, True)
    (tmp_path / "mail.log").touch(0o400)
    nobody = {"user": 65_534, "group": 65_534, "extra_groups": []} if os.getuid() == 0 else {}  # what root may write nothing forbids
    with subprocess.Popen(["sleep", "30"], **nobody) as daemon:  # type: ignore[call-overload]  # these are options
        found = looked("mail.log", daemon.pid)
        daemon.kill()
    assert (found.good, "cannot be written by the daemon" in found.text, bool(found.remedy)) == (False, True, True), found
