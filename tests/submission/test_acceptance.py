"""What is done to a message before it is ours: the header of RFC 6409 §8, the priority, the loop."""

from __future__ import annotations

from email import message_from_bytes, policy
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpplus.config import Configuration, Priority, Submission
from smtpplus.events import Events
from smtpplus.mail.header import Header
from smtpplus.mail.reasons import Refusal
from smtpplus.submission.acceptance import Acceptance, Completed, received_field
from smtpplus.submission.parameters import NONE, MailParameters
from tests.submission.rig import MemorySpool

FROM = b"From: app@a.com\r\n"
COMPLETE = FROM + b"Date: Sat, 21 Nov 2026 20:46:42 +0000\r\nMessage-ID: <1@a.com>\r\n"
TRACE = b"Received: from client.example ([192.0.2.1])\r\n\tby mail.example.com with ESMTPSA id 0000000000001;\r\n\tnow\r\n"


class Anybody:
    """May send as anybody, at a level."""

    def __init__(self, level: int = 3, budget: int = 0) -> None:
        self.name = "app"
        self.list_ = "default"
        self.level = level
        self.ceiling = 1
        self.budget = budget
        self.unauthorized = False

    def validateHeader(self, sender: str, header: Header) -> None:
        return


class HeaderTests(SynchronousTestCase):
    """`complete` on header octets."""

    def completed(
        self,
        header: bytes,
        level: int = 3,
        *,
        sender: str = "app@a.com",
        parameters: MailParameters = NONE,
        fix_headers: bool = True,
        budget: int = 0,
        **switches: Any,
    ) -> Completed:
        clock = Clock()
        clock.advance(1_800_000_000)
        self.acceptance = acceptance = Acceptance(
            configuration=Configuration(
                hostname="mail.example.com", priority=Priority(**switches), submission=Submission(fix_headers=fix_headers)
            ),
            events=Events(),
            spool=MemorySpool(),
            new_id=iter(range(9)).__next__,
            now=clock.seconds,
        )
        return acceptance.complete(
            header + b"\r\n",
            identity="0000000000001",
            trace=TRACE,
            sender=sender,
            authority=Anybody(level, budget),
            parameters=parameters,
        )

    def test_a_whole_header_stays_as_it_is_behind_received(self) -> None:
        """C1, B9: everything is byte-exact: folding, odd case, blanks, words encoded by hand; the trace field goes on top."""
        odd = COMPLETE + b"SUBJECT:  =?utf-8?Q?I love you =E2=99=A5?=\r\nX-Odd:a\r\n\tb \r\n"
        self.assertEqual(self.completed(odd).octets, TRACE + odd + b"\r\n")

    def test_date_and_message_id_are_added_where_missing(self) -> None:
        """RFC 6409 §8.2, §8.3: both are valid, and the Message-ID holds the queue ID."""
        found = message_from_bytes(self.completed(FROM).octets, policy=policy.default)
        self.assertEqual(found["date"].datetime.timestamp(), 1_800_000_000)
        self.assertEqual(found["message-id"], "<0000000000001@mail.example.com>")
        self.assertEqual(self.completed(FROM).message_id, "<0000000000001@mail.example.com>")

    def test_bcc_and_return_path_are_removed(self) -> None:
        """RFC 5322 §3.6.3, RFC 5321 §4.4: no recipient learns of another by Bcc; the return path is the envelope's."""
        header = (
            b"Bcc: hidden@example.net,\r\n other@example.net\r\nReturn-Path: <evil@example.org>\r\n" + COMPLETE + b"Resent-Bcc: h@b.com\r\n"
        )
        self.assertEqual(self.completed(header).octets, TRACE + COMPLETE + b"\r\n")

    def test_the_higher_priority_counts(self) -> None:
        """A24: all 25 pairs of user and message: the smaller number; A23: the user's where the message says nothing."""
        for user in range(1, 6):
            self.assertEqual(self.completed(COMPLETE, user).level, user)
            for message in range(1, 6):
                header = COMPLETE + b"X-Priority: %d\r\n" % message
                self.assertEqual(self.completed(header, user).level, min(user, message))

    def test_the_priority_is_shown_once(self) -> None:
        """A28: one consistent set of fields for 1, 2, 4, 5, in place of those that were there; none for 3."""
        said = b"X-Priority: 5 (Lowest)\r\nImportance: low\r\nPriority: non-urgent\r\nX-MSMail-Priority: Low\r\n"
        for level in range(1, 6):
            header = Header.parse(self.completed(COMPLETE + said, level).octets)
            shown = {name: header.values(name) for name in ("x-priority", "importance", "priority", "x-msmail-priority")}
            self.assertEqual(shown["x-priority"], [] if level == 3 else [str(level)])
            self.assertEqual({len(values) for values in shown.values()}, {0 if level == 3 else 1})

    def test_display_can_be_off(self) -> None:
        """A29: with `display` off the fields are as the client wrote them, and the priority counts all the same."""
        header = COMPLETE + b"X-Priority: 1\r\n"
        completed = self.completed(header, 4, display=False)
        self.assertEqual((completed.octets, completed.level), (TRACE + header + b"\r\n", 1))

    def test_the_parameter_wins_over_the_header(self) -> None:
        """RFC 6710: what MT-PRIORITY says counts before any field, also where it asks for less."""
        for asked, level in ((9, 1), (3, 2), (0, 3), (-1, 4), (-9, 5)):
            header = COMPLETE + b"X-Priority: %d\r\n" % (6 - level)
            self.assertEqual(self.completed(header, 5, parameters=MailParameters(priority=asked)).level, level)

    def test_several_authors_get_a_sender(self) -> None:
        """RFC 6409 §8.1, RFC 5322 §3.6.2: where From has more than one mailbox and nobody is named as sender, the envelope's is."""
        several = b"From: A <a@a.com>,\r\n B <b@a.com>\r\n" + COMPLETE[len(FROM) :]
        self.assertEqual(Header.parse(self.completed(several).octets).values("sender"), ["<app@a.com>"])
        for header, sender in (
            (several + b"Sender: b@a.com\r\n", "app@a.com"),
            (several, ""),
            (b'From: "Doe, Jane" <a@a.com>\r\n' + COMPLETE[len(FROM) :], "app@a.com"),
            (b"From: A <a@a.com>, \r\n" + COMPLETE[len(FROM) :], "app@a.com"),
            (b"From: <a@a.com, <<b@a.com>\r\n" + COMPLETE[len(FROM) :], "app@a.com"),
        ):
            self.assertEqual(self.completed(header, sender=sender).octets, TRACE + header + b"\r\n")

    def test_raw_eight_bit_text_becomes_encoded_words(self) -> None:
        """B9: without SMTPUTF8 a raw subject and raw display names are encoded by RFC 2047; what is ASCII stays as it is."""
        odd = b"SUBJECT:  =?utf-8?Q?I love you =E2=99=A5?=\r\nX-Odd:a\r\n\tb \r\n"
        raw = "From: Jörg <app@a.com>\r\n".encode() + COMPLETE[len(FROM) :] + odd + "Comments: größer\r\n".encode()
        completed = self.completed(raw)
        self.assertTrue(completed.octets.isascii())
        self.assertIn(odd, completed.octets)
        found = message_from_bytes(completed.octets, policy=policy.default)
        self.assertEqual((found["from"].addresses[0].display_name, str(found["comments"])), ("Jörg", "größer"))

    def test_raw_eight_bit_text_stays_where_it_may(self) -> None:
        """RFC 6532: with SMTPUTF8 raw text is right as it is; with `fix_headers = false` nothing is touched."""
        raw = COMPLETE + "Subject: größer\r\n".encode()
        for completed in (self.completed(raw, parameters=MailParameters(smtputf8=True)), self.completed(raw, fix_headers=False)):
            self.assertEqual(completed.octets, TRACE + raw + b"\r\n")
            self.assertEqual(completed.subject, "größer")

    def test_what_is_told_of_a_message_is_printable(self) -> None:
        """Subject and Message-ID go into events: no control character of the client's does."""
        completed = self.completed(FROM + b"Subject: \x1b[31mred\x07\r\nMessage-ID: <\x08@a>\r\n")
        self.assertTrue(completed.subject.isprintable() and completed.message_id.isprintable())

    def test_what_x_smtpapi_asks_for(self) -> None:
        """A30: the field sets time, level and campaign, is before X-Priority and behind MT-PRIORITY, and is not delivered."""
        field = b'X-SMTPAPI: {"Schedule": 1800000060,\r\n "Priority": 2, "CampaignCode": "spring"}\r\n'
        completed = self.completed(COMPLETE + field + b"X-Priority: 4\r\n")
        self.assertEqual((completed.level, completed.release_at, completed.campaign), (2, 1_800_000_060.0, "spring"))
        self.assertNotIn(b"smtpapi", completed.octets.lower())
        parameters = MailParameters(priority=-6, release_at=1_800_000_500.0)
        completed = self.completed(COMPLETE + field, parameters=parameters)
        self.assertEqual((completed.level, completed.release_at), (3, 1_800_000_500.0))
        with self.assertRaises(Refusal):
            self.completed(COMPLETE + b"X-SMTPAPI: soon\r\n")

    def test_a_spent_budget_lowers(self) -> None:
        """D2: the message over the budget goes at 3 and shows it; the reply says so with X.3.6, others are thanked as always."""
        urgent = COMPLETE + b"X-Priority: 1\r\n"
        completed = self.completed(urgent, budget=1)
        self.assertEqual((completed.level, completed.thanks("7")), (1, b"250 2.0.0 queued as 7\r\n"))
        again = self.acceptance.complete(urgent + b"\r\n", identity="7", trace=TRACE, sender="app@a.com", authority=Anybody(3, 1))
        self.assertEqual((again.level, again.octets.count(b"X-Priority")), (3, 0))
        self.assertEqual(
            again.thanks("7"), b"250 2.3.6 queued as 7, priority lowered from 1 to 3: the budget of 1 urgent message an hour is spent\r\n"
        )

    def test_the_ceiling_lowers(self) -> None:
        """D2, D3: what asks for more than the user's ceiling goes at that, and what it asked for is stated; nothing is of other mail."""
        for wish, level, capped in ((b"X-Priority: 1\r\n", 3, (1, 3)), (b"X-Priority: 5\r\n", 4, None), (b"", 4, None)):
            self.completed(COMPLETE)
            authority = Anybody(4, 0)
            authority.ceiling = 3
            content = COMPLETE + wish + b"\r\n"
            done = self.acceptance.complete(content, identity="7", trace=TRACE, sender="app@a.com", authority=authority)
            self.assertEqual((done.level, done.capped, done.thanks("7")), (level, capped, b"250 2.0.0 queued as 7\r\n"))


class ReceivedTests(SynchronousTestCase):
    """The trace field."""

    def test_received_says_where_from_and_not_who(self) -> None:
        """RFC 5321 §4.4: name and address of the client, our name, the protocol, the queue ID, the date; never the user."""
        field = received_field(
            hello="client.example", address="192.0.2.1", hostname="mail.example.com", protocol="ESMTPSA", identity="0000000000001", now=0.0
        )
        self.assertEqual(
            field,
            b"Received: from client.example ([192.0.2.1])\r\n\tby mail.example.com with ESMTPSA id 0000000000001;\r\n\t"
            b"Thu, 01 Jan 1970 00:00:00 +0000",
        )

    def test_an_ipv6_client_is_written_as_a_literal(self) -> None:
        """RFC 5321 §4.1.3: [IPv6:...]."""
        field = received_field(hello="c", address="2001:db8::1", hostname="m", protocol="ESMTP", identity="1", now=0.0)
        self.assertIn(b"([IPv6:2001:db8::1])", field)
