"""The next hop says no for good: the sender is told once, and nobody is told about that."""

import email
import email.policy
from pathlib import Path

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import NextHop

APP = "app@example.com"


def test_refused_recipient_gives_a_bounce_to_the_envelope_sender(tmp_path: Path) -> None:
    """C4, RFC 3464: a 550 to one of two recipients: one report from <> to the sender, with the peer's reply; the other gets the mail."""
    refusals = {"nobody@example.net": ["550 5.1.1 No such user here"]}
    with NextHop(refusals=refusals) as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        message = sender.compose("two of them", sender=APP, to="ann@example.net")
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, ["ann@example.net", "nobody@example.net"], message)
        hop.await_deliveries(lambda taken: len(taken) == 2)
        daemon.await_empty_queue()
        delivered, bounce = sorted(hop.deliveries, key=lambda each: each.recipients)
        assert delivered.recipients == ("ann@example.net",)
        assert bounce.recipients == (APP,)
        assert bounce.sender in ("", "<>")
        report = email.message_from_bytes(bounce.content, policy=email.policy.default)
        assert report.get_content_type() == "multipart/report"
        assert report["Auto-Submitted"] == "auto-replied"
        status = next(part for part in report.walk() if part.get_content_type() == "message/delivery-status")
        fields = "".join(part.as_string() for part in status.iter_parts()) if status.is_multipart() else status.as_string()
        assert "nobody@example.net" in fields
        assert "Action: failed" in fields
        assert "Status: 5.1.1" in fields
        assert "No such user here" in fields
        assert "ann@example.net" not in fields


def test_refused_bounce_is_not_bounced(tmp_path: Path) -> None:
    """C4, RFC 5321 §6.1: when the report itself is refused, no message follows, and the queue becomes empty."""
    refusals = {"nobody@example.net": ["550 5.1.1 No such user"], APP: ["550 5.1.1 No such user either"]}
    with NextHop(refusals=refusals) as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, ["nobody@example.net"], sender.compose("lost", sender=APP, to="nobody@example.net"))
            hop.await_deliveries(lambda taken: APP in [each.address for each in hop.attempts])
            daemon.await_empty_queue()
            client.sendmail(APP, ["ann@example.net"], sender.compose("marker", sender=APP, to="ann@example.net"))
        hop.await_deliveries(bool)
        daemon.await_empty_queue()
        assert [sender.field(each.content, "Subject") for each in hop.deliveries] == ["marker"]
        assert [each.address for each in hop.attempts] == ["nobody@example.net", APP, "ann@example.net"]
