"""Commands out, replies in: which reply answers which command, and what a peer may not do, whatever the commands mean.

The theory: `_awaited` holds what the replies still to come answer, in order; `_unsent` the commands that wait for a reply because the
peer does not offer PIPELINING. The peer is hostile: lines and replies have limits, less is kept of them, and octets that arrive before
the command they could answer was sent are a breach of protocol (RFC 3207 §4.2 behind STARTTLS). `fault` is set once the session is broken.
"""

from __future__ import annotations

from collections import deque

from smtpplus.delivery.fault import Fault
from smtpplus.delivery.replies import LINE_LIMIT, LONGEST_LINE, Malformed, Replies
from smtpplus.delivery.terms import Awaited, Step
from smtpplus.mail import reasons
from smtpplus.mail.reasons import Reason


class Exchange:
    """One session's commands and replies. Whoever knows what they mean is a subclass, and says so in `_answer`."""

    def __init__(self) -> None:
        self._buffer = b""
        self._passed = 0  # octets of an overlong line that were read and not kept
        self._replies = Replies()
        self._out = b""
        self._awaited: deque[Awaited] = deque((Awaited.GREETING,))
        self._unsent: deque[tuple[Awaited, bytes]] = deque()
        self.answered = 0  # replies read so far
        self.closing = False  # the session is of no use after this transaction
        self.fault: Fault | None = None

    @property
    def patience(self) -> float:
        """Seconds to wait for the next reply."""
        return (self._awaited[0] if self._awaited else Awaited.NOTHING).patience

    @property
    def awaited(self) -> str:
        """What the peer is to answer next, in words."""
        return (self._awaited[0] if self._awaited else Awaited.NOTHING).words

    def take(self) -> bytes:
        """What is to be written now, b"" for nothing."""
        out, self._out = self._out, b""
        return out

    def receive(self, data: bytes) -> Step:
        """Octets of the peer, cut anyhow."""
        if self.fault:
            return Step.BROKEN
        lines = ((self._buffer + data) if self._buffer else data).split(b"\n")
        self._buffer = lines.pop()
        for number, line in enumerate(lines, 1):
            step = self._line(line)
            rest = number < len(lines) or self._buffer
            if rest and (self._out or step is not Step.WAIT):
                return self._excess(step)
            if step is not Step.WAIT:
                return step
        if len(self._buffer) > LINE_LIMIT:
            self._passed += len(self._buffer) - LINE_LIMIT
            self._buffer = self._buffer[:LINE_LIMIT]
            if self._passed > LONGEST_LINE - LINE_LIMIT:
                return self._malformed(self._replies.endless(self._buffer))
        return Step.WAIT

    def _line(self, line: bytes) -> Step:
        self._passed = 0
        try:
            reply = self._replies.line(line)
        except Malformed as fault:
            return self._malformed(fault)
        if reply is None:
            return Step.WAIT
        self.answered += 1
        return self._answer(self._awaited.popleft() if self._awaited else Awaited.NOTHING, *reply)

    def _answer(self, awaited: Awaited, code: int, lines: list[bytes]) -> Step:
        """What the reply to `awaited` leads to."""
        raise NotImplementedError

    def _malformed(self, fault: Malformed) -> Step:
        """What came is no reply."""
        return self._breach(str(fault))

    def _excess(self, step: Step) -> Step:
        """`step` was reached with octets left behind it, which can answer nothing that was asked."""
        if step is Step.DONE:
            self.closing = True  # the verdict stands, but what comes next cannot be told apart
            return step
        if step in (Step.BROKEN, Step.CLOSED):
            return step
        return self._breach("plaintext stands behind STARTTLS" if step is Step.START_TLS else "it answers what was not asked")

    def _breach(self, cause: str) -> Step:
        return self._break(reasons.PEER_BROKE_PROTOCOL, cause)

    def _break(self, reason: Reason, cause: str) -> Step:
        self.fault = Fault(reason, cause)
        return Step.BROKEN

    def _send(self, awaited: Awaited, command: str) -> Step:
        self._awaited.append(awaited)
        self._out += f"{command}\r\n".encode()
        return Step.WAIT
