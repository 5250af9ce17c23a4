"""One mail transaction, from MAIL to the end of data: the envelope, and the content on its way to the spool.

The octets flow through the transparency procedure into a header, which is completed as soon as it is whole, and a body that is never
looked at again. What is small stays in memory and is stored in one piece; past SPILL it goes to the spool as it arrives, so that
memory does not grow with the message. Data is always read to its end before it is refused: a fault is kept and what follows is
counted and dropped (RFC 5321 §4.5.3.1.10). A transaction that is aborted leaves nothing behind, and nothing is handed in but all of
the octets that its envelope counts.
"""

from __future__ import annotations

from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.mail import reasons
from smtpplus.mail.envelope import CHUNK, Envelope, Recipient, queue_id
from smtpplus.mail.header import HEADER_LIMIT, find_header_end
from smtpplus.mail.lines import overlong
from smtpplus.mail.reasons import Refusal
from smtpplus.mail.transparency import Literal, Unstuffer
from smtpplus.submission.acceptance import Acceptance, Authority, Completed, Intake
from smtpplus.submission.parameters import MailParameters

LINE_LIMIT = 1_000  # octets with CRLF, RFC 5321 §4.5.3.1.6
SPILL = 4 * CHUNK  # octets of a message that are held in memory
BUDGET = 24 * 1024**2  # octets that messages of more than a chunk hold in all; beyond it each goes to the spool at once


class Transaction:
    """What one client agrees with us about one message. `session` and `client` are for the event."""

    __slots__ = (
        "_acceptance",
        "_client",
        "_completed",
        "_eight_bit",
        "_given",
        "_growth",
        "_held",
        "_intake",
        "_limit",
        "_line",
        "_over",
        "_pieces",
        "_refusal",
        "_session",
        "_size",
        "_source",
        "_spent",
        "_trace",
        "_weight",
        "authority",
        "identity",
        "number",
        "parameters",
        "recipients",
        "sender",
    )
    _log = Logger()

    def __init__(
        self,
        acceptance: Acceptance,
        authority: Authority,
        *,
        sender: str,
        parameters: MailParameters,
        limit: int,  # octets of content
        session: str,
        client: str,
    ) -> None:
        self._acceptance = acceptance
        self.authority = authority
        self.number = acceptance.new_id()
        self.identity = queue_id(self.number)
        self.sender = sender
        self.parameters = parameters
        self.recipients: dict[str, Recipient] = {}  # by address: one named twice gets one copy
        self._limit = limit
        self._session = session
        self._client = client
        self._source: Unstuffer | Literal | None = None
        self._trace: Callable[[], bytes] = bytes
        self._completed: Completed | None = None
        self._spent = 0.0  # see Completed; of a message that is not handed in yet
        self._refusal: Refusal | None = None
        self._over = False  # it was handed in, or aborted
        self._intake: Intake | None = None
        self._pieces: list[bytes] = []  # content not yet given to the spool
        self._held = 0  # octets in them
        self._given = 0  # octets given to the spool
        self._weight = 0  # of these, what counts in the budget
        self._size = 0  # octets of content as the client sent it: what the limit is about, RFC 1870 §5
        self._growth = 0  # octets by which completing the header made it larger
        self._eight_bit = False
        self._line = None if acceptance.long_lines else b""  # the unfinished line at the end of what came so far

    def begin_data(self, source: Unstuffer | Literal, trace: Callable[[], bytes]) -> None:
        """Data follows, as `source` reads it. `trace` makes the Received field once the message is whole enough to need one."""
        self._source = source
        self._trace = trace

    def feed(self, data: bytes) -> Deferred[Any] | None:
        """Take octets as received. A Deferred asks to be fed no more before it fires; it never fails."""
        source = self._source
        assert source is not None, "feed before begin_data"
        clear = source.feed(data)
        try:
            return self._take(clear, source)
        except Refusal as refusal:
            self._drop(refusal)
        except Exception:
            self._log.failure("fault in a message's data")
            self._drop(reasons.LOCAL_FAULT.refusal())
        return None

    def finish(self) -> Deferred[Any] | None:
        """The last chunk is here whole; what is returned is as of `feed`."""
        assert isinstance(self._source, Literal), "only chunks end so"
        self._source.finish()
        return self.feed(b"")

    @property
    def finished(self) -> bool:
        """Whether the end of data was seen."""
        return self._source is not None and self._source.finished

    @property
    def rest(self) -> bytes:
        """What the client sent behind the end of data."""
        return self._source.rest if self._source is not None else b""

    @property
    def refusal(self) -> Refusal | None:
        """What is wrong with the data so far."""
        return self._refusal

    def end(self) -> Deferred[None]:
        """After `finished`: make the message durable. Raises the Refusal that was kept, or the Deferred fails with one.

        RuntimeError if it was aborted, or octets of it are missing: a fault of ours.
        """
        if self._refusal is not None:
            raise self._refusal
        completed, size = self._completed, self._size + self._growth
        if completed is None or self._over or self._held + self._given != size:
            self.abort()
            raise RuntimeError(f"message {self.identity} of {size} octets is not there whole")
        self._over = True
        parameters = self.parameters
        envelope = Envelope(
            self.number,
            self.sender,
            tuple(self.recipients.values()),
            self.authority.name,
            completed.level,
            size,
            self._acceptance.now(),
            "8BITMIME" if self._eight_bit else parameters.body,
            parameters.smtputf8,
            parameters.ret,
            parameters.envid,
            list=self.authority.list_,
            release_at=completed.release_at,
            campaign=completed.campaign,
            deliver_by=parameters.deliver_by,
            by_mode=parameters.by[1] if parameters.by else "",
            require_tls=parameters.require_tls,
            unauthorized=self.authority.unauthorized,
        )
        content = b"".join(self._pieces) if self._intake is None else self._intake
        self._intake, self._pieces, self._spent = None, [], 0.0  # theirs now
        self._weigh(0)
        return self._acceptance.commit(envelope, content, completed, identity=self.identity, session=self._session, client=self._client)

    @property
    def thanks(self) -> bytes:
        """The reply when the message is durable."""
        assert self._completed is not None, "it was durable"
        return self._completed.thanks(self.identity)

    def abort(self) -> None:
        """The client is gone, or starts anew: forget everything."""
        self._over = True
        intake, self._intake = self._intake, None
        self._pieces, self._held = [], 0
        self._weigh(0)
        spent, self._spent = self._spent, 0.0
        self._acceptance.give_back(self.authority.name, spent)
        if intake is not None:
            intake.abort()

    def _take(self, clear: bytes, source: Unstuffer | Literal) -> Deferred[Any] | None:
        """Add what became clear to the content; raise what is wrong with it."""
        if self._over:
            return None
        self._size += len(clear)
        if self._size > self._limit:
            raise reasons.TOO_LARGE.refusal(limit=str(self._limit))
        if source.bare:
            raise reasons.BARE_LINE_END.refusal()
        if b"\0" in clear:
            raise reasons.NUL_OCTET.refusal()
        if self._line is not None:
            self._line = _unfinished_line(self._line + clear)
        if not self._eight_bit and not clear.isascii():
            self._eight_bit = True  # also where the client did not say so: the next hop must know, RFC 6152 §3
        if self._intake is not None:
            return self._give(clear) if clear else None
        self._pieces.append(clear)
        self._held += len(clear)
        if self._completed is None and not self._complete(len(clear), finished=source.finished):
            return None
        if self._held <= CHUNK:
            return None
        self._weigh(self._held)
        if self._held <= SPILL and self._acceptance.held <= BUDGET:
            return None
        self._intake = self._acceptance.begin(self.number)
        held, self._pieces, self._held = b"".join(self._pieces), [], 0
        self._weigh(0)
        return self._give(held)

    def _weigh(self, octets: int) -> None:
        """Count `octets` of this message in the budget that all share."""
        if octets != self._weight:
            self._acceptance.held += octets - self._weight
            self._weight = octets

    def _complete(self, fresh: int, *, finished: bool) -> bool:
        """Complete the header if it is whole; the last `fresh` octets were not searched before."""
        pieces = self._pieces
        if len(pieces) > 1:
            pieces[:] = [b"".join(pieces)]
        held = pieces[0]
        end = find_header_end(held, len(held) - fresh)
        if end < 0:
            if not finished:
                if len(held) > HEADER_LIMIT:
                    raise reasons.BAD_HEADER.refusal(cause=f"it is longer than {HEADER_LIMIT} octets")
                return False
            end = len(held)
        completed = self._acceptance.complete(
            held[:end],
            identity=self.identity,
            trace=self._trace(),
            sender=self.sender,
            authority=self.authority,
            parameters=self.parameters,
        )
        self._completed = completed
        self._spent = completed.spent
        pieces[:] = [completed.octets + held[end:]]
        if self._eight_bit:  # the header may have had all of it, and have it no more
            self._eight_bit = not pieces[0].isascii()
        self._growth = len(completed.octets) - end
        self._held += self._growth
        return True

    def _give(self, octets: bytes) -> Deferred[Any] | None:
        """Give octets to the spool."""
        assert self._intake is not None, "it has begun"
        self._given += len(octets)
        wait = self._intake.write(octets)
        return None if wait is None else wait.addErrback(self._lost)

    def _lost(self, failure: Failure) -> None:
        """The spool could not take it: read on to the end, then say so."""
        if self._refusal is None:
            fault = self._acceptance.storage_fault(failure).value
            self._drop(fault if isinstance(fault, Refusal) else reasons.LOCAL_FAULT.refusal())

    def _drop(self, refusal: Refusal) -> None:
        """From now on only the end of data matters."""
        self._refusal = refusal
        self.abort()


def _unfinished_line(octets: bytes) -> bytes:
    """What follows the last line end of `octets`; Refusal if one of their lines is too long."""
    if overlong(octets, LINE_LIMIT):  # without its LF: one too many
        raise reasons.LONG_LINE.refusal(limit=str(LINE_LIMIT))
    return octets[octets.rfind(b"\n") + 1 :]
