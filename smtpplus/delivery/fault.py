"""Why an attempt did not get as far as a verdict from the peer: a value, never an exception.

A fault has a reason of the closed list, what is known about the cause, and the peer's own words where it said any; these
then are the reply (RFC 3464 §2.3.6), so that permanence is decided by the peer's first digit.
"""

from __future__ import annotations

import msgspec

from smtpplus.mail import reasons
from smtpplus.mail.reasons import Reason
from smtpplus.mail.reply import Outcome, Reply

DOUBT = ", after the final dot; the message may arrive twice"


class Fault(msgspec.Struct, frozen=True):
    """One fault of a session, a lookup or a mailbox. `answer` is the peer's reply if that is what went wrong; `at` names a peer
    that was not reached, so that it is no disposition's peer. `doubtful`: the peer had the whole message, and did not say what of it."""

    reason: Reason
    cause: str = ""
    answer: Reply | None = None
    at: str = ""
    doubtful: bool = False

    def reply(self, peer: str, domain: str) -> Reply:
        """What a disposition says: the peer's answer, or ours about `peer` and `domain`."""
        if self.answer is not None:
            return self.answer
        reply = self.reason.reply(peer=peer or self.at or domain, cause=self.cause, domain=domain, limit=self.cause)
        return msgspec.structs.replace(reply, text=reply.text + DOUBT) if self.doubtful else reply


def answered(reply: Reply) -> Fault:
    """The fault of a peer that said no: later, or for good."""
    return Fault(reasons.PEER_REFUSED if reply.outcome is Outcome.FAILED else reasons.PEER_DEFERRED, answer=reply)
