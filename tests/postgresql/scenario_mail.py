"""What a relay does all day, on PostgreSQL: mail of every length, deferred, refused, held, scheduled; users, lists, what is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.postgresql.cluster import Cluster, ServedDaemon
from tests.rig import sender
from tests.rig.commands import ask, run
from tests.rig.next_hop import NextHop

APP, TO = "app@example.com", "ann@example.net"


def submit(
    daemon: ServedDaemon, password: str, subject: str, *, size: int = 200, fields: dict[str, str] | None = None, to: str = TO
) -> None:
    with sender.session(daemon.port, "app", password) as client:
        client.sendmail(APP, [to], sender.compose(subject, sender=APP, to=to, size=size, fields=fields))


def do(daemon: ServedDaemon, *arguments: str) -> str:
    """What a command prints that does what it is asked."""
    result = run(daemon, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def until(daemon: ServedDaemon, done: Callable[[Any], bool], *arguments: str) -> Any:
    """What a reading command says as soon as `done` holds of it."""
    deadline = time.monotonic() + 30.0
    while not done(said := ask(daemon, *arguments)):
        assert time.monotonic() < deadline, f"{said}\n{daemon.log()}"
        time.sleep(0.1)
    return said


def test_mail_of_every_length_arrives(tmp_path: Path, cluster: Cluster) -> None:
    """C2: in one row, in several, and in pieces as it comes; nothing is left of it, and its story is told."""
    with NextHop() as hop, ServedDaemon(tmp_path, cluster, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        for size in (200, 100_000, 300_000, 10 * 1024**2):
            submit(daemon, password, f"of {size}", size=size)
        with sender.session(daemon.port, "app", password) as client:  # one that is broken off leaves nothing
            client.mail(APP)
            client.rcpt(TO)
            client.docmd("DATA")
            client.send(sender.compose("half", sender=APP, to=TO, size=1_000_000)[:700_000])
            client.close()
        hop.await_deliveries(lambda taken: len(taken) == 4)
        daemon.await_empty_queue()
        assert all(sender.is_whole(each.content) for each in hop.deliveries)
        told = until(
            daemon,
            lambda told: len(told) == 4 and all(each["decisions"][-1]["what"] == "Delivered" for each in told),
            "explain",
            "--user",
            "app",
        )
        assert sorted(each["subject"] for each in told) == sorted(f"of {size}" for size in (200, 100_000, 300_000, 10 * 1024**2))
        assert ask(daemon, "explain", told[0]["message_id"])["id"] == told[0]["id"]
        (row,) = ask(daemon, "stats", "--by", "user", "--since", "1h")["rows"]
        assert (row["user"], row["messages"], row["delivered"]) == ("app", 4, 4)
        assert not (daemon.state / "smtpplus.sqlite").exists()


def test_what_is_put_off_and_what_is_refused(tmp_path: Path, cluster: Cluster) -> None:
    """C4: a 450 is tried again, a 550 is told to the sender, once each; an alert counts what failed."""
    refusals = {"late@example.net": ["450 4.2.1 later", "450 4.2.1 later"], "gone@example.net": ["550 5.1.1 no such user"]}
    with NextHop(refusals=refusals) as hop, ServedDaemon(tmp_path, cluster, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        for name in ("late", "gone"):
            submit(daemon, password, name, to=f"{name}@example.net", size=400_000)
        hop.await_deliveries(lambda taken: len(taken) == 2)
        daemon.await_empty_queue()
        assert {each.recipients[0] for each in hop.deliveries} == {"late@example.net", APP}
        attempts = [each.address for each in hop.attempts]
        assert (attempts.count("late@example.net"), attempts.count("gone@example.net")) == (3, 1)
        until(daemon, lambda said: "Bounced" in [each["what"] for each in said[-1]["decisions"]], "explain", "--user", "app")
        assert run(daemon, "alerts", "list").exit_code == 0


def test_the_queue_is_operated(tmp_path: Path, cluster: Cluster) -> None:
    """D7, A30, A31: held, listed, cancelled, rescheduled, retried and released while the daemon runs, and over a kill -9."""
    with NextHop() as hop, ServedDaemon(tmp_path, cluster, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        do(daemon, "queue", "hold", "--user", "app", "--reason", "looks odd")
        time.sleep(1.2)
        for name in ("held", "cancelled", "put-off"):
            submit(daemon, password, name, to=f"{name}@example.net")
        submit(daemon, password, "scheduled", fields={"X-SMTPAPI": f'{{"Schedule": {time.time() + 3600}}}'})
        listed = until(daemon, lambda said: len(said["recipients"]) == 3, "queue", "list", "--state", "held")["recipients"]
        ids = {each["recipient"].partition("@")[0]: each["id"] for each in listed}
        do(daemon, "queue", "cancel", "--id", ids["cancelled"])
        do(daemon, "queue", "reschedule", "--id", ids["put-off"], "--in", "1h")
        daemon.kill9()
        daemon.start()
        until(daemon, lambda said: len(said["recipients"]) == 2, "queue", "list", "--state", "scheduled")
        do(daemon, "queue", "release", "--user", "app")
        hop.await_deliveries(lambda taken: len(taken) == 1)
        do(daemon, "queue", "retry", "--all", "--state", "scheduled")
        hop.await_deliveries(lambda taken: len(taken) == 3)
        daemon.await_empty_queue()
        assert {sender.field(each.content, "Subject") for each in hop.deliveries} == {"held", "put-off", "scheduled"}
        assert run(daemon, "queue", "pause", "--all", "--for", "1s").exit_code == 0
        assert "recipients" in ask(daemon, "queue", "list")


def test_users_lists_senders_and_keys(tmp_path: Path, cluster: Cluster) -> None:
    """D1, D2: what the commands change is in force within a second, and a budget and a rate count; the reading commands read."""
    with NextHop() as hop, ServedDaemon(tmp_path, cluster, routes=[{"via": hop.via}]) as daemon:
        do(daemon, "list", "add", "news", "--budget", "1")
        password = daemon.add_user("app", "--list", "news")
        do(daemon, "dkim", "add", "example.com")
        daemon.start()
        for number in range(2):
            submit(daemon, password, f"urgent {number}", fields={"X-Priority": "1"})
        hop.await_deliveries(lambda taken: len(taken) == 2)
        assert all(b"DKIM-Signature:" in each.content for each in hop.deliveries)
        told = until(daemon, lambda told: len(told) == 2 and all(each["decisions"] for each in told), "explain", "--user", "app")
        assert sorted(each["level"] for each in told) == [1, 3]
        do(daemon, "list", "edit", "news", "--rate", "1")
        do(daemon, "user", "edit", "app", "--note", "Zoë — 😀")
        do(daemon, "sender", "add", "app", "news@example.org", "--vouch")
        time.sleep(1.2)
        for number in range(3):
            submit(daemon, password, f"slow {number}")
        until(daemon, lambda said: len(said["recipients"]) >= 1, "queue", "list")
        assert ask(daemon, "user", "show", "app")["note"] == "Zoë — 😀"
        assert ask(daemon, "check", "--user", "app", "--from", "news@example.org")["authorized"] is True
        for reading in (
            ("status",),
            ("list", "list"),
            ("user", "list"),
            ("sender", "list"),
            ("dkim", "list"),
            ("alerts", "list"),
            ("check", "--would-block"),
            ("who-may-send", APP),
        ):
            assert run(daemon, *reading, "--json").exit_code == 0, reading
        assert "app" in do(daemon, "user", "export")
        do(daemon, "user", "delete", "app")
