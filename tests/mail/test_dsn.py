"""mail.dsn: what a sender is told about recipients, read back by the standard library's parser."""

from __future__ import annotations

import base64
import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpplus.mail import dsn, reasons
from smtpplus.mail.disposition import Disposition
from smtpplus.mail.envelope import Envelope, Recipient, queue_id
from smtpplus.mail.reply import Reply, from_peer

_MESSAGE = b"From: me@a.com\r\nSubject: =?utf-8?Q?I love you =E2=99=A5?=\r\n\r\n.body\r\nFrom here\r\n"
_GONE = Recipient("gone@example.net", orcpt="rfc822;Gone@example.net")
_NOWHERE = Recipient("x@nowhere.example")
_PEER = "mx.example.net[192.0.2.1]:25"
_FAILED = [
    Disposition(_GONE, from_peer(550, [b"5.1.1 no such user", b"5.1.1 here"]), _PEER, reasons.PEER_REFUSED.code),
    Disposition(_NOWHERE, reasons.NULL_MX.reply(domain="nowhere.example"), "", reasons.NULL_MX.code),
]


def _compose(
    dispositions: list[Disposition],
    *,
    kind: dsn.Kind = "failed",
    original: bytes = _MESSAGE,
    full: bool = True,
    to: str = "me@a.com",
    envid: str = "",
    warn_until: float | None = None,
) -> bytes:
    return dsn.compose(
        kind=kind,
        reporting_mta="mail.example.com",
        to=to,
        envelope=Envelope(77, "me@a.com", tuple(one.recipient for one in dispositions), "anna", 3, 100, 1_700_000_000.0, envid=envid),
        dispositions=dispositions,
        original=original,
        full=full,
        now=1_700_000_100.0,
        message_id="1.2@mail.example.com",
        warn_until=warn_until,
        from_address="mailer-daemon@mail.example.com",
    )


def _read(octets: bytes) -> EmailMessage:
    """The notification as a program sees it; ASCII, CRLF only and lines within RFC 5322 §2.1.1."""
    assert octets.isascii() and b"\0" not in octets
    assert octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n")
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def _groups(message: EmailMessage) -> list[dict[str, str]]:
    report = message.get_payload(1)
    assert isinstance(report, EmailMessage)
    groups = report.get_payload()
    assert isinstance(groups, list)
    return [{str(name).lower(): str(value) for name, value in group.items()} for group in groups if isinstance(group, EmailMessage)]


def _text(message: EmailMessage) -> str:
    part = message.get_payload(0)
    assert isinstance(part, EmailMessage)
    return str(part.get_content())


def test_the_frame_is_a_report() -> None:
    """RFC 6522 §3, RFC 3834 §5: multipart/report of three parts, marked as automatic, to the envelope sender."""
    message = _read(_compose(_FAILED))
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "message/delivery-status", "message/rfc822"]
    assert message["auto-submitted"] == "auto-replied"
    assert message["to"] == "me@a.com"
    assert message["message-id"] == "<1.2@mail.example.com>"
    assert message["date"] == "Tue, 14 Nov 2023 22:15:00 +0000"


def test_programs_are_told_each_recipient() -> None:
    """RFC 3464 §2.2, §2.3: a group for the message, one per recipient, and whose words the diagnostic is (§2.3.6)."""
    about, gone, nowhere = _groups(_read(_compose(_FAILED, envid="QQ314159")))
    assert about == {
        "original-envelope-id": "QQ314159",
        "reporting-mta": "dns; mail.example.com",
        "arrival-date": "Tue, 14 Nov 2023 22:13:20 +0000",
        "x-smtpplus-queue-id": queue_id(77),
    }
    assert gone == {
        "original-recipient": "rfc822;Gone@example.net",
        "final-recipient": "rfc822; gone@example.net",
        "action": "failed",
        "status": "5.1.1",
        "remote-mta": "dns; mx.example.net",
        "diagnostic-code": "smtp; 550 5.1.1 no such user here",
        "last-attempt-date": "Tue, 14 Nov 2023 22:15:00 +0000",
    }
    assert (nowhere["status"], nowhere["action"]) == ("5.1.10", "failed")
    assert nowhere["diagnostic-code"].startswith("x-smtpplus; 556 5.1.10 The domain nowhere.example takes no mail")
    assert "remote-mta" not in nowhere


def test_people_are_told_what_happened_and_what_to_do() -> None:
    """B8, B9: recipient, the peer's words, our reason with its remedy, the subject decoded."""
    text = " ".join(_text(_read(_compose(_FAILED))).split())
    assert "Subject: I love you ♥" in text
    assert f"<gone@example.net> {_PEER} said: 550 5.1.1 no such user here" in text
    assert reasons.PEER_REFUSED.explanation in text
    assert reasons.NULL_MX.remedy in text and text.count(reasons.NULL_MX.remedy) == 1
    assert "will not be tried again" in text and queue_id(77) in text


@pytest.mark.parametrize("code", [421, 452, 554])
def test_a_status_is_made_up_where_the_peer_gave_none(code: int) -> None:
    """RFC 3464 §2.3.4: Status is mandatory; it has the class of the reply."""
    disposition = Disposition(_GONE, Reply(code, "", "no"), _PEER, reasons.PEER_REFUSED.code)
    assert _groups(_read(_compose([disposition])))[1]["status"] == f"{code // 100}.0.0"


def test_a_login_that_failed_is_the_operators_affair() -> None:
    """Of a smarthost that does not take our login a sender learns code and status: neither its words nor what to correct here."""
    reply = reasons.PEER_LOGIN_FAILED.reply(peer=_PEER, cause="535 5.7.8 not with Hunter2")
    octets = _compose([Disposition(_GONE, reply, _PEER, reasons.PEER_LOGIN_FAILED.code)], kind="delayed")
    message = _read(octets)
    (_, group) = _groups(message)
    assert (group["status"], group["diagnostic-code"]) == ("4.7.0", "x-smtpplus; 454 4.7.0")
    text = _text(message)
    assert "    Reason: 454 4.7.0\r\n" in text
    assert all(word not in text and word.encode() not in octets for word in ("Hunter2", "535", "login", "password", "[[route]]"))


def test_a_delay_says_how_long_it_is_tried() -> None:
    """RFC 3464 §2.3.9: action delayed, with the end of the attempts for program and person."""
    disposition = Disposition(_GONE, reasons.CONNECTION_REFUSED.reply(peer=_PEER), _PEER, reasons.CONNECTION_REFUSED.code)
    message = _read(_compose([disposition], kind="delayed", warn_until=1_700_432_000.0))
    group = _groups(message)[1]
    assert (group["action"], group["status"]) == ("delayed", "4.4.1")
    assert group["will-retry-until"] == "Sun, 19 Nov 2023 22:13:20 +0000"
    assert group["diagnostic-code"].startswith("x-smtpplus; 451")
    text = " ".join(_text(message).split())
    assert "You need not send it again" in text and "until Sun, 19 Nov 2023" in text
    assert "will-retry-until" not in _groups(_read(_compose([disposition], kind="delayed")))[1]


@pytest.mark.parametrize(("peer", "action"), [("maildir:/var/mail/x", "delivered"), (_PEER, "relayed"), ("[192.0.2.1]:25", "relayed")])
def test_success_is_delivered_or_relayed(peer: str, action: str) -> None:
    """RFC 3464 §2.3.3: delivered only into a mailbox; over SMTP the message was passed on. People are told no more than that either."""
    disposition = Disposition(_GONE, Reply(250, "2.0.0", "ok"), peer, reasons.DELIVERED.code)
    message = _read(_compose([disposition], kind="delivered", full=False))
    assert _groups(message)[1]["action"] == action
    assert reasons.DELIVERED.explanation not in _text(message)
    assert ("passed on" in str(message["subject"]), "delivered" in _text(message)) == (action == "relayed", action == "delivered")


@pytest.mark.parametrize("original", [_MESSAGE, _MESSAGE[: _MESSAGE.index(b".body")]])
def test_the_header_alone_is_returned(original: bytes) -> None:
    """RFC 3461 §4.3: without `full`, only the header goes back, from a whole message or from its header."""
    part = list(_read(_compose(_FAILED, original=original, full=False)).iter_parts())[2]
    assert part.get_content_type() == "text/rfc822-headers"
    assert str(part.get_payload()).rstrip("\r\n") == _MESSAGE.decode().partition("\r\n\r\n")[0]


@pytest.mark.parametrize("body", ["hällo\r\n".encode(), b"x" * 2000 + b"\r\n", b"a\nb\r\n", b"a\0b\r\n", b"\xff\r\n"])
def test_a_message_that_is_not_ascii_is_returned_encoded(body: bytes) -> None:
    """RFC 6532 §3.7: message/rfc822 may not be encoded, message/global may; the octets come back exactly."""
    original = b"Subject: x\r\n\r\n" + body
    octets = _compose(_FAILED, original=original)
    _read(octets)
    _, _, returned = octets.partition(b"Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n\r\n")
    assert base64.b64decode(returned.partition(b"\r\n--")[0]) == original


@pytest.mark.parametrize("subject", ["Grüße ", "ü" * 600, "a\rb", "a\nb", "x\r", "= ü"])
def test_a_header_that_is_not_plain_is_returned_encoded(subject: str) -> None:
    """RFC 2045 §6.7: the returned header is quoted-printable where it has to be, and comes back exactly."""
    original = f"Subject: {subject}\r\nA: b\r\n".encode()
    part = list(_read(_compose(_FAILED, original=original + b"\r\n", full=False)).iter_parts())[2]
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload == original


@pytest.mark.parametrize(
    ("to", "field"), [("me@bücher.example", "me@xn--bcher-kva.example"), ('"a b"@a.com', '"a b"@a.com'), ("jörg@a.com", '"jörg@a.com":;')]
)
def test_the_to_field_is_ascii(to: str, field: str) -> None:
    """RFC 6857 §3.1.9: an internationalized domain becomes A-labels, a local part outside ASCII a group without members."""
    message = _read(_compose(_FAILED, to=to))
    assert str(message["to"]) == field


def test_internationalized_recipients_are_typed() -> None:
    """RFC 6533 §3: a recipient outside ASCII has the address type utf-8 and is escaped."""
    disposition = Disposition(Recipient("jörg+a@example.net"), Reply(550, "5.1.1", "no jörg"), _PEER, reasons.PEER_REFUSED.code)
    group = _groups(_read(_compose([disposition])))[1]
    assert group["final-recipient"] == "utf-8; j\\x{F6}rg\\x{2B}a@example.net"


@pytest.mark.parametrize(
    ("orcpt", "field"), [("rfc822;Jorg+box@example.net", "rfc822;Jorg+box@example.net"), ("utf-8;jörg@b.c", "utf-8;j\\x{F6}rg@b.c")]
)
def test_the_original_recipient_is_named(orcpt: str, field: str) -> None:
    """RFC 3464 §2.3.1, RFC 6533 §3: as it is meant, and only where it is of the type utf-8 escaped."""
    disposition = Disposition(Recipient("a@b.c", orcpt=orcpt), Reply(550, "5.1.1", "no"), _PEER, reasons.PEER_REFUSED.code)
    assert _groups(_read(_compose([disposition])))[1]["original-recipient"] == field


@example("", [b""], b"\r", False)
@given(st.text(max_size=300), st.lists(st.binary(max_size=400), min_size=1, max_size=3), st.binary(max_size=300), st.booleans())
def test_nothing_from_outside_breaks_the_report(envid: str, lines: list[bytes], original: bytes, full: bool) -> None:
    """Whatever peer, client and message say, the report stays ASCII of three parts, and no field is added to it."""
    disposition = Disposition(Recipient("a@b.c", orcpt=f"rfc822;{envid}"), from_peer(550, lines), _PEER, reasons.PEER_REFUSED.code)
    octets = _compose([disposition], original=original, full=full, envid=envid)
    message = _read(octets)
    assert len(list(message.iter_parts())) == 3
    about, recipient = _groups(message)[:2]
    assert set(about) <= {"original-envelope-id", "reporting-mta", "arrival-date", "x-smtpplus-queue-id"}
    assert recipient["action"] == "failed"
    assert len(recipient) == 7


def test_a_copy_says_that_it_is_one() -> None:
    """A notification to another than the sender is a copy; one to the sender is not."""
    copy, own = (_read(_compose(_FAILED, to=to)) for to in ("postmaster@example.com", "me@a.com"))
    assert (str(copy["to"]), str(copy["subject"])) == ("postmaster@example.com", "Copy: Mail could not be delivered")
    assert "This is a copy of what <me@a.com> is told:" in _text(copy)
    assert "opy" not in str(own["subject"]) + _text(own)


def test_its_size_is_bounded() -> None:
    """However many recipients were refused with however many words: DETAILED are told all about, NAMED by name, the others are counted."""
    words = ("\U0001f600" * 100 + "x" * 300 + " y" * 2000).encode()
    number = dsn.NAMED + 50
    refused = [
        Disposition(Recipient(f"r{each}@example.net"), from_peer(550, [b"5.1.1 " + words] * 60), _PEER, reasons.PEER_REFUSED.code)
        for each in range(number)
    ]
    octets = _compose(refused)
    assert len(octets) < dsn.DETAILED * 10_000 + dsn.NAMED * 300
    message = _read(octets)
    groups = _groups(message)[1:]
    assert [group["final-recipient"] for group in groups] == [f"rfc822; r{each}@example.net" for each in range(dsn.NAMED)]
    assert {(group["action"], group["status"]) for group in groups} == {("failed", "5.1.1")}
    assert sum("diagnostic-code" in group for group in groups) == dsn.DETAILED
    text = _text(message)
    assert f"{number - dsn.DETAILED} more recipients" in text
    assert f"<r{dsn.NAMED - 1}@example.net> 5.1.1\nand 50 others\n" in text.replace("\r\n", "\n")


def test_long_lines_are_found_where_they_are() -> None:
    """RFC 5322 §2.1.1: a line over 998 octets is not returned as it is, wherever it stands."""
    for before, length, encoded in ((0, 996, False), (0, 999, True), (3, 996, False), (3, 999, True)):
        original = _MESSAGE + b"x" * 900 + b"\r\n" * before + (b"y" * length if before else b"y" * (length - 900)) + b"\r\nz\r\n"
        assert (b"Content-Transfer-Encoding: base64" in _compose(_FAILED, original=original)) == encoded


def test_the_original_cannot_end_its_part() -> None:
    """A message that holds a boundary of an earlier notification does not break out of its part."""
    first = _compose(_FAILED)
    nested = _read(_compose(_FAILED, original=first))
    assert len(list(nested.iter_parts())) == 3
