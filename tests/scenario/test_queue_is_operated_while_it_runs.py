"""The queue is held, cancelled, rescheduled and crashed while a slow next hop takes mail. The next hop counts what arrives."""

import collections
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import Delivery, NextHop

APP = "app@example.com"
SLOTS = {"delivery": {"per_destination": 4, "initial_per_destination": 4}}


def submit(daemon: Daemon, password: str, subject: str, fields: dict[str, str] | None = None, size: int = 200) -> None:
    to = f"{subject}@example.net"
    with sender.session(daemon.port, "app", password) as client:
        client.sendmail(APP, [to], sender.compose(subject, sender=APP, to=to, size=size, fields=fields))


def subjects(taken: list[Delivery]) -> collections.Counter[str]:
    return collections.Counter(sender.field(each.content, "Subject") for each in taken)


def await_state(daemon: Daemon, state: str, count: int) -> None:
    """Return when so many recipients are in that state."""
    deadline = time.monotonic() + 30.0
    while len(daemon.cli_json("queue", "list", "--state", state)["recipients"]) != count:
        assert time.monotonic() < deadline, daemon.cli("queue", "list").stdout + daemon.log()
        time.sleep(0.2)


def await_told(daemon: Daemon, done: Callable[[Any], bool]) -> Any:
    """What is explained of the user's mail as soon as `done` holds of it."""
    deadline = time.monotonic() + 30.0
    while not done(told := daemon.cli_json("explain", "--user", "app")):
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    return told


def test_held_mail_outlives_a_crash_and_goes_when_released(tmp_path: Path) -> None:
    """D7, A31: mail held by its user's rule is not sent over a kill -9, urgent mail of the user neither; released, all arrive once."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}], settings=SLOTS) as daemon:
        password = daemon.add_user("app")
        assert daemon.cli("queue", "hold", "--user", "app", "--reason", "looks odd").returncode == 0
        daemon.start()
        for number in range(6):
            submit(daemon, password, f"held-{number}", {"X-Priority": "1"} if number == 5 else None)
        await_state(daemon, "held", 6)
        daemon.kill9()
        daemon.start()
        submit(daemon, password, "held-6")
        time.sleep(1.2)
        await_state(daemon, "held", 7)
        assert hop.deliveries == []
        assert daemon.cli("queue", "cancel", "--id", daemon.cli_json("queue", "list")["recipients"][0]["id"]).returncode == 0
        assert daemon.cli("queue", "release", "--user", "app").returncode == 0
        hop.await_deliveries(lambda taken: len(taken) == 6)
        daemon.await_empty_queue()
        assert subjects(hop.deliveries) == collections.Counter({f"held-{number}": 1 for number in range(1, 7)})
        daemon.terminate()  # the mail log is written in batches: a stop writes what is left
        assert "cancelled" in daemon.log()


def test_a_scheduled_message_outlives_a_crash_and_is_in_time(tmp_path: Path) -> None:
    """A30: X-SMTPAPI holds a message over a kill -9 until its second; it arrives once, without the field; another is taken forward."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        due = time.time() + 7.0
        for subject, at in (("later", due), ("much-later", due + 3600.0)):
            submit(daemon, password, subject, {"X-SMTPAPI": f'{{"Schedule": {at}, "CampaignCode": "spring"}}'})
        await_state(daemon, "scheduled", 2)
        daemon.kill9()
        daemon.start()
        (taken,) = hop.await_deliveries(lambda taken: len(taken) == 1)
        arrived = time.time() - (time.monotonic() - taken.begun)
        assert due - 0.01 <= arrived
        assert (subjects([taken]), sender.field(taken.content, "X-SMTPAPI")) == (collections.Counter({"later": 1}), "")
        assert daemon.cli("queue", "retry", "--all", "--state", "scheduled").returncode == 0
        hop.await_deliveries(lambda taken: len(taken) == 2)
        daemon.await_empty_queue()
        assert subjects(hop.deliveries) == collections.Counter({"later": 1, "much-later": 1})
        told = await_told(daemon, lambda told: [each["what"] for each in told[-1]["decisions"]][2:] == ["Rescheduled", "Delivered"])
        assert "was let go at once by" in told[-1]["decisions"][2]["text"]
        assert told[-1]["first_wait"]["attempted"]


def test_crash_while_a_pause_stops_transfers(tmp_path: Path) -> None:
    """A31, A27: a pause stops what runs in the middle; over a kill -9 all arrive, whole, and twice only what was at its end."""
    size = 300_000
    with NextHop(rate=200_000.0) as hop, Daemon(tmp_path, routes=[{"via": hop.via}], settings=SLOTS) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        for number in range(3):
            submit(daemon, password, f"bulk-{number}", size=size)
        hop.await_deliveries(lambda taken: len({each.connection for each in list(hop.arrivals) if each.octets > 4096}) == 3)
        assert daemon.cli("queue", "pause", "--all", "--for", "4s").returncode == 0
        deadline = time.monotonic() + 20.0
        while len((daemon.cli_json("status")["daemon"] or {}).get("stopped", ())) < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        stopped = {each["id"] for each in daemon.cli_json("status")["daemon"]["stopped"]}
        ended = sum(subjects(hop.deliveries).values())
        daemon.kill9()
        daemon.start()
        hop.await_deliveries(lambda taken: len(subjects(taken)) == 3, 60.0)
        daemon.await_empty_queue()
    doubled = sum(subjects(hop.deliveries).values()) - 3
    assert set(subjects(hop.deliveries)) == {f"bulk-{number}" for number in range(3)}
    assert all(sender.is_whole(each.content) for each in hop.deliveries)
    assert len(stopped) + ended >= 1, "the pause had nothing to stop"
    assert doubled <= 3 - len(stopped), "a transfer that was stopped was sent twice"
