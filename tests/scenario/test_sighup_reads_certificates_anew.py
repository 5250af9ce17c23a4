"""SIGHUP, to the running daemon."""

from __future__ import annotations

import signal
import socket
import ssl
import time
from pathlib import Path

from smtpplus.submission.tls import make_self_signed
from tests.rig.daemon import HOST, Daemon


def test_sighup_reads_certificates_anew(tmp_path: Path) -> None:
    """C10: after SIGHUP new sessions get the new certificate; the daemon and the session under way go on."""
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_self_signed("first.example", certificate, key, time.time())
    settings = {"tls": {"certificate": str(certificate), "private_key": str(key)}}
    with Daemon(tmp_path / "relay", routes=[], settings=settings) as daemon:
        daemon.start()
        with session(daemon.port) as old:
            first = old.getpeercert(binary_form=True)
            make_self_signed("second.example", certificate, key, time.time())
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 20.0
            while True:
                with session(daemon.port) as new:
                    if new.getpeercert(binary_form=True) != first:
                        break
                assert time.monotonic() < deadline, daemon.log()
            old.sendall(b"NOOP\r\n")
            assert old.recv(100).startswith(b"250 ")


def session(port: int) -> ssl.SSLSocket:
    """A session under TLS."""
    plain = socket.create_connection((HOST, port), 10.0)
    plain.recv(512)
    for command in (b"EHLO client.example\r\n", b"STARTTLS\r\n"):
        plain.sendall(command)
        plain.recv(4096)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain)
