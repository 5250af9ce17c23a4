"""`python -m bench.observation`: what it costs that the daemon is watched: the same relay with and without observation, alternating.

*With* is the default: mail log, history, metrics, and alerts to an address. *Without* has none of them. The rate is from the first
connect until smtp-sink has counted the last message; beside it stands the processor time that the daemon took for a message, which
other programs on the machine disturb less. Each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from bench.relay import Smtpplus
from bench.run import RESULTS
from bench.traffic import HOST, Sink, free_port, send

WITHOUT = '[http]\nlisten = ""\n[queue]\nhistory = "0s"\n[log]\nmail = ""\n'
WAYS = ("with", "without")


class Watched(Smtpplus):
    """The relay as it is by default, alerts on."""

    def _settings(self, next_hop: int) -> str:
        watched = f'[http]\nlisten = "{HOST}:{free_port()}"\n[alerts]\nto = ["operator@example.net"]\n'
        return super()._settings(next_hop).replace('[http]\nlisten = ""\n', watched)

    def processor_seconds(self) -> float:
        """Of the daemon, all its threads, so far."""
        return machine.processor_seconds(self._process.pid)


class Unwatched(Watched):
    """The relay with nobody watching."""

    def _settings(self, next_hop: int) -> str:
        return Smtpplus._settings(self, next_hop).replace('[http]\nlisten = ""\n', WITHOUT)


def measure(way: str, sink: Sink, arguments: argparse.Namespace) -> tuple[float, float]:
    """Messages a second, and microseconds of processor time for a message, of one run on an empty queue."""
    directory = Path(tempfile.mkdtemp(prefix="smtpplus-bench-", dir=arguments.directory))
    try:
        server = (Watched if way == "with" else Unwatched)(directory / "server", next_hop=sink.port)
        try:
            before, used = sink.count, server.processor_seconds()
            begun = time.monotonic()
            send(server.port, messages=arguments.messages, sessions=arguments.sessions, length=arguments.length, reuse=True)
            sink.await_count(before + arguments.messages)
            rate = arguments.messages / (time.monotonic() - begun)
            time.sleep(0.5)  # what is gathered is written
            return rate, (server.processor_seconds() - used) / arguments.messages * 1e6
        except RuntimeError:
            print(server.log(), file=sys.stderr)
            raise
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m bench.observation", description="the relay with and without observation")
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--length", type=int, default=4096, help="octets of a message")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default="/var/tmp", help="where state lies; not a memory file system")
    arguments = parser.parse_args()
    facts = machine.describe(Path(arguments.directory))
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with Sink() as sink:
        for number in range(arguments.rounds):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                found[way].append(measure(way, sink, arguments))
                rate, cost = found[way][-1]
                print(f"round {number + 1}: {way:8} {rate:7.0f}/s {cost:6.0f} µs", file=sys.stderr, flush=True)
    rates = {way: statistics.median(rate for rate, _ in runs) for way, runs in found.items()}
    costs = {way: statistics.median(cost for _, cost in runs) for way, runs in found.items()}
    lines = [f"{arguments.messages} messages of {arguments.length} octets, {arguments.sessions} sessions, medians of {arguments.rounds}"]
    lines += [f"  {key}: {value}" for key, value in facts.items()]
    lines += [f"relay {way:8} observation {rates[way]:7.0f}/s, {costs[way]:6.0f} µs of processor time a message" for way in WAYS]
    lines.append(
        f"ratio with to without: {rates['with'] / rates['without']:.3f} of the rate, {costs['with'] / costs['without']:.3f} of the time"
    )
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    name = time.strftime("%Y%m%d-%H%M%S-observation")
    (RESULTS / f"{name}.txt").write_text(text)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": facts, "arguments": vars(arguments), "runs": found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
