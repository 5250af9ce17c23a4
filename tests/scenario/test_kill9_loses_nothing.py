"""SIGKILL in the middle of everything: what was answered 250 is delivered after the restart.

CRASH_ROUNDS says how many crashes in a row (10; `make crash` does 100).
"""

import collections
import contextlib
import itertools
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import Delivery, NextHop

APP, TO = "app@example.com", "ann@example.net"
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "10"))


def subjects(taken: list[Delivery]) -> collections.Counter[str]:
    return collections.Counter(sender.field(each.content, "Subject") for each in taken)


def all_of(accepted: list[str]) -> Callable[[list[Delivery]], bool]:
    wanted = set(accepted)
    return lambda taken: wanted <= set(subjects(taken))


def test_everything_answered_250_is_delivered_after_a_crash(tmp_path: Path) -> None:
    """C2: SIGKILL under concurrent load, ten times in a row: every message answered 250 arrives, whole, and twice only over a crash."""
    dice = random.Random(2)
    accepted: list[str] = []
    kills: list[float] = []
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        for number in range(ROUNDS):
            daemon.start()
            if number % 2 == 0:  # every other crash hits a daemon that is still recovering from the last
                hop.await_deliveries(all_of(accepted))
            loads = [
                sender.Load(daemon.port, "app", password, sessions=8, name=f"small-{number}", sender=APP, to=TO),
                sender.Load(daemon.port, "app", password, sessions=2, name=f"large-{number}", sender=APP, to=TO, size=150_000),
                sender.Load(daemon.port, "app", password, sessions=1, name=f"long-{number}", sender=APP, to=TO, size=600_000),
            ]
            deadline = time.monotonic() + 30.0
            while not all(load.accepted for load in loads) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(dice.uniform(0.0, 0.8))  # the crash may hit any moment
            daemon.kill9()
            kills.append(time.monotonic())
            for load in loads:
                load.join()
                assert load.accepted, f"round {number}: nothing was accepted before the crash\n{daemon.log()}"
                assert not load.refused, load.refused
                accepted += load.accepted
        daemon.start()
        taken = hop.await_deliveries(all_of(accepted), 120.0)
        daemon.await_empty_queue()
        taken = list(hop.deliveries)

    assert all(sender.is_whole(each.content) for each in taken)
    for subject, count in subjects(taken).items():
        if count > 1:
            begun = sorted(each.begun for each in taken if sender.field(each.content, "Subject") == subject)
            between = [sum(1 for kill in kills if early < kill < late) for early, late in itertools.pairwise(begun)]
            assert all(between), f"{subject} arrived twice with no crash between"


def test_a_crash_leaves_no_content_behind(tmp_path: Path) -> None:
    """C2: SIGKILL in the middle of a long upload, with one that is whole on disk and not committed, and before the file of one that was
    taken out is removed: nobody heard 250, and the next start gives the room back."""
    with Daemon(tmp_path, routes=[{"via": "discard:"}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as half, sender.session(daemon.port, "app", password) as whole:
            for client in (half, whole):
                client.mail(APP)
                client.rcpt(TO)
                assert client.docmd("DATA")[0] == 354
            octets = sender.compose("long", sender=APP, to=TO, size=1_500_000).replace(b"\r\n.", b"\r\n..")
            half.send(octets[:1_000_000])
            with contextlib.closing(sqlite3.connect(daemon.state / "smtpplus.sqlite", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")  # the daemon's commit waits
                whole.send(octets + b".\r\n")
                await_true(lambda: max(daemon.contents().values(), default=0) >= 1_500_000 and len(daemon.contents()) == 2)
                daemon.kill9()
        assert daemon.stored("messages") == 0
        (daemon.state / "smtpplus.sqlite-content" / ("0" * 13)).write_bytes(b"x")  # as a crash between a commit and the removal leaves it
        daemon.start()
        daemon.await_empty_queue()


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.01)
