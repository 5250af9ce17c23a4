"""Content reaches the next hop octet for octet, by DATA and by BDAT, whatever it is: through the running daemon."""

import smtplib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import NextHop

APP = "app@example.com"
HEADER = (
    b"From: app@example.com\r\nTo: ann@example.net\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@client.example.com>\r\n"
    b"SUBJECT:  =?utf-8?Q?by hand =E2=99=A5?=\r\nX-Odd:a\r\n\tb \r\n\r\n"
)
LINE = st.one_of(
    st.sampled_from([b"", b".", b"..", b". ", b"\x01", b"\x7f", b"From here", b"--", b"MAIL FROM:<x@example.org>", b"=" * 990]),
    st.binary(max_size=60).map(lambda octets: octets.translate(None, b"\0\r\n")),
)
BODY = st.lists(LINE, max_size=40).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


def submit(client: smtplib.SMTP, content: bytes, cuts: list[int]) -> None:
    """One message: by DATA without `cuts`, else in chunks that end there. smtplib dots by itself."""
    assert client.mail(APP, ["BODY=8BITMIME"])[0] == 250
    assert client.rcpt("ann@example.net")[0] == 250
    if not cuts:
        assert client.data(content)[0] == 250
        return
    ends = [*sorted(min(cut, len(content)) for cut in cuts), len(content)]
    start = 0
    for number, end in enumerate(ends, 1):
        last = " LAST" if number == len(ends) else ""
        client.send(f"BDAT {end - start}{last}\r\n".encode() + content[start:end])
        assert client.getreply()[0] == 250
        start = end


def test_any_body_passes_through(tmp_path: Path) -> None:
    """B9, RFC 5321 §4.5.2, RFC 3030 §2: header and body of random octets, dots at line starts and commands among them, arrive as sent,
    below one Received field."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:

            @settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(BODY, st.lists(st.integers(0, 400), max_size=4))
            def passes(body: bytes, cuts: list[int]) -> None:
                before = len(hop.deliveries)
                submit(client, HEADER + body, cuts)
                taken = hop.await_deliveries(lambda taken: len(taken) > before)[before]
                received, _, rest = taken.content.partition(HEADER[:22])
                assert received.startswith(b"Received: from ") and received.count(b"\r\n") == received.count(b"\r\n\t") + 1
                assert HEADER[:22] + rest == HEADER + body

            passes()
        daemon.await_empty_queue()


def test_success_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    """RFC 3461 §4.1, §6.2: NOTIFY=SUCCESS brings the sender a report with ENVID and ORCPT; NEVER, and no NOTIFY, bring none."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            assert client.mail(APP, ["RET=HDRS", "ENVID=order+2B7"])[0] == 250
            assert client.rcpt("ann@example.net", ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Ann+2Bbox@example.net"])[0] == 250
            assert client.rcpt("bob@example.net", ["NOTIFY=NEVER"])[0] == 250
            assert client.rcpt("eve@example.net")[0] == 250
            assert client.data(HEADER + b"told\r\n")[0] == 250
        taken = hop.await_deliveries(lambda taken: any(each.recipients == (APP,) for each in taken))
        daemon.await_empty_queue()
        (report,) = [each for each in taken if each.recipients == (APP,)]
        assert report.sender in {"", "<>"}
        for field in (b"Original-Envelope-Id: order+7", b"Original-Recipient: rfc822;Ann+box@example.net", b"Action: relayed"):
            assert field in report.content
        assert (
            b"bob@" not in report.content.split(b"text/rfc822-headers")[0]
            and b"eve@" not in report.content.split(b"text/rfc822-headers")[0]
        )
