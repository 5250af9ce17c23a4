"""What a session does beside sending mail: mistakes, refusals, commands that bring nothing forward; when it is enough, and what is told.

A client may err, but not for ever, and the log must not grow at the pace at which somebody sends nonsense. Until a client may submit,
every refusal counts as a mistake; then those of mail are counted on their own, up to a higher limit. A message that is accepted wipes
the slate clean. Refusals beyond the first ones are not told one by one, but as a number. Pure: counts in, verdicts out.
"""

from __future__ import annotations

from smtpplus.config import Limits

JUNK = frozenset((b"NOOP", b"RSET", b"VRFY", b"HELP", b"EHLO", b"HELO"))  # bring nothing forward; Postfix counts NOOP, VRFY, ETRN, RSET
FORBEARANCE = 5  # refusals of mail that are worth one mistake
TOLD_OF_STRANGERS = 5  # refusals told one by one of a client that may not submit
TOLD = 100  # the same of one that may
_SPEECH = frozenset((500, 501, 502, 503, 504, 555))  # replies that are the client's mistakes, whoever it is


class Conduct:
    """See the module. Counts since the last accepted message; `untold` are refusals that nobody was told of."""

    __slots__ = ("_junk", "_limits", "_mistakes", "_refusals", "_told", "untold")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.forgive()

    def forgive(self) -> None:
        """A message was accepted."""
        self._mistakes = self._refusals = self._junk = self._told = self.untold = 0

    def refused(self, code: int, *, stranger: bool) -> bool:
        """Count a refusal; whether it is to be told. `stranger`: the client may not submit."""
        if code == 421:  # the last word
            return True
        if stranger or code in _SPEECH:
            self._mistakes += 1
        elif code >= 500:
            self._refusals += 1
        if self._told < (TOLD_OF_STRANGERS if stranger else TOLD):
            self._told += 1
            return True
        self.untold += 1
        return False

    @property
    def exceeded(self) -> int:
        """The limit of mistakes, or of refusals, that is reached; 0: none."""
        limit = self._limits.bad_commands
        if self._mistakes >= limit:
            return limit
        return limit * FORBEARANCE if self._refusals >= limit * FORBEARANCE else 0

    def idles(self) -> bool:
        """Count one of JUNK; whether it is one too many."""
        self._junk += 1
        return self._junk > self._limits.junk_commands
