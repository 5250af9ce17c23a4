"""`make bench-accounts`: what 100,000 users with 10 senders each cost, in a real SQLite file.

Four figures: authorization per call, on snapshots as sessions have them; the start of the daemon with and without the users, until it
greets; reading a user who is not in the cache, and a user's change until it is in force; and the memory of the cache while three
times as many users pass through it as it keeps. Status 1 if authorization takes 50 µs or more in the mean, if the start is
not the same within half a second, or if memory grows past the cache.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any, Callable, Sequence

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater, react

from smtpplus.accounts import bulk, lists, passwords, store
from smtpplus.accounts.authorization import authorize, authorize_message
from smtpplus.accounts.directory import CAPACITY, Directory
from smtpplus.accounts.user import Secret, Sender, User
from smtpplus.storage.database import Database
from smtpplus.storage.engine import create_engine, migrate

AIM = 50.0  # µs per authorization
STARTS = 5  # of which the median counts
SLACK = 0.5  # seconds by which the two starts may differ
GROWTH = 1.15  # times the memory of the filled cache: what it may have after three times as many users
HOST = "127.0.0.1"


def user(number: int) -> User:
    """A user with ten senders: six domains, two subtrees, two addresses."""
    kinds = [("domain", f"d{index}.u{number}.example") for index in range(6)]
    kinds += [("subtree", f"s{index}.u{number}.example") for index in range(2)]
    kinds += [("address", f"a{index}@mail{number}.example") for index in range(2)]
    senders = tuple(Sender(kind, value, True, "vouched", 1.0) for kind, value in kinds)  # type: ignore[arg-type]  # the kinds above
    return User(f"user{number}", Secret(passwords.DUMMY), senders=senders)


def fill(url: str, count: int) -> float:
    """Write the users; the seconds it took."""
    migrate(url)
    engine = create_engine(url)
    begun = time.perf_counter()
    with engine.begin() as connection:
        for start in range(0, count, 10_000):
            bulk.add_users(connection, [user(number) for number in range(start, min(start + 10_000, count))], now=1.0)
    engine.dispose()
    return time.perf_counter() - begun


def authorization(url: str, count: int) -> dict[str, tuple[float, float]]:
    """Mean and 99th percentile in µs, by case, over a thousand users and addresses of theirs."""
    engine = create_engine(url)
    with engine.connect() as connection:
        names = [f"user{number}" for number in Random(1).sample(range(count), min(1000, count))]
        chosen = [*store.load_users(connection, names).values()]
    engine.dispose()
    cases: dict[str, Callable[[User, str, int], Any]] = {  # of a user, the number in its name, and one that is another each time
        "allowed by a domain": lambda who, own, new: authorize(who, f"x{new}@d3.u{own}.example", require_verified=True),
        "allowed by a subtree": lambda who, own, new: authorize(who, f"x{new}@b{new}.s1.u{own}.example", require_verified=True),
        "allowed by an address": lambda who, own, new: authorize(who, f"A1@mail{own}.example", require_verified=True),
        "envelope, From and Sender": lambda who, own, new: authorize_message(
            who, f"x{new}@d3.u{own}.example", [f"Name <y{new}@d4.u{own}.example>"], [f"z@d5.u{own}.example"], require_verified=True
        ),
        "refused": lambda who, own, new: authorize(who, f"x{new}@stranger.example", require_verified=True),
        "refused, near miss": lambda who, own, new: authorize(who, f"x{new}@u{own}.example", require_verified=True),
    }
    return {name: _measured(case, chosen) for name, case in cases.items()}


def _measured(case: Callable[[User, str, int], Any], chosen: Sequence[User]) -> tuple[float, float]:
    times: list[float] = []
    for _ in range(10):
        for who in chosen:
            number, new = who.name.removeprefix("user"), len(times)
            begun = time.perf_counter()
            case(who, number, new)
            times.append((time.perf_counter() - begun) * 1e6)
    return statistics.mean(times), statistics.quantiles(times, n=100)[98]


def start(directory: Path) -> float:
    """Seconds from the start of `twistd smtpplus` on the database there until it greets."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = int(free.getsockname()[1])
    config = directory / "smtpplus.toml"
    config.write_text(
        f'hostname = "bench.example.com"\nstate_directory = "{directory}"\n[[listen]]\nports = "{port}"\ninterfaces = ["{HOST}"]\n'
        '[http]\nlisten = ""\n'
    )
    command = [str(Path(sys.executable).parent / "twistd"), "--nodaemon", "--pidfile=", "smtpplus", "--config", str(config)]
    with (directory / "daemon.log").open("ab") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
        _await_greeting(port, process)
        took = time.perf_counter() - begun
    process.send_signal(signal.SIGTERM)
    process.wait(60.0)
    return took


def starts(empty: Path, full: Path) -> tuple[float, float]:
    """The medians of several starts without users and with them, in turns; the first of each makes certificate and schema."""
    pairs = [(start(empty), start(full)) for _ in range(STARTS + 1)][1:]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def _await_greeting(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(60_000):
        try:
            with socket.create_connection((HOST, port), 1.0) as connection:
                if connection.recv(3) == b"220":
                    return
        except OSError:
            if process.poll() is not None:
                raise RuntimeError("the daemon ended while it was starting") from None
        time.sleep(0.001)
    raise RuntimeError("the daemon does not greet")


def resident() -> float:
    """MiB of memory this process has now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@inlineCallbacks
def cache(url: str, count: int) -> Any:
    """MiB before, with the cache full, and after three times as many users; ms per reading; ms until a change is in force."""
    database = Database(url, reactor)
    database.start()
    directory = Directory(database, reactor)
    directory.start()
    wanted = iter(Random(2).sample([f"user{number}" for number in range(count)], min(3 * CAPACITY, count)))
    memory, begun = [resident()], time.perf_counter()
    for many in (CAPACITY, 2 * CAPACITY):
        for name, _ in zip(wanted, range(many), strict=False):
            yield directory.find(name)
        memory.append(resident())
    reading = (time.perf_counter() - begun) * 1e3 / min(3 * CAPACITY, count)
    session = yield directory.find("user7")
    engine = create_engine(url)
    waits = {}
    for what in ("user", "list"):
        with engine.begin() as connection:
            if what == "user":
                store.set_active(connection, "user7", False, now=time.time())
            else:
                lists.edit_list(connection, "default", now=time.time(), settings={"ceiling": 2})
        begun = time.perf_counter()
        while (directory.current(session) or session).active if what == "user" else directory.effective(session).ceiling == 1:
            yield deferLater(reactor, 0.001, lambda: None)
        waits[what] = (time.perf_counter() - begun) * 1e3
    engine.dispose()
    directory.stop()
    yield database.stop()
    return memory, reading, waits


def report(count: int, directory: Path) -> int:
    """Measure, print, and judge."""
    url, empty = f"sqlite:///{directory}/smtpplus.sqlite", directory / "empty"
    empty.mkdir()
    took = fill(url, count)
    size = (directory / "smtpplus.sqlite").stat().st_size / 2**20
    print(f"{count:,} users with 10 senders each: written in {took:.1f} s, {size:.0f} MiB of SQLite")
    print(f"authorization, µs a call (aim: less than {AIM:.0f}){'mean':>12}{'99 %':>8}")
    rates = authorization(url, count)
    for name, (mean, high) in rates.items():
        print(f"  {name:<41}{mean:>10.1f}{high:>8.1f}")
    without, with_ = starts(empty, directory)
    print(f"start until the greeting: {with_:.2f} s with these users, {without:.2f} s without any (median of {STARTS})")
    memory, reading, waits = _in_reactor(url, count)
    print(f"memory: {memory[0]:.0f} MiB, {memory[1]:.0f} MiB with {CAPACITY:,} users read, {memory[2]:.0f} MiB after {3 * CAPACITY:,}")
    print(f"reading a user who is not in the cache: {reading:.2f} ms")
    print(f"until a change is in force, with a full cache: {waits['user']:.0f} ms of a user, {waits['list']:.0f} ms of a list")
    fine = max(mean for mean, _ in rates.values()) < AIM and with_ < without + SLACK and memory[2] < memory[1] * GROWTH
    print("as it should be" if fine else "NOT as it should be")
    return 0 if fine else 1


def _in_reactor(url: str, count: int) -> Any:
    """What `cache` gives."""
    found: list[Any] = []
    try:
        react(lambda _: cache(url, count).addCallback(found.append))
    except SystemExit as ended:
        if ended.code:
            raise
    return found[0]


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="make bench-accounts", description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, metavar="COUNT")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smtpplus-bench-") as directory:
        return report(arguments.users, Path(directory))


if __name__ == "__main__":
    sys.exit(main())
