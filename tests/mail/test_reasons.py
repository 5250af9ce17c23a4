"""mail.reasons: the closed list (B8)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smtpplus.mail import reasons
from smtpplus.mail.reasons import REASONS, Reason, Refusal
from smtpplus.mail.reply import Outcome

_NAMES = {"address", "domain", "user", "near", "where", "command", "parameter", "limit", "peer", "cause"}
_all = pytest.mark.parametrize("reason", REASONS.values(), ids=list(REASONS))


@_all
def test_each_reason_is_a_constant_of_its_name(reason: Reason) -> None:
    """B8: a reason is known by its code, and its constant is the code in upper case."""
    assert getattr(reasons, reason.code.upper()) is reason
    assert REASONS[reason.code] is reason


@_all
def test_codes_agree(reason: Reason) -> None:
    """RFC 3463 §2: the class of the enhanced code is the first digit of the reply code."""
    assert re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", reason.enhanced)
    assert reason.enhanced[0] == str(reason.reply_code)[0]


@_all
def test_texts_are_whole(reason: Reason) -> None:
    """B8: every reason has text and explanation, wants only details of the documented names, and fits its words together."""
    assert reason.text and reason.explanation.endswith(".")
    assert not reason.text.endswith(".") and not reason.remedy.endswith(".")
    assert reason.fields <= _NAMES
    assert reason.reply(**dict.fromkeys(reason.fields, "x")).text.isascii()


def test_the_constants_are_all_in_the_list() -> None:
    """B8: the list is closed: no reason stands outside it."""
    constants = {value.code for value in vars(reasons).values() if isinstance(value, Reason)}
    assert constants == set(REASONS)


def test_failed_logins_sound_alike() -> None:
    """A7, B1: unknown user, wrong password and inactive user have the words and codes of the one public reason."""
    public = reasons.LOGIN_FAILED
    for secret in (reasons.UNKNOWN_USER, reasons.WRONG_PASSWORD, reasons.INACTIVE_USER, reasons.INACTIVE_UNVERIFIED):
        assert (secret.reply_code, secret.enhanced, secret.text) == (public.reply_code, public.enhanced, public.text)
    assert (public.reply_code, public.enhanced) == (535, "5.7.8")


def test_a_near_miss_is_named() -> None:
    """B2: the reply says which domain is authorized, which is not, and what to enter."""
    refusal = reasons.NEAR_DOMAIN.refusal(
        where="header field From", address="info@mycompany.com", user="anna", near="www.mycompany.com", domain="mycompany.com"
    )
    assert refusal.reason == "near_domain"
    assert (refusal.reply.code, refusal.reply.enhanced) == (550, "5.7.1")
    assert "www.mycompany.com is authorized, mycompany.com is not" in refusal.reply.text
    assert "info@mycompany.com" in refusal.reply.text
    assert refusal.reply.text.endswith("authorize mycompany.com")


@pytest.mark.parametrize("reason", [reasons.DOMAIN_NOT_AUTHORIZED, reasons.ADDRESS_NOT_AUTHORIZED], ids=lambda reason: reason.code)
def test_both_remedies_are_named(reason: Reason) -> None:
    """A13, A20, B3: 550 5.7.1 names address, rule, both remedies, and where a visitor's address belongs."""
    reply = reason.reply(where="header field From", address="v@web.example", domain="web.example", user="anna")
    assert (reply.code, reply.enhanced) == (550, "5.7.1")
    rule, _, remedy = reply.text.partition("; ")
    assert "header field From v@web.example is not authorized" in rule and "user anna" in rule
    assert "the address v@web.example" in remedy and "domain web.example" in remedy and "Reply-To" in remedy


def test_details_from_outside_stay_text() -> None:
    """A detail cannot bring a line end, a control character, a template or an endless text into a reply."""
    reply = reasons.SYNTAX.reply(cause="a\r\n250 ok\x1b[0m {command} {0.__class__}" + "x" * 5000)
    assert "a 250 ok [0m {command} {0.__class__}" in reply.text
    assert len(reply.text) < 400
    assert reply.wire().count(b"\r\n") == 1


def test_a_missing_detail_does_not_fault() -> None:
    """Wording never turns a refusal into a fault: a detail that nobody gave is "(unknown)"."""
    assert reasons.SYNTAX.reply().text.startswith("Syntax error: (unknown)")


def test_a_refusal_carries_reply_and_reason() -> None:
    """What is raised anywhere under the session has what the client and the log are told."""
    with pytest.raises(Refusal) as caught:
        raise reasons.TOO_LARGE.refusal(limit="1000")
    assert caught.value.reply.wire() == b"552 5.3.4 The message is larger than 1000 octets; send a smaller message\r\n"
    assert caught.value.reason == "too_large"


def test_passing_troubles_are_temporary() -> None:
    """Style 2: what may pass by itself is 4xx; what needs the sender is 5xx."""
    passing = "connection_refused connection_timed_out connection_lost dns_failed tls_unavailable tls_failed local_fault storage_fault"
    final = "no_such_domain null_mx expired self_loop peer_lacks_8bitmime domain_not_authorized bare_line_end"
    assert {REASONS[code].reply().outcome for code in passing.split()} == {Outcome.DEFERRED}
    assert {REASONS[code].reply().outcome for code in final.split()} == {Outcome.FAILED}


def test_the_documentation_is_current() -> None:
    """B8: docs/reasons.md is what `python -m smtpplus.mail.reasons` prints."""
    path = Path(reasons.__file__).parents[2] / "docs" / "reasons.md"
    assert path.read_text(encoding="utf-8") == reasons.document()
