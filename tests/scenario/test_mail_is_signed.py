"""A domain has DKIM keys: what leaves for the next hop is signed, and an independent verifier agrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dkim as dkimpy  # type: ignore[import-untyped]  # dkimpy has no annotations

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import NextHop

APP = "app@example.com"


def at_least(count: int) -> Callable[[Sequence[Any]], bool]:
    return lambda deliveries: len(deliveries) >= count


def test_mail_is_signed_from_the_moment_a_key_is_added(tmp_path: Path) -> None:
    """C5: after `dkim add` on the running daemon both signatures verify, of small mail and large; the display fields (A28) are signed."""
    with NextHop() as hop, Daemon(tmp_path, routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            client.sendmail(APP, ["ann@example.net"], sender.compose("before", sender=APP, to="ann@example.net"))
            hop.await_deliveries(bool)
            made = daemon.cli_json("dkim", "add", "example.com", "--algorithm", "both")
            records = {key["record"]: key["value"].encode() for key in made}
            urgent = b"X-Priority: 2\r\n" + sender.compose("after", sender=APP, to="ann@example.net")
            large = sender.compose("large", sender=APP, to="ann@example.net") + b"a  line \t\r\n.dot\r\n\r\n" * 30_000
            attempts = 0
            while True:  # it is noticed within a second
                attempts += 1
                client.sendmail(APP, ["ann@example.net"], urgent)
                taken = hop.await_deliveries(at_least(attempts + 1))
                if b"DKIM-Signature" in taken[-1].content:
                    break
                assert attempts < 1000
            client.sendmail(APP, ["ann@example.net"], large)
            taken = hop.await_deliveries(at_least(attempts + 2))
    assert b"DKIM-Signature" not in taken[0].content
    for message in (taken[-2].content, taken[-1].content):
        judge = dkimpy.DKIM(message)

        def look_up(name: bytes, **_: Any) -> bytes | None:
            return records.get(name.decode().rstrip("."))

        assert [judge.verify(index, dnsfunc=look_up) for index in range(2)] == [True, True]
    assert b"\r\nImportance: high\r\n" in taken[-2].content
