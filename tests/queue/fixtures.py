"""Messages and entries for the tests of the queue, and a delivery agent whose transfers the test ends by hand."""

from __future__ import annotations

import msgspec

from smtpplus.mail import reasons
from smtpplus.mail.disposition import Disposition, Request, Told
from smtpplus.mail.envelope import Envelope, Recipient, WholeContent
from smtpplus.mail.reply import Reply
from smtpplus.queue.entry import Entry, Message

OK = Reply(250, "2.0.0", "taken")
LATER = Reply(451, "4.7.1", "greylisted")
NEVER = Reply(550, "5.1.1", "no such user")


def envelope(
    number: int, level: int = 3, user: str = "app", *to: str, sender: str = "a@example.com", at: float = 0.0, size: int = 100
) -> Envelope:
    """An envelope of `size` octets."""
    recipients = tuple(Recipient(address) for address in to or ("b@example.net",))
    return Envelope(number, sender, recipients, user, level, size, at)


def entry(number: int, level: int = 3, user: str = "app", destination: str = "example.net", at: float = 0.0) -> Entry:
    """An entry with one recipient."""
    accepted = envelope(number, level, user, at=at)
    return Entry(Message(accepted, WholeContent(b"x" * 100), 1), destination, accepted.recipients, (0,))


class Held:
    """A transfer that goes on until the test ends it; it counts its stops."""

    def __init__(self, request: Request, done: Told, taken: Told | None = None) -> None:
        self.request = request
        self.done = done
        self.taken = taken
        self.stopped = False
        self.stops = 0
        self.final_dot_sent = False
        self.ended = False

    def stop(self) -> bool:
        if self.final_dot_sent:
            return False
        self.stops += not self.stopped
        self.stopped = True
        return True

    def go(self) -> None:
        self.stopped = False

    def abandon(self) -> None:
        if not self.final_dot_sent and not self.ended:
            self.end(reasons.ABANDONED.reply(), peer="", reason=reasons.ABANDONED.code)

    def part(self, *addresses: str) -> None:
        """The peer has the message for these; the attempt goes on for the others."""
        assert self.taken is not None
        recipients = self.request.recipients
        self.taken([Disposition(each, OK, "mx[192.0.2.1]:25", "delivered") for each in recipients if each.address in addresses])
        self.request = msgspec.structs.replace(self.request, recipients=tuple(each for each in recipients if each.address not in addresses))

    def end(self, *replies: Reply, peer: str = "mx[192.0.2.1]:25", reason: str = "") -> None:
        """End the attempt with one reply for all recipients, or one for each."""
        self.ended = True
        recipients = self.request.recipients
        each = replies if len(replies) > 1 else replies * len(recipients)
        self.done([Disposition(recipient, reply, peer, reason) for recipient, reply in zip(recipients, each, strict=True)])


class HoldingAgent:
    """Begins every attempt and ends none."""

    def __init__(self) -> None:
        self.transfers: list[Held] = []
        self.prepared: list[tuple[str, int]] = []

    def deliver(self, request: Request, done: Told, taken: Told | None = None) -> Held:
        transfer = Held(request, done, taken)
        self.transfers.append(transfer)
        return transfer

    def prepare(self, envelope: Envelope, destination: str) -> None:
        self.prepared.append((destination, envelope.level))

    def begun(self) -> list[int]:
        """The ids of the envelopes whose attempts began, in order."""
        return [transfer.request.envelope.id for transfer in self.transfers]
