"""Rates and budgets are set for a list, and lifted while the daemon runs: mail over a rate waits, urgent mail over a budget is lowered."""

import time
from pathlib import Path

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import NextHop

APP = "app@example.com"


def test_mail_over_a_rate_waits_and_goes_when_it_may(tmp_path: Path) -> None:
    """C7, D2: of five messages three go under a rate of three a minute, the others when it is lifted; over its budget urgent mail is
    accepted at 3, the reply says so with X.3.6, and explain tells it. A restart gives no new budget."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        assert daemon.cli("list", "edit", "default", "--rate", "3", "--budget", "1").returncode == 0
        daemon.start()
        replies = []
        with sender.session(daemon.port, "app", password) as client:
            for number in range(5):
                fields = {"X-Priority": "1"} if number < 2 else None
                content = sender.compose(f"m-{number}", sender=APP, to="b@example.net", fields=fields)
                client.mail(APP)
                client.rcpt("b@example.net")
                replies.append(client.data(content))
        assert [reply[1].split()[0] for reply in replies] == [b"2.0.0", b"2.3.6", b"2.0.0", b"2.0.0", b"2.0.0"]
        lowered = replies[1][1].split()[3].rstrip(b",").decode()
        hop.await_deliveries(lambda taken: len(taken) == 3)
        time.sleep(1.0)
        assert len(hop.deliveries) == 3
        assert len(daemon.cli_json("queue", "list")["recipients"]) == 2
        assert daemon.cli("list", "edit", "default", "--rate", "inherit").returncode == 0
        hop.await_deliveries(lambda taken: len(taken) == 5)
        daemon.await_empty_queue()
        subjects = [sender.field(each.content, "Subject") for each in hop.deliveries]
        assert sorted(subjects) == [f"m-{number}" for number in range(5)]
        shown = {sender.field(each.content, "Subject"): sender.field(each.content, "X-Priority") for each in hop.deliveries}
        assert (shown["m-0"], shown["m-1"]) == ("1", "")
        explained = daemon.cli("explain", lowered)
        assert explained.returncode == 0
        assert "budget" in explained.stdout, explained.stdout
        daemon.restart()
        time.sleep(1.2)
        with sender.session(daemon.port, "app", password) as client:
            client.mail(APP)
            client.rcpt("b@example.net")
            assert client.data(sender.compose("m-5", sender=APP, to="b@example.net", fields={"X-Priority": "1"}))[1].startswith(b"2.3.6")
