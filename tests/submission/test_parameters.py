"""The parameters of MAIL and RCPT, pure: what each RFC lets a client write, and nothing else."""

from __future__ import annotations

import pytest

from smtpplus.mail.envelope import Recipient
from smtpplus.mail.reasons import Refusal
from smtpplus.submission.parameters import MailParameters, mail_parameters, recipient

AT = 1_796_083_200.0  # 2026-12-01T00:00:00Z


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("RET=full", MailParameters(ret="FULL")),
        ("ret=HDRS ENVID=QQ314159", MailParameters(ret="HDRS", envid="QQ314159")),
        ("ENVID=a+2Bb+3D+20c", MailParameters(envid="a+b= c")),
        ("ENVID=" + "x" * 100, MailParameters(envid="x" * 100)),
        ("MT-PRIORITY=0", MailParameters(priority=0)),
        ("MT-PRIORITY=-9", MailParameters(priority=-9)),
        ("mt-priority=9", MailParameters(priority=9)),
        ("HOLDFOR=1", MailParameters(hold_for=1)),
        ("HOLDFOR=999999999", MailParameters(hold_for=999_999_999)),
        ("HOLDUNTIL=2026-12-01T00:00:00Z", MailParameters(hold_until=AT)),
        ("HOLDUNTIL=2026-12-01T01:30:00.25+01:30", MailParameters(hold_until=AT + 0.25)),
        ("BY=120;R", MailParameters(by=(120, "R"))),
        ("BY=+60;n", MailParameters(by=(60, "N"))),
        ("BY=-60;NT", MailParameters(by=(-60, "NT"))),
        ("BY=000000120;rt", MailParameters(by=(120, "RT"))),
        ("REQUIRETLS SMTPUTF8", MailParameters(require_tls=True, smtputf8=True)),
    ],
)
def test_mail_parameters_are_read(text: str, parameters: MailParameters) -> None:
    """RFC 3461 §4.3, §4.4, RFC 6710 §6, RFC 4865 §4, RFC 2852 §4, RFC 8689 §2: keywords and words in any case, numbers exactly."""
    assert mail_parameters(text) == parameters


@pytest.mark.parametrize(
    "text",
    [
        "RET",
        "RET=",
        "RET=ALL",
        "RET=FULL RET=FULL",
        "ENVID",
        "ENVID=a+b",
        "ENVID=+2",
        "ENVID=+0D+0A",
        "ENVID=+FC",
        "ENVID=ü",
        "ENVID=" + "x" * 101,
        "MT-PRIORITY",
        "MT-PRIORITY=10",
        "MT-PRIORITY=+1",
        "MT-PRIORITY=-0",
        "MT-PRIORITY=01",
        "MT-PRIORITY=1.5",
        "MT-PRIORITY=\u0665",
        "HOLDFOR=0",
        "HOLDFOR=-5",
        "HOLDFOR=1000000000",
        "HOLDFOR=1h",
        "HOLDUNTIL=2026-12-01",
        "HOLDUNTIL=2026-12-01T00:00:00",
        "HOLDUNTIL=2026-13-01T00:00:00Z",
        "HOLDUNTIL=20261201T000000Z",
        "HOLDUNTIL=1796083200",
        "BY=0;R",
        "BY=-1;R",
        "BY=60",
        "BY=60;",
        "BY=60;X",
        "BY=60;RTT",
        "BY=60;T",
        "BY=1234567890;R",
        "BY=60;R BY=60;N",
        "REQUIRETLS=yes",
        "REQUIRETLS REQUIRETLS",
    ],
)
def test_malformed_mail_parameters_are_501(text: str) -> None:
    """RFC 5321 §4.1.1.11: a parameter that is known and malformed, or given twice, is 501 5.5.4."""
    with pytest.raises(Refusal) as refused:
        mail_parameters(text)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (501, "5.5.4")


@pytest.mark.parametrize("text", ["NOTIFY=NEVER", "RRVS=2014-04-03T23:01:00Z", "HOLD=5", "ORCPT=rfc822;x@a.com", "BINARYMIME"])
def test_unknown_mail_parameters_are_555(text: str) -> None:
    """RFC 5321 §4.1.1.11: a parameter that EHLO did not offer for MAIL is 555 5.5.4."""
    with pytest.raises(Refusal) as refused:
        mail_parameters(text)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (555, "5.5.4")


@pytest.mark.parametrize(
    ("text", "notify", "orcpt"),
    [
        ("NOTIFY=never", "NEVER", ""),
        ("NOTIFY=delay,SUCCESS", "SUCCESS,DELAY", ""),
        ("NOTIFY=FAILURE,FAILURE", "FAILURE", ""),
        ("ORCPT=rfc822;Bob+2Bbox@example.net", "", "rfc822;Bob+box@example.net"),
        ("notify=SUCCESS,FAILURE,DELAY orcpt=x400;/C+3Dde/", "SUCCESS,FAILURE,DELAY", "x400;/C=de/"),
        ("ORCPT=utf-8;j\\x{F6}rg@example.net", "", "utf-8;jörg@example.net"),
        ("ORCPT=utf-8;jörg@example.net", "", "utf-8;jörg@example.net"),
    ],
)
def test_recipient_parameters_are_read(text: str, notify: str, orcpt: str) -> None:
    """RFC 3461 §4.1, §4.2, RFC 6533 §3: NOTIFY in one order, ORCPT as it is meant."""
    assert recipient("x@example.net", text) == Recipient("x@example.net", notify, orcpt)


@pytest.mark.parametrize(
    "text",
    [
        "NOTIFY",
        "NOTIFY=",
        "NOTIFY=NEVER,SUCCESS",
        "NOTIFY=SUCCESS,",
        "NOTIFY=ALWAYS",
        "NOTIFY=NEVER NOTIFY=NEVER",
        "ORCPT=x@example.net",
        "ORCPT=rfc822;",
        "ORCPT=;x@example.net",
        "ORCPT=rfc822;a+b@example.net",
        "ORCPT=rfc822;a+0Ab@example.net",
        "ORCPT=rfc822;" + "x" * 500,
        "ORCPT=utf-8;\\x{D800}@example.net",
        "ORCPT=utf-8;\\x{110000}@example.net",
        "ORCPT=rf c",
    ],
)
def test_malformed_recipient_parameters_are_501(text: str) -> None:
    """RFC 3461 §4.1, §4.2: NEVER stands alone; an original recipient has a type, an address, and 500 characters at most."""
    with pytest.raises(Refusal) as refused:
        recipient("x@example.net", text)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (501, "5.5.4")
