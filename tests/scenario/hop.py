"""A relay in this process, for scenarios at its far end: queue, database and delivery as the daemon joins them, and a scripted next hop.

`relay` sends one message and returns the exact list of what was stated until nothing was left in the queue. `self.peer` has what
each connection brought, to the octet. Failed attempts are repeated after RETRY seconds; notifications to ann@a.example are discarded,
unless they have another `home`.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import msgspec
from twisted.internet.ssl import Certificate

from smtpplus import events as facts
from smtpplus.config import DNS, Configuration, Delivery, Route
from smtpplus.config import Queue as QueueSettings
from smtpplus.mail.envelope import Envelope, Recipient, queue_id
from smtpplus.queue.assembly import assemble
from smtpplus.storage.database import Database
from smtpplus.storage.engine import migrate
from tests.delivery.peer import Peer, Script
from tests.delivery.rig import SMALL, DeliveryCase, reactor

RETRY = 0.1  # seconds
OURS = 1  # the id of the message
BOB = "bob@b.example"
HELLO = b"EHLO relay.example\r\n"
ENVELOPE = b"MAIL FROM:<ann@a.example> SIZE=%d\r\nRCPT TO:<bob@b.example>\r\nDATA\r\n" % len(SMALL)
MESSAGE = ENVELOPE + SMALL + b".\r\n"
WHOLE = HELLO + MESSAGE + b"QUIT\r\n"  # a session that brings one message, to a peer that pipelines


class HopCase(DeliveryCase):
    peer: Peer

    async def relay(
        self,
        *scripts: Script,
        to: tuple[str, ...] = (BOB,),
        content: bytes = SMALL,
        tls: str = "none",
        trust: Certificate | None = None,
        own: bool = False,
        away: bool = False,
        home: str = "discard:",
        settings: QueueSettings | None = None,
        **fields: Any,
    ) -> list[str]:
        """Send `content` from ann to `to` by a next hop that plays the scripts. `own`: we take that port for ours; `away`: nobody listens
        there before the first attempt has ended; `home` is where mail for a.example goes, "" for there. `fields` are the envelope's."""
        with Peer(*scripts, asleep=away) as self.peer:
            routes = (Route(destination="a.example", via=home or self.peer.via), Route(via=self.peer.via))
            ours = {("127.0.0.1", self.peer.port)} if own else None
            agent = self.make(*routes, tls=tls, trust=trust, own=ours)
            folder = self.folder()
            folder.mkdir()
            path = folder / "smtpplus.sqlite"
            migrate(f"sqlite:///{path}")
            database = Database(f"sqlite:///{path}", reactor)
            database.start()
            self.addCleanup(database.stop)
            stated: list[facts.Event] = []
            bus = facts.Events()
            bus.subscribe(stated.append)
            queue = assemble(
                configuration=Configuration(
                    hostname="relay.example",
                    queue=settings or QueueSettings(retry=(RETRY,)),
                    delivery=Delivery(),
                    dns=DNS(servers=(("127.0.0.1", 9),)),
                    route=routes,
                ),
                database=database,
                agent=agent,
                destination=agent.router.destination,
                clock=reactor,
                now=time.time,
                process=1,
                events=bus,
            )
            await queue.start()
            envelope = Envelope(OURS, "ann@a.example", tuple(map(Recipient, to)), "ann", 3, len(content), time.time())
            await queue.spool.accept(msgspec.structs.replace(envelope, **fields), content)
            if away:
                await self.until(lambda: any(isinstance(event, facts.Deferred) for event in stated))
                self.peer.wake()
            with sqlite3.connect(path) as reader:
                await self.until(lambda: reader.execute("SELECT count(*) FROM messages").fetchone() == (0,))
            reader.close()
            await queue.stop(1.0)
            await agent.stop()
        return [line for line in map(self._line, stated) if line]

    def _line(self, event: facts.Event) -> str:
        """What an event says, but for ids, times and the port."""
        match event:
            case facts.Started():
                text = f"started {event.attempt} {' '.join(event.recipients)}"
            case facts.Delivered():
                text = f"delivered {event.recipient} by {event.peer}: {event.reply}"
            case facts.Deferred():
                text = f"deferred {event.recipient} by {event.peer}: {event.reply} ({event.reason})"
            case facts.Failed():
                text = f"failed {event.recipient} by {event.peer}: {event.reply} ({event.reason})"
            case facts.Bounced():
                return f"bounced {event.kind} to {event.to}"
            case _:
                return type(event).__name__
        about = "" if event.id == queue_id(OURS) else "dsn "
        return about + text.replace(f"127.0.0.1[127.0.0.1]:{self.peer.port}", "HOP").replace(str(self.peer.port), "PORT")


DSN = ["bounced failed to ann@a.example", "dsn started 1 ann@a.example", "dsn delivered ann@a.example by discard:: 250 2.0.0 discarded"]


def delivered(attempt: int, reply: str = "250 2.0.0 taken") -> list[str]:
    """An attempt that ends well."""
    return [f"started {attempt} {BOB}", f"delivered {BOB} by HOP: {reply}"]


def deferred(attempt: int, reply: str, reason: str, by: str = "HOP") -> list[str]:
    """An attempt that ends in a passing failure."""
    return [f"started {attempt} {BOB}", f"deferred {BOB} by {by}: {reply} ({reason})"]


def takes(line: Any) -> None:
    """The script of a next hop that takes messages."""
    line.greet()
    line.message()
    line.gone()
