"""What becomes of a message is told to its sender: once each, and with as much of the message as is due."""

from __future__ import annotations

import email
import email.policy
import re
import time
from email.message import EmailMessage
from functools import partial
from pathlib import Path

from smtpplus.config import Queue
from smtpplus.mail.envelope import Recipient
from tests.delivery.peer import Line
from tests.delivery.rig import SMALL
from tests.scenario.hop import BOB, RETRY, HopCase

HEADER = SMALL.partition(b"\r\n\r\n")[0] + b"\r\n"
Report = tuple[str, list[str], str, bytes]


def reports(maildir: Path) -> list[Report]:
    """Of each notification to whom, what became of whom, and what came back of the message: its type and its octets."""
    found = []
    for path in maildir.glob("new/*"):
        message = email.message_from_bytes(path.read_bytes().replace(b"\n", b"\r\n"), policy=email.policy.SMTP)
        assert isinstance(message, EmailMessage)
        assert message["auto-submitted"] == "auto-replied"
        _, status, returned = message.iter_parts()
        groups = [each for each in status.walk() if each["action"]]
        content = path.read_bytes().replace(b"\n", b"\r\n").split(b"\r\n--")[-2].partition(b"\r\n\r\n")[2]
        told = [f"{each['action']} {each['final-recipient'].partition('; ')[2]}" for each in groups]
        found.append((str(message["to"]), told, returned.get_content_type(), content))
    return sorted(found)


class SenderIsTold(HopCase):
    async def test_of_relay_delay_and_failure(self) -> None:
        """C4, RFC 3461 §4.3: RET=FULL is for the failure; the reports of relay and delay have the header only. One report each."""

        def script(line: Line) -> None:
            line.greet()
            line.message("250 2.0.0 taken", "250 ok", "550 5.1.1 no such user", "450 4.2.1 later")
            line.message()
            line.gone()

        to = tuple(Recipient(f"{name}@b.example", "SUCCESS,FAILURE,DELAY") for name in ("sent", "gone", "late"))
        settings = Queue(retry=(RETRY,), warn_after=0.001)
        home = self.folder()
        stated = await self.relay(script, home=f"maildir:{home}", settings=settings, ret="FULL", recipients=to)
        assert [line for line in stated if line.startswith("bounced")] == [
            f"bounced {kind} to ann@a.example" for kind in ("delivered", "failed", "delayed", "delivered")
        ]
        assert reports(home) == [
            ("ann@a.example", ["delayed late@b.example"], "text/rfc822-headers", HEADER),
            ("ann@a.example", ["failed gone@b.example"], "message/rfc822", SMALL),
            ("ann@a.example", ["relayed late@b.example"], "text/rfc822-headers", HEADER),
            ("ann@a.example", ["relayed sent@b.example"], "text/rfc822-headers", HEADER),
        ]

    async def test_of_a_relay_behind_which_its_time_is_lost(self) -> None:
        """RFC 2852 §4.1.4: BY in mode N to a peer without DELIVERBY is reported as relayed without being asked; with it BY goes on."""
        told = []
        for offers in ("250-DSN", "250-DELIVERBY"):

            def script(line: Line, offers: str = offers) -> None:
                line.greet(f"250-next.example\r\n250-PIPELINING\r\n{offers}\r\n250 HELP\r\n")
                line.message()
                line.gone()

            home = self.folder()
            await self.relay(script, home=f"maildir:{home}", deliver_by=time.time() + 1000.5, by_mode="N")
            told.append((self.peer.lines[0].received.split(b"\r\n")[1].decode(), reports(home)))
        relayed = ("ann@a.example", [f"relayed {BOB}"], "text/rfc822-headers", HEADER)
        assert told[0] == ("MAIL FROM:<ann@a.example>", [relayed])
        assert re.fullmatch(r"MAIL FROM:<ann@a\.example> BY=(1000|9[89]\d);N", told[1][0])
        assert told[1][1] == []

    async def test_the_postmaster_has_a_copy_of_a_bounce(self) -> None:
        """C4: the failure alone is copied, to one address, with the header only; who is not told by NOTIFY gives no copy either."""

        def script(line: Line) -> None:
            line.greet()
            line.message("250 2.0.0 taken", "250 ok", "550 5.1.1 no such user", "550 5.1.1 nor this")
            line.gone()

        told = Recipient("sent@b.example", "SUCCESS"), Recipient("gone@b.example"), Recipient("secret@b.example", "NEVER")
        home = self.folder()
        settings = Queue(retry=(RETRY,), postmaster="postmaster@a.example")
        stated = await self.relay(script, home=f"maildir:{home}", settings=settings, recipients=told)
        assert [line for line in stated if line.startswith("bounced")] == [
            "bounced delivered to ann@a.example",
            "bounced failed to ann@a.example",
            "bounced copy to postmaster@a.example",
        ]
        failed = ["failed gone@b.example"]
        assert reports(home) == [
            ("ann@a.example", failed, "message/rfc822", SMALL),
            ("ann@a.example", ["relayed sent@b.example"], "text/rfc822-headers", HEADER),
            ("postmaster@a.example", failed, "text/rfc822-headers", HEADER),
        ]

    async def test_nobody_is_told_about_a_notification(self) -> None:
        """C4, RFC 5321 §6.1: neither a message from the null reverse-path nor the postmaster's copy gives bounce or copy when it fails."""

        def refuses(line: Line, times: int = 1) -> None:
            line.greet()
            for _ in range(times):
                commands = line.until(b"DATA\r\n")
                line.send("250 ok\r\n" * (1 + commands.count(b"RSET")) + "550 5.1.1 no such user\r\n503 nobody\r\n")
            line.gone()

        settings = Queue(retry=(RETRY,), postmaster="postmaster@b.example")
        failed = ["failed {} by HOP: 550 5.1.1 no such user (peer_refused)", "Dropped"]
        stated = await self.relay(refuses, settings=settings, sender="")
        assert stated[1:] == [each.format(BOB) for each in failed]
        stated = await self.relay(partial(refuses, times=2), settings=settings)
        assert stated[1] == failed[0].format(BOB)
        assert stated[2:4] == ["bounced failed to ann@a.example", "bounced copy to postmaster@b.example"]
        assert [line for line in stated[4:] if "ann@" not in line] == [
            "dsn started 1 postmaster@b.example",
            "dsn " + failed[0].format("postmaster@b.example"),
            "Dropped",
        ]
