"""mail.disposition: what queue and delivery say to each other."""

from __future__ import annotations

import pytest

from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import Recipient
from smtpplus.mail.reply import Outcome


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [(reasons.DELIVERED, Outcome.DONE), (reasons.CONNECTION_REFUSED, Outcome.DEFERRED), (reasons.NULL_MX, Outcome.FAILED)],
    ids=lambda value: getattr(value, "code", ""),
)
def test_the_reply_decides_the_outcome(reason: reasons.Reason, outcome: Outcome) -> None:
    """Style 2: a disposition has no opinion on permanence besides its reply's."""
    reply = reason.reply(peer="mx.example.net", domain="example.net")
    assert Disposition(Recipient("a@b"), reply, "mx.example.net", reason.code).outcome is outcome
