"""TXT records as the commands read them, from a real name server."""

from __future__ import annotations

from twisted.internet.threads import deferToThread
from twisted.names import dns
from twisted.trial.unittest import TestCase

from smtpplus.operation.txt import look_up
from tests.delivery.name_server import NameServer
from tests.delivery.rig import reactor


class LookUpTests(TestCase):
    timeout = 30

    async def test_a_record_drives_no_terminal(self) -> None:
        """A record in several strings is one text; what is not printable in it is a blank, before anybody shows it."""
        server = NameServer(reactor, {"a.example": [dns.Record_TXT(b"v=spf1 \x1b]0;owned\x07", b"-all\r\n", ttl=60)]})
        self.addCleanup(server.stop)
        found = await deferToThread(look_up, "a.example", [server.address])
        assert found == ["v=spf1  ]0;owned -all "]
