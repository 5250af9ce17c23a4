"""How the queue scales (`make bench-queue`): urgent mail over a long backlog, a million messages, a dead destination.

Each figure is printed beside that of its idle twin from the same run, with their ratio; nothing is asserted. Times of urgent messages are
those of the mail log: from the acceptance that is answered 250 to the next hop's 250.
"""

from __future__ import annotations

import argparse
import shutil
import smtplib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.backlog import Relay
from bench.slow_hop import SlowHop
from bench.traffic import HOST, Sink

MIB = 1024 * 1024
PAUSE = 0.05  # seconds between urgent messages over a backlog
URGENT = b"From: a@example.com\r\nTo: u@urgent.example\r\nSubject: urgent\r\nX-Priority: 1\r\n\r\n" + (b"y" * 76 + b"\r\n") * 50


@contextmanager
def relay(arguments: argparse.Namespace, settings: str) -> Iterator[Relay]:
    """A relay in a directory of its own that is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="smtpplus-queue-", dir=arguments.directory))
    made = Relay(directory / "relay", settings)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)


def route(port: int) -> str:
    return f'[[route]]\ndestination = "*"\nvia = "smtp://{HOST}:{port}"\n'


def trickle(made: Relay, count: int, pause: float, on: Callable[[], bool] = lambda: True, *, ending: float = 1.0) -> None:
    """Submit up to `count` urgent messages, one each `pause` seconds, while `on` says so."""
    client = smtplib.SMTP(HOST, made.port, timeout=120.0)
    for _ in range(count):
        if not on():
            break
        client.sendmail("a@example.com", ["u@urgent.example"], URGENT)
        time.sleep(pause)
    client.close()
    time.sleep(ending)  # the mail log is written behind


def shown(times: list[float]) -> tuple[float, float]:
    """Median and p99, in milliseconds."""
    ordered = sorted(times)
    return statistics.median(ordered) * 1000, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000


def middle(figures: Iterable[float]) -> float:
    """The median, of figures that come one by one."""
    return statistics.median(list(figures))


def compare(name: str, idle: list[float], busy: list[float]) -> None:
    """One line of the report about urgent messages."""
    if not idle or not busy:
        print(f"{name}: no figure, {len(idle)} urgent messages were delivered while idle and {len(busy)} while busy", flush=True)
        return
    (idle_median, idle_tail), (busy_median, busy_tail) = shown(idle), shown(busy)
    print(
        f"{name}: median {busy_median:.1f} ms, p99 {busy_tail:.1f} ms of {len(busy)}; idle {idle_median:.1f} ms, {idle_tail:.1f} ms "
        f"of {len(idle)}; ratio {busy_median / idle_median:.2f}, {busy_tail / idle_tail:.2f} (wanted: 1.5)",
        flush=True,
    )


def urgent_over_backlog(arguments: argparse.Namespace) -> None:
    """Proof 1: a level-1 message while a backlog is sent as fast as the next hop takes it, and what the backlog loses by it."""
    idle: list[float] = []
    busy: list[float] = []
    alone: list[Drained] = []
    beside: list[Drained] = []
    with Sink() as sink:
        for _ in range(arguments.rounds):
            with relay(arguments, route(sink.port)) as made:
                made.start()
                trickle(made, arguments.urgent, PAUSE)
                idle += made.urgent_times()
            alone.append(drain_with_urgent(arguments, sink, 0))
            beside.append(drain_with_urgent(arguments, sink, arguments.urgent))
            busy += beside[-1].times
    rate, rate_alone = middle(each.rate for each in beside), middle(each.rate for each in alone)
    cost, cost_alone = middle(each.cost for each in beside), middle(each.cost for each in alone)
    share = len(busy) / sum(each.messages for each in beside)
    compare(f"urgent over a backlog of {arguments.backlog} sent at {rate:.0f}/s", idle, busy)
    print(
        f"bulk: {rate_alone:.0f}/s without urgent mail, {rate:.0f}/s beside it: {100 * (1 - rate / rate_alone):.1f} % lost; "
        f"processor time of a message {cost_alone * 1e6:.0f} µs, {cost * 1e6:.0f} µs: {100 * (1 - cost_alone / cost):.1f} %; "
        f"urgent share {100 * share:.2f} % (wanted: at most the share plus 5 %)",
        flush=True,
    )


@dataclass(frozen=True)
class Drained:
    """What became of a backlog beside urgent messages."""

    rate: float  # of bulk, messages/s
    cost: float  # seconds of the relay's processor time for a message, its start with it
    messages: int  # of both kinds
    times: list[float]  # of urgent ones, as Relay.urgent_times has them


def drain_with_urgent(arguments: argparse.Namespace, sink: Sink, urgent: int) -> Drained:
    """Send most of the backlog beside a trickle of `urgent` messages."""
    with relay(arguments, route(sink.port)) as made:
        made.fill(["bulk.example"], arguments.backlog, size=4096)
        begun, before = made.start(), sink.count
        end = before + int(arguments.backlog * 0.9)
        trickle(made, urgent, PAUSE, lambda: sink.count < end, ending=0.0)
        while sink.count < end:
            time.sleep(0.005)
        seconds, count, processor = time.monotonic() - begun, sink.count - before, made.processor_seconds()
        time.sleep(1.0)  # the mail log is written behind
        times = made.urgent_times()
        return Drained((count - len(times)) / seconds, processor / count, count, times)


def urgent_over_large_transfers(arguments: argparse.Namespace) -> None:
    """Proof 1: the same while every bulk connection is in the middle of 10 MiB to a next hop that reads 1 MiB/s."""
    with SlowHop(MIB) as hop:
        with relay(arguments, route(hop.port)) as made:
            made.start()
            trickle(made, 40, 0.25)
            idle = made.urgent_times()
        with relay(arguments, route(hop.port)) as made:
            made.fill(["bulk.example"], 40, size=10 * MIB)
            made.start()
            time.sleep(2.0)
            trickle(made, 40, 0.25)
            busy = made.urgent_times()
    compare("urgent over 10 MiB transfers read at 1 MiB/s", idle, busy)


def drained(made: Relay, sink: Sink, count: int, seconds: float) -> tuple[float, float]:
    """Start the relay; seconds until the first of `count` messages arrived, and the rate from then on, for at most `seconds`."""
    before = sink.count
    begun = made.start()
    while sink.count == before and time.monotonic() < begun + 120.0:
        time.sleep(0.005)
    first, at = time.monotonic(), sink.count
    while sink.count < before + count and time.monotonic() < first + seconds:
        time.sleep(0.005)
    return first - begun, (sink.count - at) / (time.monotonic() - first)


def loopback(number: int) -> str:
    """An address of this machine for each number, so that each destination has a next hop of its own."""
    return f"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"


def million(arguments: argparse.Namespace) -> None:
    """Proof 2: a million queued in 10,000 destinations, against a thousand in as many: both open a connection for most messages."""
    with Sink("0.0.0.0") as sink:
        destinations = max(1, arguments.million // 100)
        settings = f'[delivery]\nmx_port = {sink.port}\ntls = "none"\n'
        rates: list[float] = []
        for count, spread in ((1000, 1000), (arguments.million, destinations)):
            with relay(arguments, settings) as made:
                made.fill([f"[{loopback(number)}]" for number in range(spread)], count, size=1024)
                first, rate = drained(made, sink, count, 30.0)
                rates.append(rate)
                print(
                    f"{count} queued in {spread} destinations: first after {first:.2f} s, {rate:.0f}/s, peak memory {made.memory()} MiB",
                    flush=True,
                )
    print(f"ratio {rates[1] / rates[0]:.2f} (wanted: 0.90; first within 3 s, under 400 MiB)", flush=True)


def dead_destination(arguments: argparse.Namespace) -> None:
    """Proof 3: one destination of a hundred takes connections and never says a word."""
    rates: dict[str, list[float]] = {"alive": [], "dead": []}
    costs: dict[str, list[float]] = {"alive": [], "dead": []}
    with Sink("0.0.0.0") as sink, SlowHop(0) as dead:
        for number in range(arguments.rounds):
            for name in ("alive", "dead") if number % 2 else ("dead", "alive"):
                rate, cost = a_hundred_destinations(arguments, sink, sink.port if name == "alive" else dead.port)
                rates[name].append(rate)
                costs[name].append(cost)
                print(f"a hundred destinations, one {name}: {rate:.0f}/s, {cost * 1e6:.0f} µs of processor time for a message", flush=True)
    rate, cost = (middle(figures["dead"]) / middle(figures["alive"]) for figures in (rates, costs))
    print(f"ratio of rates {rate:.2f} (wanted: 0.99), of processor times {cost:.2f}", flush=True)


def a_hundred_destinations(arguments: argparse.Namespace, sink: Sink, port: int) -> tuple[float, float]:
    """The rate at which 99 destinations get their mail while that for one goes to `port`, and the processor time for each message."""
    count = 20_000
    routes = f'[[route]]\ndestination = "d0.example"\nvia = "smtp://127.0.0.1:{port}"\n' + "".join(
        f'[[route]]\ndestination = "d{number}.example"\nvia = "smtp://127.0.1.{number}:{sink.port}"\n' for number in range(1, 100)
    )
    with relay(arguments, routes) as made:
        made.fill([f"d{number}.example" for number in range(100)], count, size=4096)
        others = count - count // 100
        _, rate = drained(made, sink, others, 120.0)
        return rate, made.processor_seconds() / others


STAGES = {"backlog": urgent_over_backlog, "large": urgent_over_large_transfers, "million": million, "dead": dead_destination}


def main() -> int:
    """Run the stages that were asked for."""
    parser = argparse.ArgumentParser(prog="make bench-queue", description="how the queue scales")
    parser.add_argument("--stage", choices=[*STAGES], action="append", help="only this one; may be repeated")
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--urgent", type=int, default=400, help="urgent messages in each round")
    parser.add_argument("--rounds", type=int, default=3, help="of the stages `backlog` and `dead`, whose twins are compared round by round")
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--directory", default="/var/tmp", help="where queues lie; not a memory file system")
    arguments = parser.parse_args()
    for key, value in machine.describe(Path(arguments.directory)).items():
        print(f"{key}: {value}")
    for name in arguments.stage or [*STAGES]:
        STAGES[name](arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
