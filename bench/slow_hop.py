"""A next hop that reads as slowly as told: a process of its own, so that it does not share the relay's processor time with the bench.

`python -m bench.slow_hop PORT RATE` takes everything, reading the data of each connection at RATE octets a second; RATE 0 accepts
connections and never says a word. Commands are answered at once.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import TracebackType

from bench.traffic import HOST, await_port, free_port


class SlowHop:
    """The process; use as a context manager."""

    def __init__(self, rate: float) -> None:
        self.port = free_port()
        self._greets = rate > 0
        self._process = subprocess.Popen([sys.executable, "-m", "bench.slow_hop", str(self.port), str(rate)])

    def __enter__(self) -> SlowHop:
        await_port(self.port, self._process, greets=self._greets)
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait(30.0)


class _Session(asyncio.Protocol):
    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._reading = False  # message data
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._rate:
            transport.write(b"220 slow.example.net\r\n")

    def data_received(self, data: bytes) -> None:
        if not self._rate:
            return
        self._buffer += data
        if self._reading and len(data) > 512:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(len(data) / self._rate, self._read_on)
            return
        self._take()

    def _read_on(self) -> None:
        self._take()
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _take(self) -> None:
        while True:
            if self._reading:
                end = self._buffer.find(b"\r\n.\r\n")
                if end < 0:
                    self._buffer = self._buffer[-4:]
                    return
                self._buffer, self._reading = self._buffer[end + 5 :], False
                self._transport.write(b"250 2.0.0 taken\r\n")
            line, newline, rest = self._buffer.partition(b"\r\n")
            if not newline:
                return
            self._buffer = rest
            verb = line[:4].upper()
            if verb == b"DATA":
                self._reading = True
                self._transport.write(b"354 go on\r\n")
            elif verb == b"EHLO":
                self._transport.write(b"250-slow.example.net\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif verb == b"QUIT":
                self._transport.write(b"221 2.0.0 bye\r\n")
                self._transport.close()
            else:
                self._transport.write(b"250 2.0.0 OK\r\n")


async def _serve(port: int, rate: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Session(rate), HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
