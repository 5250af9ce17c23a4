"""A storm of equal refusals through the running daemon: one alert, one digest with the exact count; and the verbs."""

import contextlib
import email
import json
import smtplib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.rig import sender
from tests.rig.commands import ask, run
from tests.rig.daemon import HOST, Daemon, free_ports
from tests.rig.next_hop import NextHop

SESSIONS, EACH = 4, 90  # one session may not go on for ever
STORM = SESSIONS * EACH


def test_a_storm_of_refusals_is_one_alert_and_one_digest(tmp_path: Path) -> None:
    """A20, B6: equal refusals are one alert and one digest whose count is exact; who gets it is set by list; `test` arrives."""
    settings = {"alerts": {"to": ["operator@example.net"], "digest": "2s"}}
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}], settings=settings) as daemon:
        password = daemon.add_user("app")
        assert run(daemon, "alerts", "settings", "disk_filling", "off").exit_code == 0
        assert run(daemon, "alerts", "settings", "queue_growing", "maybe").exit_code == 2
        daemon.start()
        for _ in range(SESSIONS):
            with sender.session(daemon.port, "app", password) as client:
                for _ in range(EACH):
                    with pytest.raises(smtplib.SMTPSenderRefused):
                        client.sendmail("x@stranger.example", ["ann@example.net"], b"")
        taken = hop.await_deliveries(lambda taken: len(taken) == 2)
        letters = [email.message_from_bytes(each.content) for each in taken]
        assert {each.recipients for each in taken} == {("operator@example.net",)}
        assert letters[0]["Subject"].endswith("domain not authorized: mail from x@stranger.example was refused")
        assert letters[1]["Subject"].startswith(f"[relay.example.com] {STORM - 1} more: domain not authorized")
        assert f"{STORM} in all" in str(letters[1].get_payload(decode=True))
        (problem,) = [each for each in ask(daemon, "alerts", "list") if each["kind"] == "domain_not_authorized"]
        assert (problem["count"], problem["told"], problem["list"]) == (STORM, STORM, "default")
        shown = run(daemon, "alerts", "list").stdout
        for part in (
            f"(list default): {STORM} times",
            "Who: user app at 127.0.0.1",
            "Remedy: smtpplus sender add",
            "More: smtpplus explain 1",
        ):
            assert part in shown
        assert run(daemon, "list", "edit", "default", "--alerts", "boss@example.net").exit_code == 0
        assert ask(daemon, "alerts", "settings", "--list", "default")["to"] == ["boss@example.net"]
        assert run(daemon, "alerts", "test", "--list", "default").exit_code == 0
        taken = hop.await_deliveries(lambda taken: len(taken) == 3)
        assert taken[2].recipients == ("boss@example.net",)
        daemon.terminate()
        assert (daemon.stored("problems"), len(hop.deliveries)) == (1, 3)


@contextlib.contextmanager
def receiver(port: int, got: list[bytes]) -> Iterator[None]:
    """An HTTP server that takes what is posted."""

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    server = HTTPServer((HOST, port), Taking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_gets_what_it_is_owed_after_a_crash(tmp_path: Path) -> None:
    """C8: an alert that nobody took when the daemon was killed is posted after the next start; `alerts test` is posted, too."""
    (port,) = free_ports(1)
    (tmp_path / "secret").write_text("hidden")
    hook = {"webhook": f"http://{HOST}:{port}/", "webhook_secret_file": str(tmp_path / "secret")}
    with Daemon(tmp_path, routes=[{"via": "discard:"}], settings={"alerts": hook}) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client, pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail("x@stranger.example", ["ann@example.net"], b"")
        deadline = time.monotonic() + 20
        while not daemon.stored("webhook_posts") and time.monotonic() < deadline:
            time.sleep(0.1)
        daemon.kill9()
        got: list[bytes] = []
        with receiver(port, got):
            daemon.start()
            assert run(daemon, "alerts", "test").exit_code == 0
            while daemon.stored("webhook_posts") and time.monotonic() < deadline + 20:
                time.sleep(0.1)
            daemon.terminate()
        assert {"domain_not_authorized", "test"} <= {json.loads(body)["problems"][0]["kind"] for body in got}
