"""From MAIL to the end of data over real sockets: what is kept, what is refused, and what a client that goes leaves behind."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from smtpplus.config import Limits, Priority, Submission
from smtpplus.events import Accepted, Disconnected, Refused
from smtpplus.mail.envelope import CHUNK
from smtpplus.submission.transaction import SPILL
from tests.submission.rig import MESSAGE, Client, SessionCase, reactor, status

LARGE = MESSAGE + (b"0123456789" * 7 + b"\r\n..\r\n") * 15_000  # 1.1 MiB as the client sends it
LARGE_CLEAR = LARGE.replace(b"\r\n..", b"\r\n.")


def begin(client: Client) -> None:
    """MAIL to 354."""
    assert client.codes("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA") == ["250 2.1.0", "250 2.1.5", "354"]


def submit(client: Client, data: bytes) -> str:
    """One whole transaction; the status of its end."""
    begin(client)
    client.send(data + b".\r\n")
    return status(client.reply())


class TransactionTests(SessionCase):
    """One user, who may send as a.com."""

    def submitted(self, *messages: bytes) -> Any:
        """Submit each message in one session; the statuses, then that of a NOOP."""

        def dialog() -> list[str]:
            client = self.logged_in()
            codes = [submit(client, message) for message in messages]
            codes += client.codes("NOOP")
            client.close()
            return codes

        return self.during(dialog)

    @inlineCallbacks
    def test_a_large_message_goes_to_the_spool_as_it_comes(self) -> Any:
        """Memory does not grow with the message: past SPILL each read is written when it comes, and all of it is committed whole."""
        self.serve()
        codes = yield self.submitted(LARGE, MESSAGE, LARGE)
        self.assertEqual(codes, ["250 2.0.0"] * 4)
        self.assertEqual(len(self.spool.intakes), 2)
        for intake, kept in zip(self.spool.intakes, self.spool.kept[::2], strict=True):
            self.assertTrue(intake.committed and not intake.aborted)
            self.assertLessEqual(max(map(len, intake.pieces)), SPILL + 2 * CHUNK)
            self.assertGreater(len(intake.pieces), 1)
            self.assertEqual(kept.content.partition(b"\r\n\r\n")[2], LARGE_CLEAR.partition(b"\r\n\r\n")[2])
            self.assertEqual(kept.envelope.size, len(kept.content))

    @inlineCallbacks
    def test_what_is_held_in_memory_is_bounded(self) -> Any:
        """A message just over SPILL is spilled, one under it is not."""
        self.serve()
        codes = yield self.submitted(MESSAGE.ljust(SPILL - CHUNK, b"x") + b"\r\n", MESSAGE.ljust(SPILL + CHUNK, b"x") + b"\r\n")
        self.assertEqual(codes, ["250 2.0.0"] * 3)
        self.assertEqual(len(self.spool.intakes), 1)

    @inlineCallbacks
    def test_a_message_over_the_limit_is_read_to_its_end(self) -> Any:
        """RFC 1870 §6.2: 552 5.3.4 after the data, the session survives, nothing is kept, and one of exactly the limit is taken."""
        limit = 400_000
        self.serve(limits=Limits(message_size=limit, grace=0.2))
        fits = MESSAGE.ljust(limit - 2, b"x") + b"\r\n"
        codes = yield self.submitted(fits, MESSAGE.ljust(limit - 1, b"x") + b"\r\n", LARGE, fits)
        self.assertEqual(codes, ["250 2.0.0", "552 5.3.4", "552 5.3.4", "250 2.0.0", "250 2.0.0"])
        self.assertEqual([intake.aborted for intake in self.spool.intakes], [False, True, True, False])
        self.assertEqual(len(self.spool.kept), 2)

    @inlineCallbacks
    def test_a_bare_line_end_refuses_the_message(self) -> Any:
        """RFC 5321 §2.3.8: bare CR or LF in data: 550 after the real end, which is CRLF.CRLF and nothing else (no smuggling)."""
        self.serve()
        smuggled = b"\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<v@example.net>\r\nDATA\r\nFrom: evil@example.org\r\n\r\n"
        messages = [MESSAGE + ending + smuggled for ending in (b"\n.\n", b"\n.\r", b"\r.\r", b"\r\n.\n", b"\n.\r\n"[:3])]
        codes = yield self.submitted(*messages)
        self.assertEqual(codes, ["550 5.6.0"] * len(messages) + ["250 2.0.0"])
        self.assertEqual(self.spool.kept, [])
        self.assertEqual({event.reason for event in self.stated(Refused)}, {"bare_line_end"})

    @inlineCallbacks
    def test_headers_that_are_no_headers(self) -> Any:
        """A NUL, a header that never ends, a loop, no From: each its 5xx after the data, and the session goes on."""
        self.serve(limits=Limits(grace=0.2))
        received = b"Received: from a by b; Sat, 21 Nov 2026 20:46:42 +0000\r\n"
        codes = yield self.submitted(
            b"From: app@a.com\r\nSubject: \0\r\n\r\n",
            b"From: app@a.com\r\n" + b"X-Long: " + b"x" * 300_000 + b"\r\n\r\n",
            received * 51 + MESSAGE,
            b"Subject: no sender\r\n\r\nbody\r\n",
            b"",
            received * 50 + MESSAGE,
        )
        self.assertEqual(codes, ["550 5.6.0", "550 5.6.0", "554 5.4.6", "550 5.7.1", "550 5.7.1", "250 2.0.0", "250 2.0.0"])

    @inlineCallbacks
    def test_a_message_that_is_all_header_is_taken(self) -> Any:
        """RFC 5322 §3.5: the body may be missing, empty line and all; it gets one."""
        self.serve()
        codes = yield self.submitted(b"From: app@a.com\r\nSubject: short\r\n")
        self.assertEqual(codes[0], "250 2.0.0")
        self.assertTrue(self.spool.kept[0].content.endswith(b"\r\n\r\n"))

    @inlineCallbacks
    def test_eight_bit_content_is_known_as_such(self) -> Any:
        """RFC 6152 §3: content outside ASCII is 8BITMIME for the next hop, whether the client said so or not."""
        self.serve()
        yield self.submitted(MESSAGE, MESSAGE + "grüße\r\n".encode())
        self.assertEqual([kept.envelope.body for kept in self.spool.kept], ["", "8BITMIME"])

    @inlineCallbacks
    def test_eight_bit_text_that_was_encoded_is_eight_bit_no_more(self) -> Any:
        """RFC 6152 §3: where only the header was 8-bit, and is encoded now, any next hop can take the message."""
        self.serve()
        yield self.submitted("Subject: grüße\r\n".encode() + MESSAGE, "Subject: grüße\r\n".encode() + MESSAGE + b"\xff\r\n")
        self.assertEqual([kept.envelope.body for kept in self.spool.kept], ["", "8BITMIME"])
        self.assertTrue(self.spool.kept[0].content.isascii())

    @inlineCallbacks
    def test_a_nul_refuses_the_message(self) -> Any:
        """RFC 2045 §2.7, §2.8: a NUL in the body is 550 after the end of data: a next hop that drops it would read CRLF.CRLF before it."""
        self.serve()
        smuggled = b".\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<v@example.net>\r\nDATA\r\nFrom: evil@example.org\r\n\r\n"
        messages = [MESSAGE + body for body in (b"\0" + smuggled, b"\0" * 300 + smuggled, b"a\0\r\n", b"x\r\n" * 200_000 + b"\0\r\n")]
        codes = yield self.submitted(*messages)
        self.assertEqual(codes, ["550 5.6.0"] * len(messages) + ["250 2.0.0"])
        self.assertEqual((self.spool.kept, [intake.aborted for intake in self.spool.intakes]), ([], [True]))
        self.assertEqual({event.reason for event in self.stated(Refused)}, {"nul_octet"})

    @inlineCallbacks
    def test_control_characters_pass_in_the_body(self) -> Any:
        """RFC 5321 §4.1.1.4: they are discouraged in a body, not forbidden: they pass, as through Postfix."""
        self.serve()
        odd = MESSAGE + bytes(octet for octet in range(1, 256) if octet not in b"\r\n") + b"\r\n"
        codes = yield self.submitted(odd)
        self.assertEqual(codes, ["250 2.0.0"] * 2)
        self.assertEqual(self.spool.kept[0].content.partition(b"\r\n\r\n")[2], odd.partition(b"\r\n\r\n")[2])

    @inlineCallbacks
    def test_long_lines_are_accepted_or_refused(self) -> Any:
        """RFC 5321 §4.5.3.1.6: 1,000 octets with CRLF are a line; longer ones pass, or with `long_lines = "refuse"` get 550 5.6.0."""
        fits, long = [MESSAGE + b"x" * length + b"\r\nend\r\n" for length in (998, 999)]
        stuffed = MESSAGE + b"." + b"." + b"x" * 997 + b"\r\n"  # the added dot does not count
        self.serve()
        codes = yield self.submitted(fits, long, MESSAGE + b"x" * 500_000 + b"\r\n")
        self.assertEqual(codes, ["250 2.0.0"] * 4)
        yield self.tearDown()
        self.setUp()
        self.serve(submission=Submission(long_lines="refuse"))
        codes = yield self.submitted(
            fits, long, stuffed, MESSAGE + b"x" * 500_000 + b"\r\n", LARGE, b"X-Long: " + b"x" * 991 + b"\r\n" + MESSAGE
        )
        self.assertEqual(codes, ["250 2.0.0", "550 5.6.0", "250 2.0.0", "550 5.6.0", "250 2.0.0", "550 5.6.0", "250 2.0.0"])
        self.assertEqual({event.reason for event in self.stated(Refused)}, {"long_line"})

    @inlineCallbacks
    def test_long_lines_are_seen_however_they_are_cut(self) -> Any:
        """A line that comes octet by octet is as long as one that comes whole."""
        self.serve(submission=Submission(long_lines="refuse"))

        def dialog() -> list[str]:
            client = self.logged_in()
            codes = []
            for length in (998, 999):
                begin(client)
                client.send(MESSAGE)
                for _ in range(length):
                    client.send(b"x")
                client.send(b"\r\n.\r\n")
                codes.append(status(client.reply()))
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["250 2.0.0", "550 5.6.0"])

    @inlineCallbacks
    def test_a_client_that_goes_in_data_leaves_nothing(self) -> Any:
        """Bad input: a connection that breaks in DATA, small or large, politely or with RST, leaves no message and no intake."""
        self.serve()

        def go(sent: bytes, reset: bool) -> None:
            client = self.logged_in()
            begin(client)
            client.send(sent)
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

        for sent in (MESSAGE, LARGE, b"From: app@a.com\r\n"):
            for reset in (False, True):
                yield self.during(go, sent, reset)
        while len(self.stated(Disconnected)) < 6:
            yield deferLater(reactor, 0.01, lambda: None)
        self.assertEqual((self.spool.kept, self.stated(Accepted)), ([], []))
        self.assertTrue(all(intake.aborted and not intake.committed for intake in self.spool.intakes))

    @inlineCallbacks
    def test_what_is_broken_off_spends_no_budget(self) -> Any:
        """D2: of a budget of one, urgent messages that were broken off in their data, or refused at its end, use up nothing."""
        self.serve(priority=Priority(budget=1))
        urgent = b"X-Priority: 1\r\n" + MESSAGE

        def go() -> list[str]:
            client = self.logged_in()
            begin(client)
            client.send(urgent)
            client.close()
            client = self.logged_in()
            codes = [submit(client, urgent + b"\0\r\n"), submit(client, urgent + b"\r\n"), submit(client, urgent)]
            client.close()
            return codes

        codes = yield self.during(go)
        self.assertEqual(codes, ["550 5.6.0", "250 2.0.0", "250 2.3.6"])

    @inlineCallbacks
    def test_a_spool_that_fails_in_the_middle_is_said_at_the_end(self) -> Any:
        """A chunk that cannot be written: the data is read to its end, then 452, and the next message may succeed."""
        self.serve()
        self.spool.broken = True

        def dialog() -> list[str]:
            client = self.logged_in()
            codes = [submit(client, LARGE)]
            self.spool.broken = False
            codes.append(submit(client, LARGE))
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["452 4.3.1", "250 2.0.0"])
        self.assertEqual((len(self.spool.kept), self.spool.intakes[0].aborted), (1, True))
        self.assertGreaterEqual(len(self.flushLoggedErrors(OSError)), 1)

    @inlineCallbacks
    def test_a_fault_of_ours_is_451_and_not_a_traceback(self) -> Any:
        """Habit 1: an unexpected exception is logged with its traceback and answered 451 4.3.0 in constant words; the session goes on."""
        self.serve()

        def broken(number: int) -> Any:
            raise ZeroDivisionError("secret detail")

        self.spool.begin = broken  # type: ignore[method-assign, assignment]  # what a defect in the spool would look like

        def dialog() -> list[str]:
            client = self.logged_in()
            begin(client)
            client.send(LARGE + b".\r\n")
            replies = [client.reply(), *client.say("NOOP")]
            client.close()
            return replies

        replies = yield self.during(dialog)
        self.assertRegex(replies[0], r"^451 4\.3\.0 Local error in processing; try again later \(ref [0-9A-Z]{13}\)$")
        self.assertEqual(status(replies[1]), "250 2.0.0")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @inlineCallbacks
    def test_ehlo_and_rset_end_a_transaction(self) -> Any:
        """RFC 5321 §4.1.4, §4.1.1.5: both forget sender and recipients."""
        self.serve()

        def dialog() -> list[str]:
            client = self.logged_in()
            codes = []
            for command in ("RSET", "EHLO client.example", "HELO client.example"):
                codes += client.codes("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", command, "DATA", "RCPT TO:<x@example.net>")[2:]
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["250 2.0.0", "503 5.5.1", "503 5.5.1"] + ["250", "503 5.5.1", "503 5.5.1"] * 2)
