"""Writing to a connection at once instead of at the next turn of the reactor.

Twisted's `transport.write` asks the reactor to watch the socket, waits a turn, sends, and asks it to stop watching: two system
calls and a poll for what one `send` does. On a TCP connection with nothing waiting, `send` does that one call; everything else
(octets still waiting, a full socket, a transport of another kind) goes through `transport.write`, so that order is kept. TLS writes
what it made of the data by `send_below`, where it knows of that (submission.layer).
"""

from __future__ import annotations

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Connection


def send(transport: ITransport, data: bytes) -> None:
    """Write `data`, in order. Never raises for a broken connection: the reactor finds that out and reports it as ever."""
    if not isinstance(transport, Connection) or transport.TLS or not transport.connected:
        transport.write(data)
        return
    send_below(transport, data)


def send_below(connection: Connection, data: bytes) -> None:
    """Write `data` as it is to a TCP connection, under its TLS if it has that, in order. Never raises, as `send`."""
    if connection.dataBuffer or connection._tempDataBuffer or not connection.connected:  # Twisted's: what waits for the socket already
        FileDescriptor.write(connection, data)
        return
    sent = connection.writeSomeData(data)
    if isinstance(sent, int) and sent > 0:
        if sent < len(data):
            FileDescriptor.write(connection, data[sent:])
    else:
        FileDescriptor.write(connection, data)
