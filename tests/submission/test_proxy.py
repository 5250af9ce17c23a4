"""The PROXY header: parsed strictly, believed from configured networks, an error from everybody else."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import inlineCallbacks

from smtpplus.config import Listen
from smtpplus.events import Connected
from smtpplus.submission import proxy
from smtpplus.submission.proxy import Origin, ProxyError, parse
from tests.submission.rig import LOGIN, MESSAGE, Client, SessionCase, status

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(source: str, port: int, *, command: int = 0x21, extra: bytes = b"") -> bytes:
    """A version 2 header for a TCP connection from `source`."""
    address = ipaddress.ip_address(source)
    body = address.packed + address.packed + struct.pack("!HH", port, 25) + extra
    return V2 + struct.pack("!BBH", command, 0x11 if address.version == 4 else 0x21, len(body)) + body


HEADERS = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n", ("192.0.2.1", 56324)),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", ("2001:db8::1", 1)),
    (b"PROXY UNKNOWN\r\n", ("", 0)),
    (b"PROXY UNKNOWN ff::1 ff::2 1 2\r\n", ("", 0)),
    (version_2("192.0.2.1", 56324), ("192.0.2.1", 56324)),
    (version_2("2001:db8::1", 9, extra=b"\x04\x00\x02xx"), ("2001:db8::1", 9)),
    (version_2("192.0.2.1", 1, command=0x20), ("", 0)),
    (V2 + b"\x21\x00\x00\x00", ("", 0)),
]


@pytest.mark.parametrize(("header", "origin"), HEADERS)
def test_a_header_is_read_however_it_is_cut(header: bytes, origin: tuple[str, int]) -> None:
    """proxy-protocol.txt §2.1, §2.2: complete at its last octet and not before; what follows is kept for the session."""
    for end in range(1, len(header)):
        assert parse(header[:end]) is None
    assert parse(header + b"EHLO x\r\n") == Origin(*origin, b"EHLO x\r\n")


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO x\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25 1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 65536\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 -1 25\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP4 evil evil 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
        b"PROXY " + b"x" * 200,
        V2 + b"\x31\x11\x00\x0c" + b"x" * 12,
        V2 + b"\x22\x11\x00\x0c" + b"x" * 12,
        V2 + b"\x21\x11\x00\x04" + b"x" * 4,
        V2 + b"\x21\x31\x00\xd8" + b"x" * 216,
        V2 + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header_is_an_error(header: bytes) -> None:
    """An address that is none, a number too many, a length without bound: ProxyError, nothing else."""
    with pytest.raises(ProxyError):
        parse(header)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V2, V2 + b"\x21\x11"]))
def test_no_octets_raise_anything_else(tail: bytes, head: bytes) -> None:
    """Whatever comes is a header, the beginning of one, or ProxyError."""
    try:
        origin = parse(head + tail)
    except ProxyError:
        return
    assert origin is None or origin.address == "" or ipaddress.ip_address(origin.address)


class ProxyTests(SessionCase):
    """Over real sockets."""

    @inlineCallbacks
    def test_the_client_is_whom_the_header_names(self) -> Any:
        """proxy_protocol_from: greeting after the header; event and Received name the client, who is not on loopback any more."""
        self.serve(Listen(proxy_protocol_from=(ipaddress.ip_network("127.0.0.0/8"),), auth_without_tls="loopback"))

        def dialog(header: bytes) -> tuple[str, str]:
            client = Client(self.port, greeting=False)
            for octet in range(len(header)):
                client.send(header[octet : octet + 1])
            assert client.reply().startswith("220 ")
            clear = client.say("EHLO client.example", "STARTTLS")[0]
            client.start_tls()
            client.say("EHLO client.example", LOGIN, "MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b".\r\n")
            code = status(client.reply())
            client.close()
            return clear, code

        for header, origin in HEADERS[0], HEADERS[5]:
            clear, code = yield self.during(dialog, header)
            self.assertEqual(code, "250 2.0.0")
            self.assertNotIn("AUTH", clear)
            literal = origin[0] if ":" not in origin[0] else f"IPv6:{origin[0]}"
            self.assertIn(f"([{literal}])".encode(), self.spool.kept[-1].content)
        self.assertEqual([event.client for event in self.stated(Connected)], ["192.0.2.1:56324", "[2001:db8::1]:9"])

    @inlineCallbacks
    def test_a_header_that_is_none_ends_the_connection(self) -> Any:
        """Without header nobody is greeted; one that does not come in time ends the connection too."""
        self.serve(Listen(proxy_protocol_from=(ipaddress.ip_network("127.0.0.1"),)))
        self.patch(proxy, "PATIENCE", 0.3)

        def dialog(octets: bytes) -> bytes:
            client = Client(self.port, greeting=False)
            client.send(octets)
            try:
                return client.socket.recv(100)
            except ConnectionResetError:
                return b""
            finally:
                client.close()

        for octets in (b"EHLO client.example\r\n", b"PROXY TCP4 evil evil 1 2\r\n", b"PROXY TCP4 "):
            self.assertEqual((yield self.during(dialog, octets)), b"")
        self.assertEqual(self.stated(Connected), [])

    @inlineCallbacks
    def test_a_header_from_others_is_an_error(self) -> Any:
        """A client that is no proxy cannot say who it is: 500, and the session ends; the event has its true address."""
        self.serve(Listen(proxy_protocol_from=(ipaddress.ip_network("192.0.2.0/24"),), auth_without_tls="always"))

        def dialog() -> str:
            client = Client(self.port)
            client.send(HEADERS[0][0] + b"EHLO client.example\r\n")
            reply = client.reply()
            assert client.ended()
            client.close()
            return reply

        self.assertEqual(status((yield self.during(dialog))), "500 5.5.1")
        (event,) = self.stated(Connected)
        self.assertTrue(event.client.startswith("127.0.0.1:"))
