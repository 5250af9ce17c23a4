"""Writing to a connection at once instead of at the next turn of the reactor.

Twisted's `transport.write` asks the reactor to watch the socket, waits a turn, sends, and asks it to stop watching: two system
calls and a poll for what one `send` does. On a TCP connection with nothing waiting, `send` does that one call; everything else
(TLS, octets still waiting, a full socket, a transport of another kind) goes through `transport.write`, so that order is kept.
"""

from __future__ import annotations

from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Connection


def send(transport: ITransport, data: bytes) -> None:
    """Write `data`, in order. Never raises for a broken connection: the reactor finds that out and reports it as ever."""
    if not isinstance(transport, Connection) or transport.TLS or not transport.connected:
        transport.write(data)
        return
    if transport.dataBuffer or transport._tempDataBuffer:  # both are Twisted's: what waits for the socket already
        transport.write(data)
        return
    sent = transport.writeSomeData(data)
    if isinstance(sent, int) and sent > 0:
        if sent < len(data):
            transport.write(data[sent:])
    else:
        transport.write(data)
