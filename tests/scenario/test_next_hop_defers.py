"""The next hop says later, or is away: the message waits and is tried again."""

from pathlib import Path

from tests.rig import sender
from tests.rig.daemon import Daemon, free_ports
from tests.rig.next_hop import NextHop

APP = "app@example.com"


def test_deferred_recipient_is_tried_again_until_taken(tmp_path: Path) -> None:
    """C4: two 451 and then 250: three attempts, one delivery, no bounce; the other recipient of the message is not sent to twice."""
    refusals = {"later@example.net": ["451 4.2.0 Not now", "451 4.2.0 Not yet"]}
    with NextHop(refusals=refusals) as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            message = sender.compose("patience", sender=APP, to="later@example.net")
            client.sendmail(APP, ["ann@example.net", "later@example.net"], message)
        hop.await_deliveries(lambda taken: len(taken) == 2)
        daemon.await_empty_queue()
        tried = [each.address for each in hop.attempts]
        assert tried.count("later@example.net") == 3
        assert tried.count("ann@example.net") == 1
        assert sorted(each.recipients for each in hop.deliveries) == [("ann@example.net",), ("later@example.net",)]
        assert all(each.sender == APP for each in hop.deliveries)


def test_next_hop_that_is_away_gets_its_mail_when_it_is_back(tmp_path: Path) -> None:
    """C4: a refused connection is a temporary failure; the message survives a restart and arrives when somebody listens."""
    port = free_ports(1)[0]
    with Daemon(tmp_path, routes=[{"via": f"smtp://127.0.0.1:{port}"}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, ["ann@example.net"], sender.compose("away", sender=APP, to="ann@example.net"))
        daemon.restart()
        assert daemon.stored("messages") == 1
        with NextHop(port=port) as hop:
            (taken,) = hop.await_deliveries(bool)
            daemon.await_empty_queue()
            assert sender.field(taken.content, "Subject") == "away"


def test_next_hop_that_is_away_is_left_alone(tmp_path: Path) -> None:
    """C3: refused connections close the destination for a while: the messages behind those that tried it are not tried one by one."""
    port = free_ports(1)[0]
    settings = {"queue": {"retry": ["1h"]}}
    with Daemon(tmp_path, routes=[{"via": f"smtp://127.0.0.1:{port}"}], settings=settings) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            for number in range(30):
                client.sendmail(APP, ["ann@example.net"], sender.compose(f"waiting {number}", sender=APP, to="ann@example.net"))
        daemon.terminate()
        assert daemon.stored("messages") == 30
        lines = (daemon.state / "mail.log").read_text().splitlines()
        assert 1 <= sum(" deferred " in line for line in lines) <= 5  # as many as begin at once at a destination that is not known
