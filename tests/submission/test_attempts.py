"""Failed logins by address and user: turns that lie further and further apart."""

from __future__ import annotations

import base64
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import inlineCallbacks

from smtpplus.config import Limits
from smtpplus.submission.attempts import KEPT, LONGEST_STEP, LONGEST_WAIT, WINDOW, Attempts
from tests.submission.rig import LOGIN, Client, SessionCase, status

WRONG = f"AUTH PLAIN {base64.b64encode(b'%capp%cwrong' % (0, 0)).decode()}"


def failing(limit: int, failures: int) -> Attempts:
    attempts = Attempts(limit)
    for _ in range(failures):
        attempts.failed("192.0.2.1", "app", 0.0)
    return attempts


def test_turns_lie_further_and_further_apart() -> None:
    """Under the limit nobody waits; beyond it each failure doubles the step, up to LONGEST_STEP; a right password waits as a wrong one."""
    attempts = failing(3, 2)
    assert attempts.wait("192.0.2.1", "app", 0.0) == 0.0
    now, steps = 0.0, []
    for _ in range(8):
        attempts.failed("192.0.2.1", "app", now)
        assert attempts.wait("192.0.2.1", "app", now) == 0.0  # this turn is free
        steps.append(attempts.wait("192.0.2.1", "app", now))
        now += 1000.0 / 8
    assert steps[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(step for step in steps if step is not None) == LONGEST_STEP


def test_parallel_logins_take_turns() -> None:
    """Many connections get no further than one: turns add up, and whoever would wait too long is refused."""
    attempts = failing(1, 20)
    waits = [attempts.wait("192.0.2.1", "app", 10.0) for _ in range(4)]
    assert waits == [0.0, LONGEST_STEP, None, None]


def test_others_do_not_wait() -> None:
    """Another user, another address, a limit of 0, an hour later: no waiting."""
    attempts = failing(1, 20)
    assert attempts.wait("192.0.2.1", "other", 0.0) == 0.0
    assert attempts.wait("192.0.2.2", "app", 0.0) == 0.0
    assert attempts.wait("192.0.2.1", "app", WINDOW + 1.0) == 0.0
    assert failing(0, 20).wait("192.0.2.1", "app", 0.0) == 0.0
    assert len(failing(0, 20)) == 0


def test_memory_is_bounded() -> None:
    """However many users are tried, no more than KEPT pairs are kept; the one that is used stays."""
    attempts = Attempts(1)
    for number in range(KEPT + 100):
        attempts.failed("192.0.2.1", "app", 0.0)
        attempts.failed("192.0.2.1", f"user{number}", 0.0)
    assert len(attempts) == KEPT
    attempts.wait("192.0.2.1", "app", 0.0)
    assert attempts.wait("192.0.2.1", "app", 0.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60), st.integers(1, 5))
def test_the_rate_of_guesses_is_bounded(steps: list[tuple[float, bool]], limit: int) -> None:
    """Whatever the order of logins, once the limit is passed no two are looked at less than a second apart."""
    attempts = failing(limit, limit)
    now, looked_at = 0.0, []
    for pause, fails in steps:
        now += pause
        wait = attempts.wait("192.0.2.1", "app", now)
        if wait is not None:
            assert 0.0 <= wait <= LONGEST_WAIT
            looked_at.append(now + wait)
        if fails and now < WINDOW:
            attempts.failed("192.0.2.1", "app", now)
    within = [time for time in looked_at if time < WINDOW]
    assert all(later - earlier > 0.999 for earlier, later in itertools.pairwise(within))


class TarpitTests(SessionCase):
    """Over real sockets."""

    @inlineCallbacks
    def test_a_right_password_waits_for_its_turn(self) -> Any:
        """`auth_failures_per_address`: beyond it the password is looked at later; until then the server works for everybody else."""
        self.serve(limits=Limits(grace=0.2, auth_failures_per_address=1))

        def dialog() -> list[str]:
            client, late, other = Client(self.port), Client(self.port), Client(self.port)
            codes = client.codes("EHLO client.example", WRONG, WRONG)
            late.say("EHLO client.example")
            late.send(LOGIN.encode() + b"\r\n")
            codes += other.codes("EHLO other.example", "NOOP")
            codes.append(status(late.reply()))
            for each in (client, late, other):
                each.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["250", "535 5.7.8", "535 5.7.8", "250", "250 2.0.0", "235 2.7.0"])

    @inlineCallbacks
    def test_too_many_failures_end_the_connection(self) -> Any:
        """`auth_failures_per_connection`: 421, and the limit is named."""
        self.serve(limits=Limits(grace=0.2, auth_failures_per_connection=2))

        def dialog() -> list[str]:
            client = Client(self.port)
            replies = [*client.say("EHLO client.example", WRONG, WRONG), client.reply()]
            assert client.ended()
            client.close()
            return replies

        replies = yield self.during(dialog)
        self.assertEqual(status(replies[-1]), "421 4.7.0")
        self.assertIn("2 for a connection", replies[-1])
