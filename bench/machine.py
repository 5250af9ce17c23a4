"""What the figures were measured on: without it a rate means nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from bench import postfix


def describe(directory: Path) -> dict[str, str]:
    """Processor, memory, kernel, versions, and the file system under `directory` with what a small durable write costs there."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), platform.machine()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = subprocess.run(
        ["stat", "--file-system", "--format=%T", str(directory)], capture_output=True, text=True, check=True
    ).stdout.strip()
    python = f"Python {platform.python_version()}, Twisted {version('twisted')}, SQLite {sqlite3.sqlite_version}"
    return {
        "processor": f"{os.cpu_count()} of {model}",
        "memory": f"{memory:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.2f} before the first run",
        "file system": f"{system}, 4 KiB written and fsynced in {_fsync(directory) * 1e6:.0f} µs (median)",
        "servers": f"Postfix {postfix.version()}; {python}",
    }


def _fsync(directory: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(200):
            begun = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def processor_seconds(process: int) -> float:
    """The processor time that `process`, with all its threads, has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
