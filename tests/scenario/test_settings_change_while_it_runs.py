"""Modes, lists and users are changed by the command line while sessions are open: each change is in force within a second."""

from __future__ import annotations

import smtplib
import time
from pathlib import Path
from typing import Any, Callable

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import NextHop

APP = "app@example.com"
STRANGER = "visitor@stranger.example"
TO = "ann@example.net"
PATIENCE = 10.0  # seconds for what takes less than one on a machine that is not busy


def submit(client: smtplib.SMTP, subject: str, from_: str, envelope: str = "", **fields: str) -> str:
    """Submit one message in an open session: the code it is answered with, "connection lost" for none."""
    message = sender.compose(subject, sender=from_, to=TO, fields=fields)
    try:
        client.sendmail(envelope or from_, [TO], message)
    except smtplib.SMTPSenderRefused as refused:
        return str(refused.smtp_code)
    except smtplib.SMTPDataError as refused:
        return str(refused.smtp_code)
    return "250"


def becomes(wanted: Any, look: Callable[[], Any]) -> None:
    """Wait until `look` gives `wanted`."""
    deadline = time.monotonic() + PATIENCE
    while (found := look()) != wanted:
        assert time.monotonic() < deadline, f"{found!r} does not become {wanted!r}"
        time.sleep(0.05)


def test_modes_and_lists(tmp_path: Path) -> None:
    """A19, A20, A32, D5: alert mode by user, list and configuration, in one session; what it let through is recorded."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        daemon.cli("list", "add", "news")
        password = daemon.add_user("app", "--list", "news")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            assert submit(client, "blocked", STRANGER) == "550"
            for switch in (["user", "edit", "app"], ["list", "edit", "news"]):
                assert daemon.cli(*switch, "--unauthorized", "alert").returncode == 0
                becomes("250", lambda: submit(client, "alerted", STRANGER, APP))
                assert daemon.cli(*switch, "--unauthorized", "inherit").returncode == 0
                becomes("550", lambda: submit(client, "alerted", STRANGER, APP))
            daemon.config.write_text(daemon.config.read_text() + '\n[senders]\nunauthorized = "alert"\n')
            becomes("250", lambda: submit(client, "alerted", STRANGER, APP))
            daemon.await_empty_queue()
            becomes(len(hop.deliveries), lambda: sum(row["count"] for row in daemon.cli_json("check", "--would-block")))
            (row,) = daemon.cli_json("check", "--would-block")
            assert (row["user"], row["sender"], row["reason"]) == ("app", STRANGER, "domain_not_authorized")
            assert daemon.cli(*row["switch"].split()[1:]).returncode == 0
            becomes("550", lambda: submit(client, "alerted", STRANGER, APP))
        assert {sender.field(each.content, "Subject") for each in hop.deliveries} == {"alerted"}


def test_ceiling_and_size(tmp_path: Path) -> None:
    """D2, A24: a list's ceiling lowers what a message asks for, its size limit holds at MAIL and at the end of data, in open sessions."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            submit(client, "urgent", APP, **{"X-Priority": "1"})
            assert daemon.cli("list", "edit", "default", "--ceiling", "4", "--message-size", "2 KiB").returncode == 0
            becomes(552, lambda: client.docmd("MAIL", f"FROM:<{APP}> SIZE=2049")[0] if client.rset() else 0)
            client.rset()
            assert client.docmd("MAIL", f"FROM:<{APP}> SIZE=2048")[0] == 250
            client.rset()
            client.esmtp_features.pop("size")  # so that the client does not say how large it is
            large = sender.compose("large", sender=APP, to=TO, size=4000)
            assert client.mail(APP)[0] == client.rcpt(TO)[0] == 250
            assert client.data(large)[0] == 552
            submit(client, "lowered", APP, **{"X-Priority": "1"})
            client.ehlo("client.example.com")
            assert client.esmtp_features["size"] == "2048"
        hop.await_deliveries(lambda taken: len(taken) == 2)
        shown = {sender.field(each.content, "Subject"): sender.field(each.content, "X-Priority") for each in hop.deliveries}
        assert shown == {"urgent": "1", "lowered": "4"}


def test_reset_deactivate_delete(tmp_path: Path) -> None:
    """A5, A6, A7: after a reset the old password fails at once, also for open sessions; so does every one of a user off or deleted."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        old = daemon.add_user("app")
        daemon.start()

        def login(password: str) -> int:
            """AUTH on a connection that has been open since before the change, after others logged in and were remembered."""
            client = waiting.pop()
            try:
                return client.login("app", password)[0]
            except smtplib.SMTPAuthenticationError as refused:
                return refused.smtp_code
            finally:
                client.close()

        waiting = [smtplib.SMTP("127.0.0.1", daemon.port, timeout=PATIENCE) for _ in range(60)]
        assert login(old) == login(old) == 235
        with sender.session(daemon.port, "app", old) as session:
            new = daemon.cli_json("user", "reset-password", "app")["password"]
            becomes(535, lambda: login(old))
            assert login(new) == 235
            assert submit(session, "with the old password", APP) != "250"
        with sender.session(daemon.port, "app", new) as session:
            assert submit(session, "with the new one", APP) == "250"
            daemon.cli("user", "deactivate", "app")
            becomes(535, lambda: login(new))
            assert submit(session, "out", APP) != "250"
            daemon.cli("user", "activate", "app")
            becomes(235, lambda: login(new))
            assert submit(session, "in again", APP) == "250"
            daemon.cli("user", "delete", "app")
            becomes(535, lambda: login(new))
            assert submit(session, "gone", APP) != "250"
        for client in waiting:
            client.close()
        hop.await_deliveries(lambda taken: len(taken) == 2)
        assert {sender.field(each.content, "Subject") for each in hop.deliveries} == {"with the new one", "in again"}
