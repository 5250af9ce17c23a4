"""What a session with a peer is to be like, what it may wait for and how long, and what is proposed to the peer."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Sequence

import msgspec

from smtpplus.delivery.fault import Fault
from smtpplus.delivery.routing import Hop, Way
from smtpplus.mail import reasons


class Awaited(enum.Enum):
    """What a reply answers, and the seconds to wait for it (RFC 5321 §4.5.3.2)."""

    GREETING = ("the greeting", 300.0)  # §4.5.3.2.1
    EHLO = ("EHLO", 300.0)
    HELO = ("HELO", 300.0)
    STARTTLS = ("STARTTLS", 120.0)
    AUTH = ("AUTH", 180.0)  # RFC 4954 §4: at least 3 minutes
    RSET = ("RSET", 60.0)
    MAIL = ("MAIL", 300.0)  # §4.5.3.2.2
    RCPT = ("RCPT", 300.0)  # §4.5.3.2.3
    DATA = ("DATA", 120.0)  # §4.5.3.2.4
    CHUNK = ("BDAT", 600.0)  # as FINAL: RFC 3030 names no time
    FINAL = ("the end of the data", 600.0)  # §4.5.3.2.6
    QUIT = ("QUIT", 10.0)  # ours: nothing depends on the answer
    NOTHING = ("nothing", 30.0)  # an idle session

    def __init__(self, words: str, patience: float) -> None:
        self.words = words
        self.patience = patience


class Step(enum.Enum):
    """What the driver of a dialogue does next; see delivery.dialogue."""

    WAIT = "wait"
    START_TLS = "start TLS"
    READY = "ready"
    CONTENT = "content"
    DONE = "done"
    BROKEN = "broken"
    CLOSED = "closed"


class Credentials(msgspec.Struct, frozen=True):
    """What we log in with at a smarthost."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"<Credentials of {self.username}>"


class Terms(msgspec.Struct, frozen=True):
    """What a session is to be like."""

    hostname: str  # ours, for EHLO
    tls: str = "none"  # none | opportunistic | required | verify
    secure: bool = False  # TLS is there from the first octet
    credentials: Credentials | None = None
    clear_password: bool = False  # the path to the peer cannot be listened to

    @property
    def insists(self) -> bool:
        """Whether the session must be encrypted. A password travels in the clear only where tls = "none" says so, or on loopback."""
        return self.tls in ("required", "verify") or (self.tls != "none" and self.credentials is not None and not self.clear_password)


def terms_for(hop: Hop, tls: str, address: str, hostname: str) -> Terms | Fault:
    """What a session with `hop` at `address` is to be like; a fault if the password cannot be read."""
    credentials = None
    if hop.username:
        try:
            password = Path(hop.password_file).read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeError) as error:
            return Fault(reasons.PEER_LOGIN_FAILED, f"password_file cannot be read: {type(error).__name__}")
        credentials = Credentials(hop.username, password)
    loopback = address == "::1" or address.startswith("127.")
    return Terms(hostname, tls, hop.way is Way.SMTPS, credentials, loopback)


class Proposal(msgspec.Struct, frozen=True):
    """A transaction to propose. `mail` are the parameters of MAIL, `rcpt` those of each RCPT or none at all, with a blank before each."""

    sender: str
    addresses: Sequence[str]
    mail: str = ""
    rcpt: Sequence[str] = ()
    chunked: bool = False  # the content goes by BDAT
    passed_on: bool = False  # the peer takes over what the sender wants to be told (RFC 3461 §5.2.1)
    time_passed_on: bool = False  # the peer takes over by when the message is wanted (RFC 2852)
