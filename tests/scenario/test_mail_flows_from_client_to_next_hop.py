"""A client with host, port, user and password sends mail, and it arrives: the whole path, over real sockets."""

import mailbox
import smtplib
from pathlib import Path

import pytest

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import NextHop

APP = "app@example.com"
COMPLETE = {"Date": "Fri, 20 Nov 2026 10:00:00 +0000", "Message-ID": "<1@client.example.com>"}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "starttls"])
def test_submitted_message_arrives_unchanged_under_a_received_field(tmp_path: Path, tls: bool) -> None:
    """A1: what smtplib submits, with or without STARTTLS, reaches the next hop with its envelope, byte for byte, below one Received."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        message = sender.compose("hello", sender=APP, to="ann@example.net", size=5000, fields=COMPLETE)
        with sender.session(daemon.port, "app", password, tls=tls) as client:
            client.sendmail(APP, ["ann@example.net", "bob@example.net"], message)
        (taken,) = hop.await_deliveries(lambda taken: sum(len(each.recipients) for each in taken) == 2)[:1]
        daemon.await_empty_queue()
        assert taken.sender == APP
        assert sender.is_whole(taken.content)
        assert taken.content.endswith(message)
        added = taken.content[: -len(message)]
        assert added.startswith(b"Received: from ")
        assert [line for line in added.split(b"\r\n")[1:-1] if line[:1] not in b" \t"] == []
        assert sorted(address for each in hop.deliveries for address in each.recipients) == ["ann@example.net", "bob@example.net"]


def test_message_routed_to_a_maildir_lies_in_new(tmp_path: Path) -> None:
    """A route `maildir:` puts the message where a mail reader finds it."""
    folder = tmp_path / "Maildir"
    with Daemon(tmp_path / "relay", routes=[{"via": f"maildir:{folder}"}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, ["ann@example.net"], sender.compose("into the box", sender=APP, to="ann@example.net"))
        daemon.await_empty_queue()
        (kept,) = list(mailbox.Maildir(folder, create=False))
        assert kept["Subject"] == "into the box"


def test_stranger_in_from_is_refused_with_the_reason(tmp_path: Path) -> None:
    """A13, A20: an authorized envelope sender with a stranger's From is refused with 550 5.7.1, named, and nothing is stored."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            forged = sender.compose("form", sender="visitor@stranger.example", to="ann@example.net")
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.sendmail(APP, ["ann@example.net"], forged)
            assert refused.value.smtp_code == 550
            text = refused.value.smtp_error
            assert isinstance(text, bytes)
            assert text.startswith(b"5.7.1 ")
            assert b"visitor@stranger.example" in text
            assert daemon.stored("messages") == 0
            client.sendmail(APP, ["ann@example.net"], sender.compose("own", sender=APP, to="ann@example.net"))
        hop.await_deliveries(lambda taken: len(taken) == 1)
        assert [sender.field(each.content, "Subject") for each in hop.deliveries] == ["own"]


def test_client_that_leaves_in_data_leaves_nothing(tmp_path: Path) -> None:
    """A message whose end never came is not stored, small or large, and nobody gets it."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        for size in (1_000, 1_000_000):
            with sender.session(daemon.port, "app", password) as client:
                client.mail(APP)
                client.rcpt("ann@example.net")
                assert client.docmd("DATA")[0] == 354
                assert client.sock is not None
                client.sock.sendall(sender.compose("half", sender=APP, to="ann@example.net", size=size))
                client.close()
        daemon.await_empty_queue()
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, ["ann@example.net"], sender.compose("whole", sender=APP, to="ann@example.net"))
        hop.await_deliveries(lambda taken: len(taken) == 1)
        daemon.await_empty_queue()
        assert [sender.field(each.content, "Subject") for each in hop.deliveries] == ["whole"]
