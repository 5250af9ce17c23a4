"""The answer to EHLO, pure: made once, and never older than a minute."""

from __future__ import annotations

import pytest

from smtpplus.config import Configuration, Limits, Submission
from smtpplus.mail.reasons import Refusal
from smtpplus.submission.offer import LEAST_BY, Offer
from smtpplus.submission.parameters import MailParameters

NOON = 1_796_126_400.0  # 2026-12-01T12:00:00Z
HOUR = 3_600.0


def offer(*, tls: bool = True, hold: float = HOUR) -> Offer:
    """The offer of a server that holds messages for an hour."""
    return Offer(
        Configuration(hostname="mail.example.com", limits=Limits(recipients=7), submission=Submission(future_release=hold)), tls=tls
    )


def test_an_answer_is_made_once_and_does_not_grow_old() -> None:
    """RFC 4865 §4: the latest time of release is that of the last minute, also with the clock set back; equal sessions share an answer."""
    made = offer()
    first = made.ehlo(secure=False, mechanisms="PLAIN", size=1_000, now=NOON)
    assert b"\r\n250-FUTURERELEASE 3600 2026-12-01T13:00:00Z\r\n" in first
    assert made.ehlo(secure=False, mechanisms="PLAIN", size=1_000, now=NOON + 59) is first
    for now, latest in ((NOON + 60, b"2026-12-01T13:01:00Z"), (NOON - HOUR, b"2026-12-01T12:00:00Z")):
        assert latest in made.ehlo(secure=False, mechanisms="PLAIN", size=1_000, now=now)


def test_answers_differ_by_circumstances() -> None:
    """RFC 5321 §4.1.1.1: one line each, the last without a hyphen; TLS, login and size make other answers."""
    made = offer()
    lines = made.ehlo(secure=True, mechanisms="", size=5, now=NOON).split(b"\r\n")
    assert (lines[0], lines[-2:], b"250-SIZE 5" in lines) == (b"250-mail.example.com", [b"250 HELP", b""], True)
    assert all(line.startswith(b"250-") for line in lines[:-2])
    assert len({made.ehlo(secure=secure, mechanisms=auth, size=5, now=NOON) for secure in (False, True) for auth in ("", "PLAIN")}) == 4


def test_times_are_settled() -> None:
    """RFC 4865 §5, RFC 2852 §4: intervals become times; what was not asked for stays as it is."""
    made = offer()
    plain = MailParameters(size=5)
    assert made.settle(plain, secure=False, now=NOON) is plain
    assert made.settle(MailParameters(hold_for=3_600), secure=False, now=NOON).release_at == NOON + HOUR
    assert made.settle(MailParameters(hold_until=NOON + 0.5), secure=False, now=NOON).release_at == NOON + 0.5
    settled = made.settle(MailParameters(hold_for=60, by=(-5, "N")), secure=False, now=NOON)
    assert (settled.release_at, settled.deliver_by) == (NOON + 60, NOON - 5)
    assert made.settle(MailParameters(hold_for=60, by=(61, "R")), secure=False, now=NOON).deliver_by == NOON + 61


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (MailParameters(hold_for=3_601), 501),
        (MailParameters(hold_until=NOON), 501),
        (MailParameters(hold_until=NOON + HOUR + 1), 501),
        (MailParameters(hold_for=5, hold_until=NOON + 5), 501),
        (MailParameters(hold_for=90, by=(90, "R")), 501),
        (MailParameters(by=(LEAST_BY - 1, "R")), 555),
        (MailParameters(require_tls=True), 530),
    ],
)
def test_what_is_beyond_the_offer_is_refused(parameters: MailParameters, code: int) -> None:
    """RFC 4865 §5, RFC 2852 §4, RFC 8689 §2: out of range 501, below min-by-time 555, REQUIRETLS in clear 530."""
    with pytest.raises(Refusal) as refused:
        offer().settle(parameters, secure=False, now=NOON)
    assert refused.value.reply.code == code


@pytest.mark.parametrize("parameters", [MailParameters(hold_for=5), MailParameters(hold_until=NOON + 5), MailParameters(require_tls=True)])
def test_what_is_not_offered_is_not_known(parameters: MailParameters) -> None:
    """RFC 5321 §4.1.1.11: where holding is off and there is no TLS, their parameters are 555."""
    with pytest.raises(Refusal) as refused:
        offer(tls=False, hold=0.0).settle(parameters, secure=False, now=NOON)
    assert refused.value.reply.code == 555
