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


def test_a_sender_hears_the_reply_but_of_a_login() -> None:
    """A login of ours that fails is the operator's affair: its sender hears code and status; of all else what was said."""
    login, refused = reasons.PEER_LOGIN_FAILED, reasons.PEER_REFUSED
    reply = login.reply(peer="mx.example.net", cause="535 5.7.8 not with Hunter2")
    disposition = Disposition(Recipient("a@b"), reply, "mx.example.net", login.code)
    assert (str(disposition.said), disposition.reply) == ("454 4.7.0", reply)
    assert Disposition(Recipient("a@b"), reply, "mx.example.net", refused.code).said is reply
    assert Disposition(Recipient("a@b"), reply, "mx.example.net", login.code, told=refused.reply()).said == refused.reply()
