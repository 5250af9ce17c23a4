"""SIGTERM: no new sessions; what runs may finish within the grace period; nothing acknowledged is lost."""

import socket
import time
from pathlib import Path

from tests.rig import sender
from tests.rig.daemon import HOST, Daemon
from tests.rig.next_hop import NextHop

APP = "app@example.com"


def await_closed_door(port: int) -> None:
    """Return when a new session is refused: no connection, or 421, or an end without a greeting."""
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((HOST, port), 5.0) as connection:
                if not connection.recv(512).startswith(b"220"):
                    return
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError("new sessions are still greeted")


def test_message_under_way_at_sigterm_is_still_taken(tmp_path: Path) -> None:
    """A client in the middle of DATA gets its 250, new sessions get nothing, the process stops, and the message is delivered once."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        message = sender.compose("in time", sender=APP, to="ann@example.net", size=300_000)
        stuffed = message.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        with sender.session(daemon.port, "app", password) as client:
            client.mail(APP)
            client.rcpt("ann@example.net")
            assert client.docmd("DATA")[0] == 354
            assert client.sock is not None
            client.sock.sendall(stuffed[:100_000])
            daemon.ask_to_stop()
            await_closed_door(daemon.port)
            client.sock.sendall(stuffed[100_000:])
            assert client.getreply()[0] == 250
        daemon.await_stop()
        daemon.start()
        hop.await_deliveries(bool)
        daemon.await_empty_queue()
        assert [sender.field(each.content, "Subject") for each in hop.deliveries] == ["in time"]
        assert sender.is_whole(hop.deliveries[0].content)


def test_delivery_under_way_at_sigterm_is_finished_and_not_repeated(tmp_path: Path) -> None:
    """A running delivery ends with the next hop's 250 and is recorded: after the restart nobody gets the message again."""
    with NextHop(rate=400_000.0) as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        message = sender.compose("slow", sender=APP, to="ann@example.net", size=1_000_000)
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, ["ann@example.net"], message)
        hop.await_deliveries(lambda taken: sum(each.octets for each in list(hop.arrivals)) > 100_000)
        daemon.terminate()
        assert len(hop.deliveries) == 1
        assert daemon.stored("messages") == 0


def test_idle_session_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    """A session with no transaction is told 421 and closed; the stop does not wait for its idle timeout."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}], settings={"limits": {"grace": "60s"}}) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            daemon.ask_to_stop()
            assert client.getreply()[0] == 421
            daemon.await_stop()
