"""Senders are verified by mail, on the web and by DNS while the daemon runs, and only then they may be used.

The tokens are read from the mail that an independent next hop received; the records are those of an authority on loopback.
"""

import email
import email.policy
import http.client
import re
import smtplib
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.rig import sender
from tests.rig.daemon import HOST, Daemon, free_ports
from tests.rig.name_server import NameServer
from tests.rig.next_hop import Delivery, NextHop

PATIENCE = 30.0  # seconds for what takes one on an idle machine
TO = "friend@example.net"


def attempt(client: smtplib.SMTP, address: str) -> tuple[int, str]:
    """Submit a message as `address`; the code and the text of what it was answered."""
    try:
        client.sendmail(address, [TO], sender.compose("trial", sender=address, to=TO))
    except smtplib.SMTPSenderRefused as refused:
        text = refused.smtp_error
        return refused.smtp_code, text.decode() if isinstance(text, bytes) else text
    return 250, ""


def until(wanted: Callable[[], bool]) -> None:
    """Return as soon as `wanted` is true; AssertionError when it has not become so in time."""
    deadline = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s"
        time.sleep(0.05)


def letters(hop: NextHop, count: int) -> dict[str, tuple[EmailMessage, Delivery]]:
    """The mails with tokens by recipient, once there are `count`."""

    def found(taken: list[Delivery]) -> list[Delivery]:
        return [each for each in taken if sender.field(each.content, "Auto-Submitted")]

    taken = found(hop.await_deliveries(lambda taken: len(found(taken)) == count, PATIENCE))
    parsed = [(email.message_from_bytes(each.content, EmailMessage, policy=email.policy.default), each) for each in taken]
    return {each.recipients[0]: (letter, each) for letter, each in parsed}


def body(letter: EmailMessage) -> str:
    """Its text, with the line ends of this machine."""
    return str(letter.get_content()).replace("\r\n", "\n")


def token(letter: EmailMessage) -> str:
    """The token in a mail."""
    found = re.search(r"smtpplus sender confirm ([0-9a-z]{26})$", body(letter), re.MULTILINE)
    assert found is not None
    return found[1]


def browse(port: int, method: str, path: str) -> tuple[int, str]:
    """Status and text of a page."""
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_addresses_are_verified_by_mailed_tokens(tmp_path: Path) -> None:
    """A9, A10, A12: a token is mailed by the relay, shown by GET, used once by POST or by the command line; the sender is free at once."""
    ann, bob = "ann@example.com", "bob@example.com"
    (port,) = free_ports(1)
    settings = {"http": {"listen": f"{HOST}:{port}"}}
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}], settings=settings) as daemon:
        password = daemon.cli_json("user", "add", "app", "--senders", f"{ann}; {bob}")["password"]
        daemon.start()
        assert browse(port, "GET", "/healthz") == (200, "ok\n")
        with sender.session(daemon.port, "app", password) as client:
            code, text = attempt(client, ann)
            assert code == 550
            assert f"smtpplus sender verify app {ann}" in text
            asked = daemon.cli_json("sender", "verify", "app", ann, bob)
            assert [(each["sender"], each["status"]) for each in asked] == [(ann, "mailed"), (bob, "mailed")]
            mailed = letters(hop, 2)
            letter, taken = mailed[ann]
            assert (taken.sender in ("", "<>"), letter["Auto-Submitted"], letter["From"]) == (
                True,
                "auto-generated",
                "smtpplus@relay.example.com",
            )
            path = f"/confirm/{token(letter)}"
            assert f"http://{HOST}:{port}{path}\n" in body(letter)
            for _ in range(2):
                status, page = browse(port, "GET", path)
                assert (status, ann in page, '<form method="post">' in page) == (200, True, True)
            assert attempt(client, ann)[0] == 550  # looking changes nothing
            assert browse(port, "POST", path)[0] == 200
            until(lambda: attempt(client, ann)[0] == 250)
            assert browse(port, "POST", path)[0] == 410

            wrong = daemon.cli("sender", "confirm", "0" * 26)
            assert (wrong.returncode, "not known here" in wrong.stderr) == (1, True)
            assert attempt(client, bob)[0] == 550
            (confirmed,) = daemon.cli_json("sender", "confirm", token(mailed[bob][0]))
            assert (confirmed["sender"], confirmed["verified"], confirmed["provenance"]) == (bob, True, "token")
            until(lambda: attempt(client, bob)[0] == 250)
            again = daemon.cli("sender", "confirm", token(mailed[bob][0]))
            assert (again.returncode, "was used on" in again.stderr) == (1, True)
        daemon.await_empty_queue()
        who = {each["sender"]: each["verified_by"] for each in daemon.cli_json("sender", "list", "app")}
        assert who[ann] == f"web {HOST}"
        assert who[bob].endswith(" at the command line")
        assert token(letter) not in daemon.log()


def test_token_asked_for_while_the_daemon_is_down_is_mailed_by_the_next_one(tmp_path: Path) -> None:
    """A9: the command line needs no daemon; what it posts is delivered once, by the daemon that starts later."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        daemon.cli_json("user", "add", "app", "--senders", "ann@example.com", "--verify")
        assert (daemon.stored("outbox"), daemon.stored("messages")) == (1, 0)
        daemon.start()
        letter, _ = letters(hop, 1)["ann@example.com"]
        assert "http" not in body(letter)
        daemon.restart()
        daemon.await_empty_queue()
        assert (daemon.stored("outbox"), len(hop.deliveries)) == (0, 1)


def test_domain_is_verified_by_a_record_of_the_own_list(tmp_path: Path) -> None:
    """A9, D6: a domain counts once its TXT record has the value of the user's list; the record of another tenant proves nothing."""
    with NameServer(tmp_path) as names, NextHop() as hop:
        settings = {"dns": {"servers": [names.server]}}
        with Daemon(tmp_path / "relay", routes=[{"via": hop.via}], settings=settings) as daemon:
            for tenant in ("one", "two"):
                assert daemon.cli("list", "add", tenant).returncode == 0
            added = daemon.cli_json("user", "add", "app", "--domains", "b.example", "--list", "one", "--verify")
            (asked,) = added["verification"]
            daemon.cli_json("user", "add", "rival", "--domains", "b.example", "--list", "two")
            daemon.start()
            assert (asked["status"], asked["record"]) == ("publish", "_smtpplus.b.example")
            rival = daemon.cli_json("sender", "verify", "rival", "b.example")[0]
            assert rival["value"] != asked["value"]
            with sender.session(daemon.port, "app", added["password"]) as client:
                names.publish(asked["record"], "v=spf1 -all", rival["value"])
                refused = daemon.cli("sender", "verify", "app", "b.example")
                assert (refused.returncode, asked["value"] in refused.stderr) == (1, True)
                assert attempt(client, "x@b.example")[0] == 550
                names.publish(asked["record"], "v=spf1 -all", asked["value"])
                proved = daemon.cli_json("sender", "verify", "app", "b.example")[0]
                assert proved["status"] == "verified"
                until(lambda: attempt(client, "x@b.example")[0] == 250)
            assert daemon.cli("sender", "verify", "rival", "b.example").returncode == 1
            pending = daemon.cli_json("sender", "list", "--pending")
            assert [(each["user"], each["sender"]) for each in pending] == [("rival", "b.example")]


@pytest.mark.parametrize("verified", [True, False], ids=["verified", "pending"])
def test_only_verified_and_active_is_accepted(tmp_path: Path, verified: bool) -> None:
    """A7, A11: of verified or not, active or not, one is accepted; each of the others has a reason of its own, logins all one answer."""
    ann = "ann@example.com"
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        made = daemon.cli_json("user", "add", "app", "--senders", ann, *(["--vouch"] if verified else []))
        daemon.start()
        with sender.session(daemon.port, "app", made["password"]) as client:
            code, text = attempt(client, ann)
            assert (code, "verification is pending" in text) == ((250, False) if verified else (550, True))
        assert daemon.cli("user", "deactivate", "app").returncode == 0
        reason = "inactive_user" if verified else "inactive_unverified"

        def shut_out() -> bool:
            try:
                with sender.session(daemon.port, "app", made["password"]):
                    return False
            except smtplib.SMTPAuthenticationError as refused:
                assert refused.smtp_code == 535
                assert b"User or password is not correct" in refused.smtp_error
                return True

        until(shut_out)
        until(lambda: f"reason={reason}" in daemon.log())
        if not verified:
            assert "reason=sender_pending" in daemon.log()


def test_port_that_is_held_stops_the_start(tmp_path: Path) -> None:
    """A daemon whose HTTP port another program holds does not start: one sentence names port and remedy, status 1."""
    with (
        NextHop() as holder,
        Daemon(tmp_path, routes=[{"via": "discard:"}], settings={"http": {"listen": f"{HOST}:{holder.port}"}}) as daemon,
    ):
        daemon.launch()
        assert daemon.await_end() == 1
        (sentence,) = [line for line in daemon.log().splitlines() if "not started" in line]
        assert f"{HOST}:{holder.port}" in sentence
        assert "[http] listen" in sentence


def test_records_that_cannot_be_looked_up_are_a_sentence(tmp_path: Path) -> None:
    """A9: a name server that fails says nothing about the domain: status 1, the cause, and the record that is wanted all the same."""
    with NameServer(tmp_path) as names:
        daemon = Daemon(tmp_path / "relay", routes=[], settings={"dns": {"servers": [names.server]}})
        daemon.cli_json("user", "add", "app", "--domains", "broken.example")
        failed = daemon.cli("sender", "verify", "broken.example")
        assert (failed.returncode, failed.stdout) == (1, "")
        assert "_smtpplus.broken.example cannot be looked up" in failed.stderr
        assert "smtpplus-verification=" in failed.stderr
        assert "Traceback" not in failed.stderr
