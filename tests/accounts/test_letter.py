"""The mail with the token, read back by Python's own parser."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage

import pytest

from smtpplus.accounts import letter
from smtpplus.accounts.user import Secret, Sender, User
from smtpplus.accounts.verification import Claim

TOKEN = "0123456789abcdefghjkmnpqrs"
PAGE = f"https://mail.example.com/some/where/confirm/{TOKEN}"


def composed(address: str = "ann@a.com", page: str = PAGE) -> tuple[bytes, EmailMessage, str]:
    """The octets, the message, its text."""
    claim = Claim(User("app", Secret("hash"), note="internal"), Sender("address", address), 1_795_000_000.0)
    octets = letter.compose(
        claim, TOKEN, page=page, hostname="mail.example.com", from_address="alerts@example.com", message_id="<1@mail.example.com>", now=1.0
    )
    message = email.message_from_string(octets.decode(), EmailMessage, policy=email.policy.default)
    return octets, message, str(message.get_content()).replace("\r\n", "\n")


def test_who_asks_for_what_until_when() -> None:
    """A9: the mail names user, server and address, both ways to agree, the end of the token's time, and that nothing need be done."""
    octets, message, text = composed()
    assert (message["To"], message["From"], message["Auto-Submitted"]) == ("ann@a.com", "alerts@example.com", "auto-generated")
    assert (message["Message-ID"], message["Date"]) == ("<1@mail.example.com>", "Thu, 01 Jan 1970 00:00:01 +0000")
    for part in ('"app"', "mail.example.com", "ann@a.com", "Wed, 18 Nov 2026", "do nothing"):
        assert part in text
    assert [line.strip() for line in text.splitlines() if TOKEN in line] == [PAGE, f"smtpplus sender confirm {TOKEN}"]
    assert "internal" not in text
    assert not message.defects
    assert TOKEN.encode() not in octets.partition(b"\r\n\r\n")[0]


def test_without_a_page_the_command_is_the_way() -> None:
    """A9: where `[http]` is off the mail shows the command alone, once."""
    _, _, text = composed(page="")
    assert text.count(TOKEN) == 1
    assert "page" not in text


@pytest.mark.parametrize("address", ["ann@a.com", '"a b"@a.com', "jörg@a.com", "a" * 200 + "@a.com", "x@xn--mnchen-3ya.de"])
@pytest.mark.parametrize("page", [PAGE, f"https://{'x' * 200}.example.com/confirm/{TOKEN}"])
def test_the_form_holds_for_any_address(address: str, page: str) -> None:
    """RFC 5322 §2.1: line ends are CRLF, no line is over 998 octets, and the address and the link come out whole."""
    octets, message, text = composed(address, page)
    assert re.search(rb"(?<!\r)\n|\r(?!\n)|[^\n]{999}", octets) is None
    assert message["To"].addresses[0].addr_spec == address
    assert page in text
    assert address in text
    assert octets.isascii() == (address.isascii())
