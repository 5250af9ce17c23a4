"""The grammar of command lines, pure."""

from __future__ import annotations

from typing import Any

import pytest

from smtpplus.mail.envelope import Recipient
from smtpplus.mail.reasons import Refusal
from smtpplus.submission.command import no_argument, parse_bdat, parse_hello, parse_mail, parse_rcpt, split
from smtpplus.submission.parameters import MailParameters


def test_a_verb_is_read_in_any_case() -> None:
    """RFC 5321 §2.4: verbs are not case-sensitive; what follows the blank is the argument, untouched."""
    assert split(b"mAiL FROM:<x@a.com>  SIZE=1") == (b"MAIL", b"FROM:<x@a.com>  SIZE=1")
    assert split(b"NOOP") == (b"NOOP", b"")


@pytest.mark.parametrize(
    ("argument", "sender", "parameters"),
    [
        (b"FROM:<x@a.com>", "x@a.com", MailParameters()),
        (b"from: <x@a.com> ", "x@a.com", MailParameters()),
        (b"FROM:<>", "", MailParameters()),
        (b'FROM:<"q q"@a.com> size=5', '"q q"@a.com', MailParameters(size=5)),
        (b"FROM:<@relay.example:x@a.com>", "x@a.com", MailParameters()),
        (b"FROM:<x@[192.0.2.1]> BODY=8bitmime SIZE=10", "x@[192.0.2.1]", MailParameters(size=10, body="8BITMIME")),
        ("FROM:<jörg@bücher.example> SMTPUTF8".encode(), "jörg@bücher.example", MailParameters(smtputf8=True)),
        (b"FROM:<x@a.com> AUTH=e+3Dmc2@example.com", "x@a.com", MailParameters()),
        (b"FROM:<x@a.com> AUTH=<>  BODY=7BIT", "x@a.com", MailParameters(body="7BIT")),
    ],
)
def test_mail_is_read(argument: bytes, sender: str, parameters: MailParameters) -> None:
    """RFC 5321 §4.1.1.2, RFC 1870, RFC 6152, RFC 6531, RFC 4954 §5: the path as written, and each parameter known here."""
    assert parse_mail(argument) == (sender, parameters)


@pytest.mark.parametrize(
    ("argument", "code", "enhanced"),
    [
        (b"", 501, "5.5.4"),
        (b"TO:<x@a.com>", 501, "5.5.4"),
        (b"FROM:x@a.com", 501, "5.1.7"),
        (b"FROM:<x>", 501, "5.1.7"),
        (b"FROM:<x@a.com", 501, "5.1.7"),
        (b"FROM:<x@a.com>SIZE=1", 501, "5.1.7"),
        (b"FROM:<x\xff@a.com> SMTPUTF8", 501, "5.1.7"),
        (b"FROM:<x@a.com\x00>", 501, "5.1.7"),
        (b"FROM:<x@a.com> SIZE", 501, "5.5.4"),
        (b"FROM:<x@a.com> SIZE=-1", 501, "5.5.4"),
        (b"FROM:<x@a.com> SIZE=111111111111111111111", 501, "5.5.4"),
        (b"FROM:<x@a.com> SIZE=", 501, "5.5.4"),
        (b"FROM:<x@a.com> =5", 501, "5.5.4"),
        (b"FROM:<x@a.com> SIZE=1 size=1", 501, "5.5.4"),
        (b"FROM:<x@a.com> BODY=BINARYMIME", 501, "5.5.4"),
        (b"FROM:<x@a.com> SMTPUTF8=yes", 501, "5.5.4"),
        (b"FROM:<x@a.com> AUTH=+3", 501, "5.5.4"),
        (b"FROM:<x@a.com> COLOUR=red", 555, "5.5.4"),
        ("FROM:<jörg@a.com>".encode(), 553, "5.6.7"),
    ],
)
def test_mail_is_refused(argument: bytes, code: int, enhanced: str) -> None:
    """RFC 5321 §4.1.1.11, RFC 6531 §3.5: unknown parameters are 555, malformed ones 501, UTF-8 without SMTPUTF8 is 553."""
    with pytest.raises(Refusal) as refused:
        parse_mail(argument)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (code, enhanced)


@pytest.mark.parametrize(
    ("argument", "recipient"),
    [
        (b"TO:<x@example.net>", Recipient("x@example.net")),
        (b"to: <x@example.net>", Recipient("x@example.net")),
        (b"TO:<Postmaster>", Recipient("Postmaster")),
        (b"TO:<postmaster@example.net>", Recipient("postmaster@example.net")),
        ("TO:<用户@例子.example>".encode(), Recipient("用户@例子.example")),
    ],
)
def test_rcpt_is_read(argument: bytes, recipient: Recipient) -> None:
    """RFC 5321 §4.1.1.3: a path that is not null, or <postmaster> with no domain."""
    assert parse_rcpt(argument, smtputf8=True) == recipient


@pytest.mark.parametrize(
    ("argument", "code", "enhanced"),
    [
        (b"TO:<>", 501, "5.1.3"),
        (b"FROM:<x@example.net>", 501, "5.5.4"),
        (b"TO:<x@example.net> COLOUR=red", 555, "5.5.4"),
        (b"TO:<x@-example.net>", 501, "5.1.3"),
        ("TO:<jörg@a.com>".encode(), 553, "5.6.7"),
    ],
)
def test_rcpt_is_refused(argument: bytes, code: int, enhanced: str) -> None:
    """RFC 5321 §4.1.1.3: no null path, nothing unknown behind it."""
    with pytest.raises(Refusal) as refused:
        parse_rcpt(argument, smtputf8=False)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (code, enhanced)


@pytest.mark.parametrize("argument", [b"", b"  ", b"two names", b"x" * 256, b"nul\0"])
def test_a_greeting_names_the_client(argument: bytes) -> None:
    """RFC 5321 §4.1.1.1: EHLO has one argument; its size is that of a domain."""
    with pytest.raises(Refusal) as refused:
        parse_hello(argument)
    assert refused.value.reply.code == 501


def test_a_greeting_that_no_name_is_stays_harmless() -> None:
    """What the client calls itself goes into a Received field: octets outside ASCII are escaped there."""
    assert parse_hello(b"caf\xc3\xa9 ") == "caf\\xc3\\xa9"


@pytest.mark.parametrize(
    ("argument", "size", "last"), [(b"0", 0, False), (b"12 LAST", 12, True), (b" 5  last ", 5, True), (b"9" * 20, 10**20 - 1, False)]
)
def test_bdat_is_read(argument: bytes, size: int, last: bool) -> None:
    """RFC 3030 §2: a number of octets, and LAST in any case."""
    chunk = parse_bdat(argument)
    assert (chunk.size, chunk.last, chunk.left, chunk.refusal) == (size, last, size, None)


@pytest.mark.parametrize("argument", [b"", b"LAST", b"-1", b"+1", b"1 2", b"1LAST", b"1 LAST now", b"0x10", "\u0661".encode(), b"9" * 21])
def test_bdat_is_refused(argument: bytes) -> None:
    """RFC 3030 §2: what is no number of octets is 501."""
    with pytest.raises(Refusal) as refused:
        parse_bdat(argument)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (501, "5.5.4")


def test_commands_without_argument_take_none() -> None:
    """RFC 5321 §4.1.1.4: DATA has none; blanks at the end are tolerated (§4.1.1)."""
    no_argument("DATA", b" \t")
    with pytest.raises(Refusal):
        no_argument("DATA", b"now")


def test_replies_are_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No octet of the client's reaches the wire or the log as a control character."""
    hostile: Any = b"FROM:<x@a.com> SIZE=\x1b[31m\x07"
    with pytest.raises(Refusal) as refused:
        parse_mail(hostile)
    assert refused.value.reply.text.isprintable()
