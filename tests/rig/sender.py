"""Clients that submit mail: smtplib, one message or many sessions at once."""

from __future__ import annotations

import contextlib
import hashlib
import smtplib
import ssl
import threading
from collections.abc import Iterator, Mapping

HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds a reply may take on a busy machine


def compose(subject: str, *, sender: str, to: str, size: int = 200, fields: Mapping[str, str] | None = None) -> bytes:
    """A message with CRLF whose body has about `size` octets in lines of 76; it names its own digest in X-Digest."""
    line = b"0123456789abcdef" * 4 + b" .lazy dog.\r\n"
    body = b".a line that begins with a dot\r\n" + line * (size // len(line) + 1)
    head = {"From": sender, "To": to, "Subject": subject, "X-Digest": hashlib.sha256(body).hexdigest(), **(fields or {})}
    return "".join(f"{name}: {value}\r\n" for name, value in head.items()).encode() + b"\r\n" + body


def is_whole(content: bytes) -> bool:
    """Whether the body of a message of `compose` is what it was."""
    head, _, body = content.partition(b"\r\n\r\n")
    return field(head + b"\r\n\r\n", "X-Digest") == hashlib.sha256(body).hexdigest()


def field(content: bytes, name: str) -> str:
    """The value of an unfolded header field; "" if it is missing."""
    for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name.lower().encode():
            return value.strip().decode()
    return ""


def unverified() -> ssl.SSLContext:
    """TLS that believes our self-signed certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def session(port: int, user: str = "", password: str = "", *, tls: bool = False) -> Iterator[smtplib.SMTP]:
    """An smtplib session, logged in if a user is named. It is closed without ceremony if the server is gone."""
    client = smtplib.SMTP(HOST, port, local_hostname="client.example.com", timeout=PATIENCE)
    try:
        if tls:
            client.starttls(context=unverified())
        if user:
            client.login(user, password)
        yield client
        with contextlib.suppress(smtplib.SMTPException, OSError):
            client.quit()
    finally:
        client.close()


class Load:
    """`sessions` clients that submit as fast as they are answered, each on one connection, until the connection breaks or `stop`.

    `accepted` holds the subject of each message that was answered 250; `refused` the replies to those that were not.
    """

    def __init__(self, port: int, user: str, password: str, *, sessions: int, name: str, sender: str, to: str, size: int = 4096) -> None:
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self._login = (port, user, password)
        self._route = (sender, to)
        self._size = size
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._submit, args=(f"{name}-{number}",), name=f"client {number}") for number in range(sessions)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every client finish its message, and wait for all."""
        self._stopping.set()
        self.join()

    def join(self) -> None:
        """Wait until every client has ended."""
        for thread in self._threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), f"{thread.name} hangs"

    def _submit(self, name: str) -> None:
        sender, to = self._route
        port, user, password = self._login
        subject = "login"
        try:
            with session(port, user, password) as client:
                for number in range(1_000_000):
                    if self._stopping.is_set():
                        return
                    subject = f"{name}-{number}"
                    client.sendmail(sender, [to], compose(subject, sender=sender, to=to, size=self._size))
                    self.accepted.append(subject)
        except smtplib.SMTPServerDisconnected:
            return
        except smtplib.SMTPException as refusal:
            self.refused.append(f"{subject}: {refusal}")
        except OSError:  # the connection broke
            return
