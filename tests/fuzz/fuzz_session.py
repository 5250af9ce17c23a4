"""`make fuzz`: atheris looks for octets with which the session breaks its rules. See `harness`; the seeds are in `corpus`.

python -m tests.fuzz.fuzz_session [CORPUS …] [-max_total_time=SECONDS …]: libFuzzer's own options. An input that breaks a rule is kept
as crash-…; put it into `corpus`, where it is a test from then on.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["smtpplus.submission", "smtpplus.mail"]):
    from tests.fuzz.harness import check


def main() -> None:
    """Run until libFuzzer has enough."""
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
