"""The parameters of MAIL and RCPT, as their RFCs write them.

Pure: text in, values out. Every parameter a command may carry stands in one table with the function that reads it; an unknown one is 555
5.5.4, a malformed or doubled one 501 5.5.4 (RFC 5321 §4.1.1.11). Whether a value is within what this server offers is for `offer`
to say. Failure: Refusal.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Callable, Mapping

import msgspec

from smtpplus.mail import reasons, xtext
from smtpplus.mail.envelope import Recipient

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*").fullmatch  # esmtp-keyword, RFC 5321 §4.1.2
_VALUE = re.compile(r"[^\x00-\x20=\x7f]+").fullmatch  # esmtp-value with UTF-8, RFC 5321 §4.1.2, RFC 6531 §3.3
_SIZE = re.compile(r"[0-9]{1,20}").fullmatch  # size-value, RFC 1870 §5
_PRIORITY = re.compile(r"-?[1-9]|0").fullmatch  # priority-value, RFC 6710 §6
_HOLD_FOR = re.compile(r"[1-9][0-9]{0,8}").fullmatch  # future-release-integer, RFC 4865 §4
_HOLD_UNTIL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII).fullmatch  # RFC 3339 §5.6
_BY = re.compile(r"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE).fullmatch  # by-value, RFC 2852 §4
ENVID_LIMIT = 100  # characters of the value, RFC 3461 §4.4
_REPORTS = ("SUCCESS", "FAILURE", "DELAY")  # in the order in which they are kept


class MailParameters(msgspec.Struct, frozen=True):
    """What a client said about its message in MAIL; see mail.envelope for what has its name from there."""

    size: int = 0  # octets, RFC 1870; 0: not said
    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    priority: int | None = None  # MT-PRIORITY, -9..9, RFC 6710
    hold_for: int = 0  # seconds, RFC 4865
    hold_until: float = 0.0  # seconds since the epoch, RFC 4865
    by: tuple[int, str] | None = None  # seconds, which may be over, and by-mode with its trace; RFC 2852
    require_tls: bool = False
    release_at: float = 0.0  # of hold_for or hold_until; set by `offer`
    deliver_by: float = 0.0  # of `by`; set by `offer`


NONE = MailParameters()


def mail_parameters(text: str) -> MailParameters:
    """The parameters behind the reverse-path."""
    return MailParameters(**_read("MAIL", text, _MAIL))


def recipient(address: str, text: str) -> Recipient:
    """A forward-path with the parameters behind it."""
    return Recipient(address, **_read("RCPT", text, _RCPT))


def _read(command: str, text: str, table: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    """`text` read by the functions of `table`, as fields and values; each keyword once."""
    found: dict[str, Any] = {}
    for parameter in text.split():
        keyword, equals, value = parameter.partition("=")
        if not _KEYWORD(keyword) or (equals and not _VALUE(value)):
            raise reasons.BAD_ARGUMENT.refusal(command=command, cause=f"the parameter {parameter} is malformed")
        keyword = keyword.upper()
        if keyword not in table:
            raise reasons.BAD_PARAMETER.refusal(command=command, parameter=keyword, cause="it is not known")
        field, read = table[keyword]
        if field in found:
            raise reasons.BAD_ARGUMENT.refusal(command=command, cause=f"the parameter {keyword} is given twice")
        try:
            found[field] = read(value)
        except ValueError:
            raise reasons.BAD_ARGUMENT.refusal(command=command, cause=f"the parameter {parameter} is malformed") from None
    found.pop("", None)
    return found


def _matched(pattern: Callable[[str], re.Match[str] | None], value: str) -> re.Match[str]:
    found = pattern(value)
    if found is None:
        raise ValueError(value)
    return found


def _one_of(*words: str) -> Callable[[str], str]:
    """The reader of a value that is one of `words`, in any case."""

    def read(value: str) -> str:
        word = value.upper()
        if word not in words:
            raise ValueError(value)
        return word

    return read


def _size(value: str) -> int:
    return int(_matched(_SIZE, value)[0])


def _flag(value: str) -> bool:
    """SMTPUTF8 and REQUIRETLS take no value, RFC 6531 §3.4, RFC 8689 §2."""
    if value:
        raise ValueError(value)
    return True


def _submitter(value: str) -> str:
    """AUTH=: syntax checked, then not believed and not kept: we trust no client to name another (RFC 4954 §5)."""
    if value != "<>":
        xtext.check(value)
    return value


def _envelope_id(value: str) -> str:
    plain = xtext.decode(value)
    if len(value) > ENVID_LIMIT or not plain.isprintable():  # RFC 3461 §4.4: graphic characters and blanks, or a report could not say it
        raise ValueError(value)
    return plain


def _priority(value: str) -> int:
    return int(_matched(_PRIORITY, value)[0])


def _hold_for(value: str) -> int:
    return int(_matched(_HOLD_FOR, value)[0])


def _hold_until(value: str) -> float:
    return datetime.fromisoformat(_matched(_HOLD_UNTIL, value)[0]).timestamp()


def _by(value: str) -> tuple[int, str]:
    found = _matched(_BY, value)
    seconds, mode = int(found[1]), found[2].upper()
    if mode == "R" and seconds <= 0:  # RFC 2852 §4
        raise ValueError(value)
    return seconds, mode + found[3].upper()


def _notify(value: str) -> str:
    """NEVER alone, or some of the others (RFC 3461 §4.1)."""
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return "NEVER"
    if not set(words) <= set(_REPORTS):
        raise ValueError(value)
    return ",".join(word for word in _REPORTS if word in words)


_MAIL: dict[str, tuple[str, Callable[[str], Any]]] = {  # keyword: field, reader; a field without a name is read and not kept
    "SIZE": ("size", _size),
    "BODY": ("body", _one_of("7BIT", "8BITMIME")),  # no BINARYMIME: nothing here would convert it for a next hop without it
    "SMTPUTF8": ("smtputf8", _flag),
    "AUTH": ("", _submitter),
    "RET": ("ret", _one_of("FULL", "HDRS")),  # RFC 3461 §4.3
    "ENVID": ("envid", _envelope_id),
    "MT-PRIORITY": ("priority", _priority),
    "HOLDFOR": ("hold_for", _hold_for),
    "HOLDUNTIL": ("hold_until", _hold_until),
    "BY": ("by", _by),
    "REQUIRETLS": ("require_tls", _flag),
}
_RCPT: dict[str, tuple[str, Callable[[str], Any]]] = {
    "NOTIFY": ("notify", _notify),
    "ORCPT": ("orcpt", xtext.decode_recipient),  # RFC 3461 §4.2, RFC 6533 §3
}
