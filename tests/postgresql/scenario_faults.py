"""What goes wrong: the daemon is killed, the server restarts, crashes or stays away, a second daemon comes, text holds a NUL."""

from __future__ import annotations

import collections
import signal
import smtplib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.postgresql.cluster import Cluster, ServedDaemon
from tests.rig import sender
from tests.rig.commands import ask, run
from tests.rig.next_hop import Delivery, NextHop

APP, TO = "app@example.com", "ann@example.net"


def subjects(taken: list[Delivery]) -> collections.Counter[str]:
    return collections.Counter(sender.field(each.content, "Subject") for each in taken)


def all_of(accepted: list[str]) -> Callable[[list[Delivery]], bool]:
    wanted = set(accepted)
    return lambda taken: wanted <= set(subjects(taken))


def loads(daemon: ServedDaemon, password: str, name: str) -> list[sender.Load]:
    kinds = (("short", 6, 4096), ("large", 1, 150_000), ("long", 1, 600_000))
    return [
        sender.Load(daemon.port, "app", password, sessions=sessions, name=f"{kind}-{name}", sender=APP, to=TO, size=size)
        for kind, sessions, size in kinds
    ]


def await_some(running: list[sender.Load]) -> None:
    deadline = time.monotonic() + 30.0
    while not all(load.accepted for load in running):
        assert time.monotonic() < deadline, [load.refused for load in running]
        time.sleep(0.01)


def test_a_killed_daemon_loses_nothing(tmp_path: Path, cluster: Cluster) -> None:
    """C2: SIGKILL under load: every message answered 250 arrives, whole; the next daemon serves at once."""
    accepted: list[str] = []
    with NextHop() as hop, ServedDaemon(tmp_path, cluster, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        for number in range(3):
            daemon.start()
            running = loads(daemon, password, str(number))
            await_some(running)
            daemon.kill9()
            for load in running:
                load.join()
                assert not load.refused, load.refused
                accepted += load.accepted
        daemon.start()
        hop.await_deliveries(all_of(accepted), 120.0)
        daemon.await_empty_queue()
        assert all(sender.is_whole(each.content) for each in hop.deliveries)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_restarts_loses_and_refuses_nothing(tmp_path: Path, cluster: Cluster, how: signal.Signals) -> None:
    """C2: over a restart and over a crash of the server clients and deliveries wait; each message arrives once, whole."""
    with NextHop() as hop, ServedDaemon(tmp_path, cluster, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        running = loads(daemon, password, "x")
        await_some(running)
        cluster.stop(how)
        cluster.start()
        before = sum(len(load.accepted) for load in running)
        deadline = time.monotonic() + 30.0
        while sum(len(load.accepted) for load in running) < before + 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        for load in running:
            load.stop()
        assert [refusal for load in running for refusal in load.refused] == []
        accepted = [subject for load in running for subject in load.accepted]
        assert len(accepted) >= before + 20, daemon.log()
        hop.await_deliveries(all_of(accepted))
        daemon.await_empty_queue()
        assert set(subjects(hop.deliveries).values()) == {1}
        assert all(sender.is_whole(each.content) for each in hop.deliveries)


def test_without_the_server_mail_is_put_off(tmp_path: Path, cluster: Cluster) -> None:
    """C2, F2: who is logged in and who is not is answered 4xx while there is no server; then everything goes on without a restart."""
    with NextHop() as hop, ServedDaemon(tmp_path, cluster, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        message = sender.compose("first", sender=APP, to=TO)
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, [TO], message)
            hop.await_deliveries(lambda taken: len(taken) == 1)
            daemon.await_empty_queue()
            cluster.stop()
            try:
                with pytest.raises(smtplib.SMTPResponseException) as refused:
                    client.sendmail(APP, [TO], sender.compose("refused", sender=APP, to=TO))
                assert refused.value.smtp_code // 100 == 4, refused.value
                with pytest.raises(smtplib.SMTPResponseException) as again:  # at once, now that it is known
                    client.sendmail(APP, [TO], sender.compose("refused", sender=APP, to=TO, size=600_000))
                assert again.value.smtp_code // 100 == 4, again.value
                said = run(daemon, "queue", "list")
                assert said.exit_code == 1 and "cannot be used" in said.output, said.output
                assert len(said.output.splitlines()) == 1, said.output
                assert "Remedy: look whether the server runs" in run(daemon, "doctor").output
            finally:
                cluster.start()
            client.sendmail(APP, [TO], sender.compose("afterwards", sender=APP, to=TO))
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, [TO], sender.compose("long afterwards", sender=APP, to=TO, size=600_000))
        hop.await_deliveries(all_of(["first", "afterwards", "long afterwards"]))
        daemon.await_empty_queue()
        assert subjects(hop.deliveries)["refused"] == 0
        daemon.terminate()


def test_one_daemon_serves_a_database(tmp_path: Path, cluster: Cluster) -> None:
    """C2: a second one is told so and changes nothing, what arrives at the first stays whole; it may come when the first has ended."""
    with NextHop() as hop, ServedDaemon(tmp_path / "a", cluster, routes=[{"via": hop.via}]) as first:
        password = first.add_user("app")
        first.start()
        second = ServedDaemon(tmp_path / "b", cluster, routes=[{"via": hop.via}], name=first.database)
        octets = sender.compose("long", sender=APP, to=TO, size=1_500_000).replace(b"\r\n.", b"\r\n..")
        with sender.session(first.port, "app", password) as client:
            client.mail(APP)
            client.rcpt(TO)
            client.docmd("DATA")
            client.send(octets[:1_000_000])
            second.launch()
            assert second.await_end() == 1
            said = second.log_path.read_text()
            assert "smtpplus is not started: another smtpplus uses the database postgresql+psycopg://smtpplus:***@" in said
            assert "Traceback" not in said
            client.send(octets[1_000_000:] + b".\r\n")
            assert client.getreply()[0] == 250
        (taken,) = hop.await_deliveries(lambda taken: len(taken) == 1)
        assert sender.is_whole(taken.content)
        first.kill9()
        with second:
            second.start()
            second.terminate()


def test_text_that_the_server_cannot_hold(tmp_path: Path, cluster: Cluster) -> None:
    """E5: NUL in a subject that is decoded, in a peer's reply, in an address and in a name at login is no fault of the database."""
    with (
        NextHop(refusals={TO: ["450 4.2.1 la\0ter"]}) as hop,
        ServedDaemon(tmp_path, cluster, routes=[{"via": hop.via}]) as daemon,
    ):
        password = daemon.add_user("app")
        daemon.start()
        content = sender.compose("=?utf-8?q?a=00b?=", sender=APP, to=TO)
        with sender.session(daemon.port, "app", password) as client:
            for command in ("MAIL FROM:<app\0@example.com>", f"MAIL FROM:<{APP}> ENVID=a+00b"):
                assert client.docmd(command)[0] == 501
            client.mail(APP)
            assert client.docmd('RCPT TO:<"a\0b"@example.net>')[0] == 501
            client.rset()
            client.sendmail(APP, [TO], content)
        with sender.session(daemon.port) as client, pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login("app\0", "x")
        assert refused.value.smtp_code == 535, refused.value
        (taken,) = hop.await_deliveries(lambda taken: len(taken) == 1)
        assert sender.field(taken.content, "Subject") == "=?utf-8?q?a=00b?="
        daemon.await_empty_queue()
        daemon.terminate()
        assert "Traceback" not in daemon.log_path.read_text()
        (told,) = [each for each in ask(daemon, "explain", "--user", "app") if each["kind"] == "message"]
        assert [each["what"] for each in told["decisions"]] == ["Accepted", "Deferred", "Delivered"]
        assert "\0" not in told["subject"]
