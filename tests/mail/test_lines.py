"""mail.lines: limits of lines."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from smtpplus.mail.lines import overlong


@given(st.lists(st.sampled_from([b"a", b"bcd", b"\n", b"\r\n"]), max_size=40).map(b"".join), st.integers(1, 8))
@example(b"a" * 8, 8)
@example(b"a" * 7 + b"\n", 8)
@example(b"", 1)
def test_a_run_without_a_line_end_is_found(octets: bytes, limit: int) -> None:
    """It says what looking at each octet says: there are so many in a row without LF, or not."""
    assert overlong(octets, limit) == bool(re.search(rb"[^\n]{%d}" % limit, octets))


def test_it_jumps_from_line_to_line() -> None:
    """One step for each line at its limit, where looking for a long one from each octet takes half a line for each."""

    class Counted(bytes):
        steps = 0

        def rfind(self, *place: object) -> int:
            Counted.steps += 1
            return super().rfind(*place)  # type: ignore[arg-type]  # passed on as given

    assert not overlong(Counted((b"x" * 998 + b"\r\n") * 1000), 1000)
    assert Counted.steps <= 1000
