"""The moment of responsibility: the header is completed, envelope and content are committed, and only then the client hears 250.

Invariant: `commit` fires after the message is durable, and what is not committed leaves nothing behind. The order is: authorization,
header, commit, event, reply. Failure: a Refusal for what the client did; STORAGE_FAULT, with its cause in the log, when the spool cannot
take the message.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Callable, Protocol

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.config import Configuration
from smtpplus.events import Accepted, Events, Lowered, Scheduled
from smtpplus.mail import priority, reasons, smtpapi
from smtpplus.mail.address import AddressError, header_mailboxes
from smtpplus.mail.budget import COSTLY, Budgets
from smtpplus.mail.envelope import Envelope
from smtpplus.mail.header import Header, decoded
from smtpplus.submission.parameters import NONE, MailParameters

HOPS = 50  # Received fields; more mean a loop. Fewer than the 100 of RFC 5321 §6.3: what is submitted has no way behind it yet
_REMOVED = frozenset(("return-path", "bcc", "resent-bcc", smtpapi.FIELD))  # RFC 5321 §4.4, RFC 6409 §8 and RFC 5322 §3.6.3
_REMOVED_FOR_DISPLAY = _REMOVED | priority.PRIORITY_FIELDS


class Intake(Protocol):
    """A large message on its way into the spool: its octets in order, the first with the whole header, then one commit or abort."""

    def write(self, octets: bytes) -> Deferred[None] | None:
        """Take the next octets. A Deferred asks to send no more before it fires; its failure means the message is lost."""

    def commit(self, envelope: Envelope) -> Deferred[None]:
        """Fires when all octets and the envelope are durable."""

    def abort(self) -> None:
        """Forget what was written. Never raises, also after a failure."""


class Spool(Protocol):
    """Where accepted messages go."""

    def accept(self, envelope: Envelope, content: bytes) -> Deferred[None]:
        """Take a whole small message; fires when it is durable."""

    def begin(self, envelope_id: int) -> Intake:
        """Begin a message that is too large to be held in memory."""


class Authority(Protocol):
    """What acceptance asks about the one who submits: see checker.ISubmissionDelivery."""

    name: str  # of the user, "" if unknown
    list_: str  # that the user belongs to
    level: int  # the user's priority
    ceiling: int  # the highest priority the user's mail may have
    budget: int  # messages an hour at levels 1 and 2; 0: any number

    @property
    def unauthorized(self) -> bool:
        """Whether the message was let through although its sender is not authorized (A19)."""

    def validateHeader(self, sender: str, header: Header) -> None:
        """Refusal unless the user may send what `header` says it is from."""


class Completed(msgspec.Struct, frozen=True):
    """A header ready to be stored, and what was read from it."""

    octets: bytes
    level: int
    message_id: str
    subject: str
    release_at: float = 0.0  # see mail.envelope, as the next
    campaign: str = ""
    lowered: tuple[int, int] | None = None  # the level it would have, and the hour's budget that is spent (D2)
    capped: tuple[int, int] | None = None  # the level it asked for, and the user's ceiling that it got instead (D2)
    spent: float = 0.0  # when one of the hour's budget was spent for it; 0: none was

    def thanks(self, identity: str) -> bytes:
        """The reply to the end of data, once the message is durable; X.3.6 says that its priority is another (RFC 6710 §4.1, §7)."""
        name = identity.encode("ascii")
        if self.lowered is None:
            return b"250 2.0.0 queued as %s\r\n" % name
        asked, budget = self.lowered
        said = b"250 2.3.6 queued as %s, priority lowered from %d to %d: the budget of %d urgent message%s an hour is spent\r\n"
        return said % (name, asked, self.level, budget, b"s" if budget != 1 else b"")


class Acceptance:
    """Takes responsibility for messages. One for the daemon."""

    __slots__ = (
        "_budgets",
        "_display",
        "_events",
        "_fix_headers",
        "_hostname",
        "_longest",
        "_spool",
        "held",
        "long_lines",
        "new_id",
        "now",
    )
    _log = Logger()

    def __init__(
        self,
        *,
        configuration: Configuration,
        events: Events,
        spool: Spool,
        new_id: Callable[[], int],
        now: Callable[[], float],
        budgets: Budgets | None = None,
    ) -> None:
        self._budgets = Budgets() if budgets is None else budgets
        self._hostname = configuration.hostname
        self._display = configuration.priority.display
        self._fix_headers = configuration.submission.fix_headers
        self._longest = configuration.submission.future_release
        self.long_lines = configuration.submission.long_lines == "accept"
        self._events = events
        self._spool = spool
        self.now = now  # seconds since the epoch
        self.new_id = new_id
        self.held = 0  # octets that larger messages hold in memory, all together; see transaction

    def complete(
        self, octets: bytes, *, identity: str, trace: bytes, sender: str, authority: Authority, parameters: MailParameters = NONE
    ) -> Completed:
        """The header `octets` authorized and completed (RFC 6409 §8). Refusal.

        `trace` goes on top, what is missing to the end; `identity` is the queue ID, `parameters` are those of MAIL.
        """
        header = Header.parse(octets)
        if self._fix_headers and not parameters.smtputf8 and not octets.isascii():
            header = header.encoded()
        if len(header.values("received")) > HOPS:
            raise reasons.LOOP.refusal(limit=str(HOPS))
        authority.validateHeader(sender, header)
        wishes = smtpapi.NOTHING
        if header.has(smtpapi.FIELD):
            wishes = smtpapi.read(header.values(smtpapi.FIELD), now=self.now(), longest=self._longest)
        asked = wishes.level or _level(header) if parameters.priority is None else priority.mt_level(parameters.priority)
        wanted = priority.effective(authority.level, asked, authority.ceiling)
        now = self.now()
        level = self._budgets.level(authority.name, authority.budget, wanted, now)
        added = bytearray()
        if not header.has("date"):
            added += b"Date: %s\r\n" % mail_date(int(self.now())).encode("ascii")
        if header.has("message-id"):
            message_id = decoded(header.values("message-id")[0])
        else:
            message_id = f"<{identity}@{self._hostname}>"
            added += b"Message-ID: %s\r\n" % message_id.encode("ascii")
        if sender and not header.has("sender") and _several(header):
            added += b"Sender: <%s>\r\n" % sender.encode("utf-8")  # RFC 6409 §8.1, RFC 5322 §3.6.2
        if self._display and level != priority.NORMAL:
            added += _display(level)
        removed = _REMOVED_FOR_DISPLAY if self._display else _REMOVED
        whole = header.compose(remove=removed, prepend=trace, append=bytes(added))
        release_at = parameters.release_at or wishes.release_at
        lowered = (wanted, authority.budget) if level != wanted else None
        spent = now if level <= COSTLY and authority.budget else 0.0
        capped = (asked, wanted) if asked is not None and asked < authority.ceiling else None
        return Completed(whole, level, message_id, _subject(header), release_at, wishes.campaign, lowered, capped, spent)

    def give_back(self, user: str, spent: float) -> None:
        """A message of `user` that had been completed is not accepted; see Completed.spent."""
        if spent:
            self._budgets.give_back(user, spent)

    def begin(self, number: int) -> Intake:
        """The intake of a message that outgrew memory."""
        return self._spool.begin(number)

    def commit(
        self, envelope: Envelope, content: bytes | Intake, header: Completed, *, identity: str, session: str, client: str
    ) -> Deferred[None]:
        """Make the message durable, then state Accepted. Fails with Refusal (STORAGE_FAULT) only; nothing is kept then."""
        durable = _attempt(self._spool.accept, envelope, content) if isinstance(content, bytes) else _attempt(content.commit, envelope)
        # one step for both: what fails in the callback is no fault of the storage
        return durable.addCallbacks(
            self._accepted,
            self._not_kept,
            callbackArgs=(envelope, header),
            callbackKeywords={"identity": identity, "session": session, "client": client},
            errbackArgs=(envelope.user, header.spent),
        )

    def _not_kept(self, failure: Failure, user: str, spent: float) -> Failure:
        self.give_back(user, spent)
        return self.storage_fault(failure)

    def storage_fault(self, failure: Failure) -> Failure:
        """Report a failure of the spool; what the client gets instead."""
        self._log.failure("a message could not be stored", failure=failure)
        return Failure(reasons.STORAGE_FAULT.refusal())

    def _accepted(self, _: object, envelope: Envelope, header: Completed, *, identity: str, session: str, client: str) -> None:
        self._events.state(
            Accepted(
                self.now(),
                identity,
                session,
                client,
                envelope.user,
                envelope.sender,
                tuple(recipient.address for recipient in envelope.recipients),
                envelope.level,
                envelope.size,
                header.message_id,
                header.subject,
                envelope.list,
                envelope.campaign,
            )
        )
        if header.capped is not None:
            self._events.state(Lowered(self.now(), identity, envelope.user, *header.capped, 0))
        if header.lowered is not None:
            asked, budget = header.lowered
            self._events.state(Lowered(self.now(), identity, envelope.user, asked, envelope.level, budget))
        if envelope.release_at:
            self._events.state(Scheduled(self.now(), identity, envelope.release_at))


@functools.lru_cache(maxsize=2)
def mail_date(second: int) -> str:
    """A time, in seconds since the epoch, as mail writes it (RFC 5322 §3.3); most messages come in a second that had others."""
    return format_datetime(datetime.fromtimestamp(second, UTC))


def received_field(*, hello: str, address: str, hostname: str, protocol: str, identity: str, now: float) -> bytes:
    """The trace field of RFC 5321 §4.4, its last CRLF missing. `protocol`: see RFC 3848. No user and no recipient is in it."""
    literal = f"IPv6:{address}" if ":" in address else address
    text = f"Received: from {hello} ([{literal}])\r\n\tby {hostname} with {protocol} id {identity};\r\n\t{mail_date(int(now))}"
    return text.encode("ascii", "backslashreplace")


def _attempt(call: Callable[..., Deferred[None]], *arguments: object) -> Deferred[None]:
    """`call(*arguments)`; what it raises becomes the failure of the Deferred, as if it had come later."""
    try:
        return call(*arguments)
    except Exception:
        return fail(Failure())


def _several(header: Header) -> bool:
    """Whether From names more than one mailbox; what cannot be read, and was let through all the same, does not."""
    fields = header.raw("from")
    if len(fields) != 1 or b"," not in fields[0]:
        return False
    try:
        return len(header_mailboxes(header.values("from")[0])) > 1
    except AddressError:
        return False


def _level(header: Header) -> int | None:
    """What the header says of the message's priority."""
    said = {name: header.values(name) for name in priority.PRIORITY_FIELDS if header.has(name)}
    return priority.message_level(said) if said else None


@functools.cache
def _display(level: int) -> bytes:
    """The fields that show `level` to the recipient (A28)."""
    return b"".join(f"{name}: {value}\r\n".encode("ascii") for name, value in priority.display_fields(level))


def _subject(header: Header) -> str:
    """The subject as people read it (B9), printable."""
    subject = header.values("subject")
    return decoded(subject[0]) if subject else ""
