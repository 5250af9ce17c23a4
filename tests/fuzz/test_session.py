"""The session under octets of all kinds: seeds, hypothesis, and a short run of the fuzzer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.harness import Outcome, check, hold, judge

CORPUS = Path(__file__).parent / "corpus"
SEEDS = sorted(CORPUS.iterdir())
SECONDS = 10  # of the short run
COMMANDS = [
    *(b"EHLO x", b"HELO x", b"NOOP", b"RSET", b"VRFY a", b"QUIT", b"STARTTLS", b"DATA", b"", b"BDAT x", b"AUTH PLAIN AGEAcmlnaHQ="),
    *(b"AUTH PLAIN AGEAd3Jvbmc=", b"AUTH LOGIN", b"YQ==", b"cmlnaHQ=", b"*", b"AUTH SCRAM-SHA-256 biwsbj1hLHI9bg==", b"GET / HTTP/1.1"),
    *(b"MAIL FROM:<a@b.c>", b"MAIL FROM:<slow@b.c> SIZE=10", b"MAIL FROM:<>", b"MAIL FROM:<a@b.c> BODY=8BITMIME SMTPUTF8"),
    *(b"RCPT TO:<x@y.z>", b"RCPT TO:<slow@y.z>", b"RCPT TO:<x@y.z> NOTIFY=NEVER", b"BDAT 5", b"BDAT 0 LAST", b"BDAT 12 LAST"),
    *(b"From: a@b.c", b"Subject: s", b".", b"..", b".x", b"a\nb", b"a\rb", b"\n.", b"\xff\x00", b"x" * 3000),
]


@pytest.mark.parametrize("seed", SEEDS, ids=[seed.name for seed in SEEDS])
def test_seeds_break_no_rule(seed: Path) -> None:
    """RFC 5321 §4.1.4, §4.5.2: each command has one answer, in order; data is no command; what is accepted is what was sent."""
    check(seed.read_bytes())


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 255), st.lists(st.sampled_from(COMMANDS) | st.binary(max_size=20), max_size=25), st.sampled_from([b"\r\n", b"\n", b""])
)
def test_commands_in_any_order_break_no_rule(cut: int, lines: list[bytes], end: bytes) -> None:
    """The same for commands, data and octets in any order, under any pipelining, cut anywhere."""
    check(bytes((cut,)) + b"EHLO x\r\n" + b"\r\n".join(lines) + end)


def test_the_judge_judges() -> None:
    """An answer too many, one too few, a body that differs, a command from data: each is found."""
    octets = b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nDATA\r\nFrom: a@b.c\r\n\r\nNOOP\r\n.\r\nNOOP\r\n"
    right = hold(octets, [])
    judge(octets, right)
    assert len(right.accepted) == 1
    for wrong in (
        Outcome([*right.replies, b"250 2.0.0 Done\r\n"], right.accepted, False),
        Outcome(right.replies[:-1], right.accepted, False),
        Outcome(right.replies, [right.accepted[0].replace(b"NOOP", b"noop")], False),
        Outcome(right.replies, [*right.accepted, b"x"], False),
        Outcome([*right.replies[:5], b"250 2.0.0 Done\r\n", *right.replies[5:]], right.accepted, False),
    ):
        with pytest.raises((AssertionError, IndexError)):
            judge(octets, wrong)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed: pip install .[fuzz]")
def test_the_fuzzer_finds_nothing_in_a_short_run(tmp_path: Path) -> None:
    """`make fuzz` for a few seconds; `make fuzz` itself runs for longer."""
    command = [sys.executable, "-m", "tests.fuzz.fuzz_session", str(tmp_path), str(CORPUS), f"-max_total_time={SECONDS}", "-max_len=2048"]
    done = subprocess.run([*command, f"-artifact_prefix={tmp_path}/"], capture_output=True, timeout=120.0, check=False)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-4000:]
