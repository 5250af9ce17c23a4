"""Who may send as whom, as tables: entries of a user, an address, and what is decided why."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.accounts import fields
from smtpplus.accounts.authorization import authorize, authorize_message
from smtpplus.accounts.user import Secret, Sender, User
from smtpplus.mail import reasons


def user(domains: str = "", senders: str = "", *, verified: bool = True, active: bool = True, allow_any: bool = False) -> User:
    """A user with these fields, all verified or none."""
    entries = [*fields.domains(domains), *fields.addresses(senders)]
    return User(
        name="app",
        password=Secret("x"),
        active=active,
        allow_any=allow_any,
        senders=tuple(msgspec.structs.replace(entry, verified=verified) for entry in entries),
    )


@pytest.mark.parametrize(
    "address",
    ["x@a.com", "X@A.COM", '"q q"@a.com', "jürgen@a.com", "x+tag@a.com", "x@bücher.example", "x@XN--BCHER-KVA.example"],
)
def test_every_address_at_a_domain(address: str) -> None:
    """A15: every address at an authorized domain may be used, however it and the domain are written."""
    assert authorize(user("a.com; bücher.example"), address, require_verified=True).allowed


@pytest.mark.parametrize(
    ("domains", "address", "allowed"),
    [
        ("a.com", "x@m.a.com", False),
        ("m.a.com", "x@a.com", False),
        ("a.com", "x@nota.com", False),
        ("a.com", "x@a.com.evil.net", False),
        ("a.com", "x@a.co", False),
        (".a.com", "x@a.com", True),
        (".a.com", "x@m.a.com", True),
        (".a.com", "x@n.m.a.com", True),
        (".a.com", "x@nota.com", False),
        (".a.com", "x@a.com.evil.net", False),
        (".m.a.com", "x@a.com", False),
        ("a.com", '"x@a.com"@evil.net', False),
        ("a.com", "x@[192.0.2.1]", False),
    ],
)
def test_levels_of_domains(domains: str, address: str, allowed: bool) -> None:
    """A16: a domain is exactly itself; with a dot in front it is the whole subtree; look-alikes are neither."""
    assert authorize(user(domains), address, require_verified=True).allowed is allowed


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("x@c.com", True), ("X@C.com", True), ('"x"@c.com', True), ("x+tag@c.com", False), ("y@c.com", False), ("x@m.c.com", False)],
)
def test_single_addresses(address: str, allowed: bool) -> None:
    """A17: an authorized sender is that address and no other; a plus-address is another."""
    assert authorize(user("", "x@c.com"), address, require_verified=True).allowed is allowed


@pytest.mark.parametrize(
    ("who", "address", "reason", "said"),
    [
        (user("www.mycompany.com"), "x@mycompany.com", reasons.NEAR_DOMAIN, "www.mycompany.com is authorized, mycompany.com is not"),
        (user("mycompany.com"), "x@www.mycompany.com", reasons.NEAR_DOMAIN, "mycompany.com is authorized, www.mycompany.com is not"),
        (user("a.com; b.com"), "x@m.n.a.com", reasons.NEAR_DOMAIN, "a.com is authorized, m.n.a.com is not"),
        (user("a.com"), "x@other.com", reasons.DOMAIN_NOT_AUTHORIZED, "other.com is not one of the authorized domains"),
        (user(".a.com"), "x@other.com", reasons.DOMAIN_NOT_AUTHORIZED, "authorize the domain other.com, or the address x@other.com"),
        (user("", "y@other.com"), "x@other.com", reasons.ADDRESS_NOT_AUTHORIZED, "authorize the address x@other.com, or its whole domain"),
        (user("a.com", "y@other.com"), "x@other.com", reasons.ADDRESS_NOT_AUTHORIZED, "its whole domain other.com"),
        (user("", "y@c.com"), "x@other.com", reasons.ADDRESS_NOT_AUTHORIZED, "x@other.com"),
        (user("a.com", verified=False), "x@a.com", reasons.SENDER_PENDING, "a.com is entered"),
        (user(".a.com", verified=False), "x@m.a.com", reasons.SENDER_PENDING, ".a.com is entered"),
        (user("", "x@a.com", verified=False), "x@a.com", reasons.SENDER_PENDING, "x@a.com is entered"),
        (user(allow_any=True), "x@a.com", reasons.SENDER_NOT_VERIFIED, "`smtpplus sender add --verify app x@a.com`"),
        (user("a.com", active=False), "x@a.com", reasons.INACTIVE_USER, reasons.LOGIN_FAILED.text),
        (user("a.com"), "x@a..com", reasons.BAD_MAILBOX, "empty part"),
    ],
)
def test_reasons(who: User, address: str, reason: reasons.Reason, said: str) -> None:
    """B2, B3, B8: a refusal has the reason of the closed list that helps, names near misses and both remedies."""
    verdict = authorize(who, address, require_verified=True)
    assert verdict.refusal is not None
    assert (verdict.allowed, verdict.reason, verdict.refusal.reason, verdict.address) == (False, reason.code, reason.code, address)
    assert said in verdict.refusal.reply.text
    assert verdict.refusal.reply.code == reason.reply_code
    assert "(unknown)" not in verdict.refusal.reply.text


@pytest.mark.parametrize("state", list(itertools.product([True, False], repeat=4)), ids=str)
def test_product_of_states(state: tuple[bool, bool, bool, bool]) -> None:
    """A10, A11: of all states only active, named and verified (or verification not asked for) is allowed; each other has its reason."""
    active, named, verified, require_verified = state
    who = user("a.com" if named else "b.com", verified=verified, active=active)
    verdict = authorize(who, "x@a.com", require_verified=require_verified)
    if not active:
        assert verdict.reason == (reasons.INACTIVE_USER if verified else reasons.INACTIVE_UNVERIFIED).code
    elif not named:
        assert verdict.reason == reasons.DOMAIN_NOT_AUTHORIZED.code
    elif require_verified and not verified:
        assert verdict.reason == reasons.SENDER_PENDING.code
    else:
        assert verdict.allowed
        assert (verdict.reason, verdict.refusal) == ("", None)


@pytest.mark.parametrize(
    ("allow_any", "require_verified", "reason"),
    [
        (True, False, ""),
        (True, True, reasons.SENDER_NOT_VERIFIED.code),
        (False, True, reasons.SENDER_NOT_VERIFIED.code),
        (False, False, reasons.ADDRESS_NOT_AUTHORIZED.code),
    ],
)
def test_both_fields_empty(allow_any: bool, require_verified: bool, reason: str) -> None:
    """A18: with both fields empty every verified sender is allowed, that is none; where verification is not required, literally all."""
    for address in ("x@a.com", "jürgen@b.example"):
        assert authorize(user(allow_any=allow_any), address, require_verified=require_verified).reason == reason


def test_allow_any_says_nothing_beside_entries() -> None:
    """A18: consent to any sender holds only while no sender is entered."""
    assert not authorize(user("a.com", allow_any=True), "x@b.com", require_verified=False).allowed


def test_null_reverse_path() -> None:
    """RFC 5321 §4.5.5: the null reverse-path needs no authorization, the header From beside it does."""
    assert authorize(user("a.com"), "", require_verified=True).allowed
    assert authorize_message(user("a.com"), "", ["x@a.com"], require_verified=True).allowed
    assert authorize_message(user("a.com"), "", ["x@b.com"], require_verified=True).reason == reasons.DOMAIN_NOT_AUTHORIZED.code


@pytest.mark.parametrize(
    ("from_fields", "sender_fields", "reason", "said"),
    [
        (["x@a.com"], [], None, ""),
        (["Jo <X@A.com>"], [], None, ""),
        (["x@a.com, Jo <y@a.com>, z@c.com"], ["x@a.com"], None, ""),
        (["team: x@a.com, y@a.com;"], ["x@a.com"], None, ""),
        (['"x@evil.net" <x@a.com>'], [], None, ""),
        (["visitor@form.net"], [], reasons.DOMAIN_NOT_AUTHORIZED, "Reply-To"),
        (["x@a.com, visitor@form.net"], [], reasons.DOMAIN_NOT_AUTHORIZED, "header field From visitor@form.net"),
        (["team: x@a.com, visitor@form.net;"], [], reasons.DOMAIN_NOT_AUTHORIZED, "visitor@form.net"),
        (["x@a.com"], ["y@form.net"], reasons.DOMAIN_NOT_AUTHORIZED, "header field Sender y@form.net"),
        (["x@a.com", "y@a.com"], [], reasons.BAD_FROM, "header field From cannot be read: it occurs 2 times"),
        (["x@a.com"], ["x@a.com", "y@a.com"], reasons.BAD_FROM, "header field Sender"),
        ([], [], reasons.NO_FROM, "no From"),
        ([""], [], reasons.NO_FROM, "no From"),
        (["undisclosed:;"], [], reasons.NO_FROM, "no From"),
        (["x@a.com <y@a.com"], [], reasons.BAD_FROM, "header field From cannot be read"),
        (["x@a.com"], [""], reasons.BAD_FROM, "header field Sender cannot be read: it names nobody"),
        (["x@a.com"], ["nobody:;"], reasons.BAD_FROM, "header field Sender cannot be read: it names nobody"),
    ],
)
def test_header_is_authorized_too(from_fields: list[str], sender_fields: list[str], reason: reasons.Reason | None, said: str) -> None:
    """A13, A17: beside the envelope sender every mailbox of From, in groups too, and the Sender must be authorized."""
    verdict = authorize_message(user("a.com", "z@c.com"), "x@a.com", from_fields, sender_fields, require_verified=True)
    if reason is None:
        assert verdict.allowed
    else:
        assert (verdict.allowed, verdict.reason) == (False, reason.code)
        assert verdict.refusal is not None
        assert said in verdict.refusal.reply.text


@pytest.mark.parametrize(
    ("resent_from", "resent_sender", "reason", "said"),
    [
        (["x@a.com", "z@c.com, y@a.com"], ["y@a.com"], "", ""),
        (["x@a.com", "v@form.net"], [], "domain_not_authorized", "header field Resent-From v@form.net"),
        (["x@a.com"], ["v@form.net"], "domain_not_authorized", "header field Resent-Sender v@form.net"),
        ([""], [], "bad_from", "header field Resent-From cannot be read: it names nobody"),
        (["x@a.com"], ["<"], "bad_from", "header field Resent-Sender cannot be read"),
    ],
)
def test_who_resends_is_authorized_too(resent_from: list[str], resent_sender: list[str], reason: str, said: str) -> None:
    """A13, RFC 5322 §3.6.6: a message may be resent several times; whoever is said to have done it must be authorized."""
    resent = (resent_from, resent_sender)
    verdict = authorize_message(user("a.com", "z@c.com"), "x@a.com", ["x@a.com"], require_verified=True, resent=resent)
    assert verdict.reason == reason
    assert verdict.refusal is None or said in verdict.refusal.reply.text


def test_envelope_sender_decides_first() -> None:
    """A13: an envelope sender that is not authorized is refused, whatever the header says."""
    verdict = authorize_message(user("a.com"), "v@form.net", ["x@a.com"], require_verified=True)
    assert verdict.refusal is not None
    assert "envelope sender v@form.net" in verdict.refusal.reply.text


_labels = st.text("ab-", min_size=1, max_size=3).filter(lambda text: text.strip("-") == text)
_names = st.lists(_labels, min_size=1, max_size=4).map(".".join)


@given(st.lists(st.tuples(st.booleans(), _names), max_size=4), _names)
def test_domains_by_the_definition(entries: list[tuple[bool, str]], domain: str) -> None:
    """A16: an address is covered exactly if its domain is entered, or ends in an entered subtree at a dot."""
    senders = tuple({(kind, name): Sender("subtree" if kind else "domain", name, verified=True) for kind, name in entries}.values())
    who = User(name="app", password=Secret(""), senders=senders)
    covered = any(domain == name or (subtree and domain.endswith(f".{name}")) for subtree, name in entries)
    assert authorize(who, f"x@{domain}", require_verified=True).allowed is covered


@given(st.text(max_size=20))
def test_any_text_gets_a_verdict(text: str) -> None:
    """Whatever text stands where an address belongs, in envelope or header, there is a verdict and no exception."""
    who = user("a.com", "x@c.com")
    assert authorize(who, text, require_verified=True).allowed in (True, False)
    assert authorize_message(who, "", [text], [text], require_verified=True).allowed in (True, False)


def test_secrets_have_no_repr() -> None:
    """A6: neither the password's hash nor a user shows it in a traceback or a log."""
    who = User(name="app", password=Secret("$argon2id$hidden"))
    assert "hidden" not in repr(who)
    assert "hidden" not in repr(who.password)
    assert "hidden" not in f"{[who.password]}"
