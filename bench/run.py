"""`make bench`: smtpplus and Postfix in the same run, alternating, on the same file system, with the same traffic.

*accept* and *accept, new connections*: the next hop is down, for both servers alike, so that nothing but the durable acceptance is
measured (and the queue's first, vain attempts). *relay*: the clock runs from the first connect until smtp-sink has counted the last
message. Postfix's held stage is shown beside them: there it only stores and does not even try, which smtpplus has no equal of.
*application*: what a program with a mail library does for each message: connect, EHLO, STARTTLS, EHLO, AUTH, the message, QUIT, by
8 clients at a time, the next hop down; with a full handshake, with TLS sessions resumed, and without TLS. *large*: relay of 20 messages
of 10 MiB. *signed*: relay with DKIM, smtpplus alone, against its own rate without. Each figure is the median of the rounds, each run
begins with an empty queue, and each ends with a count: nothing lost, nothing left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pstats
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from bench import machine, memory
from bench.application import CLIENTS, Application, Security
from bench.postfix import Postfix
from bench.relay import Smtpplus
from bench.traffic import Sink, send

NOBODY = 9  # the discard port: nothing listens there, a connection is refused at once
RESULTS = Path(__file__).parent / "results"


class Stage(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    reuse: bool  # one connection per session, or one per message
    relay: bool
    aim: float  # times Postfix's rate, from the requirements
    held: bool = False  # Postfix alone
    security: Security | None = None  # a typical application's session, and not smtp-source's
    messages: int = 0  # and the next: if not as the command line says
    length: int = 0
    signed: str = ""  # smtpplus alone, signing by this algorithm; the aim is against RELAY


ACCEPT = Stage("accept", reuse=True, relay=False, aim=2.5)
CONNECT = Stage("accept, new connections", reuse=False, relay=False, aim=1.3)
RELAY = Stage("relay", reuse=True, relay=True, aim=3.0)
HELD = Stage("accept, held (Postfix only)", reuse=True, relay=False, aim=0.0, held=True)
APPLICATION = Stage("application, TLS", reuse=False, relay=False, aim=1.0, security="tls")
RESUMED = Stage("application, TLS resumed", reuse=False, relay=False, aim=1.0, security="resumed")
CLEAR = Stage("application, no TLS", reuse=False, relay=False, aim=1.3, security="clear")
LARGE = Stage("relay, 20 of 10 MiB", reuse=True, relay=True, aim=0.8, messages=20, length=10 * 1024**2)
SIGNED = Stage("relay, signed by ed25519", reuse=True, relay=True, aim=0.8, signed="ed25519")
SIGNED_RSA = Stage("relay, signed by rsa", reuse=True, relay=True, aim=0.0, signed="rsa")
MEMORY = "memory"  # see bench.memory
STAGES = (ACCEPT, CONNECT, RELAY, LARGE, SIGNED, SIGNED_RSA, APPLICATION, RESUMED, CLEAR)


class Bench:
    """The runs of one invocation."""

    def __init__(self, arguments: argparse.Namespace, sink: Sink, application: Application | None) -> None:
        self._arguments = arguments
        self._sink = sink
        self._application = application

    def rate(self, stage: Stage, server: str, profile: Path | None = None) -> float:
        """Messages a second of one run of `server` on an empty queue."""
        directory = Path(tempfile.mkdtemp(prefix="smtpplus-bench-", dir=self._arguments.directory))
        directory.chmod(0o755)  # Postfix's processes must be able to enter
        try:
            next_hop = self._sink.port if stage.relay else NOBODY
            running: Postfix | Smtpplus
            if server == Postfix.name:
                running = Postfix(directory / "server", next_hop=next_hop, held=stage.held, logins=stage.security is not None)
            else:
                running = Smtpplus(directory / "server", next_hop=next_hop, profile=profile, signed=stage.signed)
            try:
                return self._traffic(stage, running)
            except RuntimeError:
                print(running.log(), file=sys.stderr)
                raise
            finally:
                running.stop()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _traffic(self, stage: Stage, server: Postfix | Smtpplus) -> float:
        messages = stage.messages or self._arguments.messages
        before = self._sink.count
        begun = time.monotonic()
        length = stage.length or self._arguments.length
        if stage.security is not None:
            assert self._application is not None
            seconds = self._application.send(server.port, stage.security, messages=messages, length=length)
        else:
            seconds = send(server.port, messages=messages, sessions=self._arguments.sessions, length=length, reuse=stage.reuse)
        if stage.relay:
            self._sink.await_count(before + messages)
            seconds = time.monotonic() - begun
        else:
            self._count_queue(server, messages)
        return float(messages / seconds)

    def _count_queue(self, server: Postfix | Smtpplus, messages: int) -> None:
        """Everything that was answered 250 is in the queue. A count may catch a message between two places, so it is repeated."""
        deadline = time.monotonic() + 30.0
        while (found := server.queued()) != messages:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{server.name} accepted {messages} messages and has {found}")
            time.sleep(0.5)


def measure(bench: Bench, stages: list[Stage], servers: list[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Rates by stage and server. The servers alternate, and who begins alternates too."""
    rates: dict[str, dict[str, list[float]]] = {stage.name: {} for stage in stages}
    for number in range(rounds):
        for stage in stages:
            order = [Postfix.name] if stage.held else [Smtpplus.name] if stage.signed else servers
            for server in order if number % 2 == 0 else reversed(order):
                rate = bench.rate(stage, server)
                rates[stage.name].setdefault(server, []).append(rate)
                print(f"round {number + 1}: {stage.name:28} {server:9} {rate:7.0f}/s", file=sys.stderr, flush=True)
    return rates


def report(rates: dict[str, dict[str, list[float]]], machine_facts: dict[str, str], arguments: argparse.Namespace) -> str:
    """The table, and what it was measured on."""
    lines = [f"{arguments.messages} messages of {arguments.length} octets, medians of {arguments.rounds}"]
    lines.append(f"{arguments.sessions} sessions at a time, {CLIENTS} in the stages of an application")
    lines += [f"  {key}: {value}" for key, value in machine_facts.items()]
    lines += ["", f"{'messages a second':28} {'postfix':>9} {'smtpplus':>9} {'ratio':>7} {'wanted':>7}"]
    aims = {stage.name: stage.aim for stage in STAGES}
    for stage, found in rates.items():
        medians = {server: statistics.median(values) for server, values in found.items()}
        cells = [f"{medians[server]:9.0f}" if server in medians else f"{'-':>9}" for server in ("postfix", "smtpplus")]
        against = rates.get(RELAY.name, {}).get("smtpplus") if stage in (SIGNED.name, SIGNED_RSA.name) else found.get("postfix")
        ratio = f"{medians['smtpplus'] / statistics.median(against):7.2f}" if against and "smtpplus" in medians else f"{'-':>7}"
        lines.append(f"{stage:28} {' '.join(cells)} {ratio} {aims.get(stage) or '-':>7}")
    if SIGNED.name in rates:
        lines.append(f"(signed: against {RELAY.name} of smtpplus without)")
    return "\n".join(lines) + "\n"


def slowest(rates: dict[str, dict[str, list[float]]]) -> Stage:
    """The stage whose ratio is furthest behind what is wanted (with smtpplus alone: whose rate is lowest)."""

    def standing(stage: Stage) -> float:
        found = rates[stage.name]
        own = statistics.median(found["smtpplus"])
        return own / statistics.median(found["postfix"]) / stage.aim if "postfix" in found else own

    return min((stage for stage in STAGES if not stage.signed and "smtpplus" in rates.get(stage.name, {})), key=standing)


def show_profile(bench: Bench, stage: Stage, path: Path) -> None:
    """Run `stage` once more under cProfile and print where the reactor's thread spends its time."""
    rate = bench.rate(stage, Smtpplus.name, profile=path)
    print(f"\nprofile of the reactor's thread, {stage.name} ({rate:.0f}/s under the profiler), kept in {path}")
    pstats.Stats(str(path)).sort_stats("tottime").print_stats(30)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description="smtpplus against Postfix in the same run")
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--length", type=int, default=4096, help="octets of a message")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--stage", choices=[*(stage.name for stage in (*STAGES, HELD)), MEMORY], action="append", help="only this one; may be repeated"
    )
    parser.add_argument("--server", choices=[Postfix.name, Smtpplus.name], help="only this one")
    parser.add_argument("--directory", default="/var/tmp", help="where queues and state lie; not a memory file system")
    parser.add_argument("--profile", action="store_true", help="afterwards, the CPU profile of the slowest stage")
    return parser.parse_args(arguments)


def main() -> int:
    """Measure, print, keep."""
    arguments = parse()
    if os.geteuid() != 0 and arguments.server != Smtpplus.name:
        print('Postfix\'s master needs root: run `make bench` as root, or BENCH="--server smtpplus"', file=sys.stderr)
        return 1
    facts: dict[str, str] = machine.describe(Path(arguments.directory))
    stages = [stage for stage in (*STAGES, HELD) if not arguments.stage or stage.name in arguments.stage]
    servers = [arguments.server] if arguments.server else [Postfix.name, Smtpplus.name]
    stages = [
        stage for stage in stages if not ((stage.held and Postfix.name not in servers) or (stage.signed and Smtpplus.name not in servers))
    ]
    RESULTS.mkdir(exist_ok=True)
    name = time.strftime("%Y%m%d-%H%M%S")
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink())
        application = stack.enter_context(Application()) if any(stage.security for stage in stages) else None
        bench = Bench(arguments, sink, application)
        rates = measure(bench, stages, servers, arguments.rounds)
        text = report(rates, facts, arguments) if rates else ""
        if Smtpplus.name in servers and (not arguments.stage or MEMORY in arguments.stage):
            text += memory.report(memory.measure(arguments.directory, NOBODY))
        print(text)
        kept: dict[str, Any] = {"machine": facts, "arguments": vars(arguments), "rates": rates}
        (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
        (RESULTS / f"{name}.txt").write_text(text)
        if arguments.profile and rates and Smtpplus.name in servers:
            show_profile(bench, slowest(rates), RESULTS / f"{name}.profile")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
