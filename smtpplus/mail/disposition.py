"""What queue and delivery say to each other: a request, a transfer under way, one disposition per recipient.

The queue hands a `Request` to a `DeliveryAgent` and gets a `Transfer` back. The agent calls `done` exactly once, with
exactly one `Disposition` for each recipient of the request (but those that it told of before, by `taken`), and never raises: an
unexpected fault is a temporary disposition. Neither side imports the other.
"""

from __future__ import annotations

from typing import Callable, Protocol

import msgspec

from smtpplus.mail import reasons
from smtpplus.mail.envelope import Content, Envelope, Recipient
from smtpplus.mail.reply import Outcome, Reply


class Request(msgspec.Struct, frozen=True):
    """One attempt: some recipients of one envelope that share a destination."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    destination: str  # see Router.destination: a domain for MX, else the route's `via`
    content: Content
    attempt: int  # 1 for the first
    urgent: bool = False  # it stops others


class Disposition(msgspec.Struct, frozen=True):
    """What became of one recipient in one attempt. `reply` is the peer's, or ours if the peer never said (RFC 3464 §2.3.6)."""

    recipient: Recipient
    reply: Reply
    peer: str  # "mx.example.net[192.0.2.1]:25", "maildir:PATH", or "" if nobody was reached
    reason: str  # code of mail.reasons
    passed_on: bool = False  # the peer has taken over what the sender wants to be told of success (RFC 3461 §5.2.1)
    time_passed_on: bool = False  # the peer has taken over by when the message is wanted (RFC 2852)

    told: Reply | None = None  # what the sender hears in place of `reply`, if somebody made one of another

    @property
    def outcome(self) -> Outcome:
        return self.reply.outcome

    @property
    def said(self) -> Reply:
        """What the sender may know: of a login of ours no words, which are for who runs this server and may be about its passwords."""
        if self.told is None and self.reason == reasons.PEER_LOGIN_FAILED.code:
            return Reply(self.reply.code, self.reply.enhanced, "")
        return self.told or self.reply


Told = Callable[[list[Disposition]], None]  # what became of some recipients


class Transfer(Protocol):
    """An attempt under way, as the scheduler sees it. Stopping never cuts: the session stays open, its data stops flowing."""

    def stop(self) -> bool:
        """Stop writing message data until `go`. True, also if stopped already.

        False, and no effect, if the final dot is sent or the attempt is over.
        """

    def go(self) -> None:
        """Go on writing. Without effect unless stopped."""

    def abandon(self) -> None:
        """Give up now unless the final dot is sent: `done` gets temporary dispositions. For shutdown after the grace period."""


class DeliveryAgent(Protocol):
    """Carries out attempts."""

    def deliver(self, request: Request, done: Told, taken: Told | None = None) -> Transfer:
        """Begin an attempt. `done` is called once, later or before this returns.

        With `taken` an attempt of several transactions tells between them who has the message; `done` then tells of the others, one at
        least.
        """

    def prepare(self, envelope: Envelope, destination: str) -> None:
        """An urgent request for it will come in some milliseconds: have a connection at hand."""
