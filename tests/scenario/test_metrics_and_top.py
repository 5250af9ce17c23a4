"""What monitoring sees of the running daemon: `/metrics`, `/readyz`, and `smtpplus top` that reads them."""

import re
import time
import urllib.request
from pathlib import Path

from tests.rig import sender
from tests.rig.commands import run
from tests.rig.daemon import HOST, Daemon, free_ports

APP = "app@example.com"


def test_metrics_readyz_and_top(tmp_path: Path) -> None:
    """C9: counts on /metrics are those of the mail that passed, /readyz says when mail may come, and top shows both."""
    port, closed = free_ports(2)
    routes = [{"destination": "slow.example", "via": f"smtp://{HOST}:{closed}"}, {"via": "discard:"}]
    settings = {"http": {"listen": f"{HOST}:{port}"}, "queue": {"retry": ["1h"]}}
    with Daemon(tmp_path, routes=routes, settings=settings) as daemon:
        password = daemon.add_user("app")
        daemon.start()

        def page(name: str) -> str:
            with urllib.request.urlopen(f"http://{HOST}:{port}/{name}", timeout=10) as answer:
                return str(answer.read().decode())

        with sender.session(daemon.port, "app", password) as client:
            for number in range(5):
                client.sendmail(APP, ["ann@example.net"], sender.compose(f"m{number}", sender=APP, to="ann@example.net"))
        daemon.await_empty_queue()
        deadline = time.monotonic() + 10
        while 'smtpplus_delivered_total{level="3",route="discard"} 5.0' not in (text := page("metrics")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert 'smtpplus_delivered_total{level="3",route="discard"} 5.0' in text
        assert 'smtpplus_accepted_total{level="3",source="client"} 5.0' in text
        assert re.search(r"^smtpplus_commit_seconds_count \d", text, re.MULTILINE)
        assert page("readyz") == "ready\n"
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, ["a@slow.example", "b@slow.example"], sender.compose("late", sender=APP, to="a@slow.example"))
        shown = run(daemon, "top", "--once", "--interval", "0.2")
        assert shown.exit_code == 0, shown.output
        assert re.search(r"accepted \d+\.\d/s", shown.stdout)
        assert "connections 0" in shown.stdout
        assert re.search(r"slow\.example +│ 2 ", shown.stdout)
        daemon.terminate()
        gone = run(daemon, "top", "--once")
        assert (gone.exit_code, "does not answer" in gone.output) == (1, True)
