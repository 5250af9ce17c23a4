"""The grammar of a command line: the verb, the path, the parameters (RFC 5321 §4.1.1, §4.1.2).

Pure: octets in, values out. Every parameter a command may carry stands in one table with the function that reads it; an unknown one
is 555 5.5.4, a malformed or doubled one 501 5.5.4 (RFC 5321 §4.1.1.11). Failure: Refusal.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Mapping

import msgspec

from smtpplus.mail import reasons
from smtpplus.mail.address import AddressError, parse_path
from smtpplus.mail.envelope import Recipient
from smtpplus.mail.reasons import Refusal

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")  # esmtp-keyword, RFC 5321 §4.1.2
_VALUE = re.compile(r"[^\x00-\x20=\x7f]+")  # esmtp-value with UTF-8, RFC 5321 §4.1.2, RFC 6531 §3.3
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")  # RFC 3461 §4
_GREETING = re.compile(rb"[^\x00-\x20\x7f]{1,255}")  # what a client may call itself; RFC 5321 §4.5.3.1.2 allows 255 octets


class MailParameters(msgspec.Struct, frozen=True):
    """What a client said about its message in MAIL. `size` is 0 where it named none."""

    size: int = 0  # octets, RFC 1870
    body: str = ""  # "", "7BIT" or "8BITMIME"; RFC 6152
    smtputf8: bool = False  # RFC 6531


_NO_PARAMETERS = MailParameters()


def split(line: bytes) -> tuple[bytes, bytes]:
    """The verb in upper case and everything behind its blank."""
    verb, _, argument = line.partition(b" ")
    return verb.upper(), argument


def parse_hello(argument: bytes) -> str:
    """The name a client gives itself in EHLO, HELO; printable, at most 255 octets. Refusal without one."""
    name = argument.strip(b" \t")
    if not _GREETING.fullmatch(name):
        raise reasons.BAD_ARGUMENT.refusal(command="EHLO", cause="the name of the client is missing or has characters that no name has")
    return name.decode("ascii", "backslashreplace")


def parse_mail(argument: bytes) -> tuple[str, MailParameters]:
    """The reverse-path ("" for the null one) and the parameters behind MAIL. Refusal if they are no such thing."""
    address, rest = _path(argument, b"FROM:", null=True)
    parameters = MailParameters(**_parameters("MAIL", rest, _MAIL_PARAMETERS)) if rest else _NO_PARAMETERS
    if not parameters.smtputf8 and not address.isascii():
        raise reasons.UTF8_NEEDED.refusal(address=address)
    return address, parameters


def parse_rcpt(argument: bytes, *, smtputf8: bool) -> Recipient:
    """The forward-path and the parameters behind RCPT. `smtputf8`: whether MAIL announced UTF-8 addresses (RFC 6531 §3.4)."""
    address, rest = _path(argument, b"TO:", null=False)
    if not smtputf8 and not address.isascii():
        raise reasons.UTF8_NEEDED.refusal(address=address)
    if not rest:
        return Recipient(address)
    return Recipient(address, **_parameters("RCPT", rest, _RCPT_PARAMETERS))


def no_argument(command: str, argument: bytes) -> None:
    """Refusal if there is an argument behind a command that takes none."""
    if argument.strip(b" \t"):
        raise reasons.BAD_ARGUMENT.refusal(command=command, cause="it takes none")


def _path(argument: bytes, keyword: bytes, *, null: bool) -> tuple[str, str]:
    """The address behind `keyword`, as given, and what follows its bracket, stripped. `null`: it is a reverse-path."""
    if argument[: len(keyword)].upper() != keyword:
        raise reasons.BAD_ARGUMENT.refusal(command="MAIL" if null else "RCPT", cause=f"it is not {keyword.decode()}<address>")
    try:
        text = argument[len(keyword) :].decode("utf-8").strip(" ")
        if not null and text[:12].lower() == "<postmaster>":  # the one address without a domain, RFC 5321 §4.1.1.3
            return text[1:11], text[12:].strip(" ")
        address, rest = parse_path(text, null)
    except UnicodeDecodeError:
        raise _bad_path("it is not UTF-8", null=null) from None
    except AddressError as fault:
        raise _bad_path(str(fault), null=null) from None
    if rest and rest[0] != " ":
        raise _bad_path("a blank must separate the > from what follows", null=null)
    return address, rest.strip(" ")


def _bad_path(cause: str, *, null: bool) -> Refusal:
    return (reasons.BAD_MAILBOX if null else reasons.BAD_RECIPIENT).refusal(cause=cause)


def _parameters(command: str, text: str, table: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    """`text` read by the functions of `table`, as fields and values; each keyword once."""
    found: dict[str, Any] = {}
    for parameter in text.split():
        keyword, equals, value = parameter.partition("=")
        if not _KEYWORD.fullmatch(keyword) or (equals and not _VALUE.fullmatch(value)):
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


def _size(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 20):  # size-value, RFC 1870 §5
        raise ValueError(value)
    return int(value)


def _body(value: str) -> str:
    body = value.upper()
    if body not in {"7BIT", "8BITMIME"}:
        raise ValueError(value)
    return body


def _flag(value: str) -> bool:
    if value:
        raise ValueError(value)  # SMTPUTF8 takes none, RFC 6531 §3.4
    return True


def _submitter(value: str) -> str:
    """AUTH=: syntax checked, then not believed and not kept: we trust no client to name another (RFC 4954 §5)."""
    if value != "<>" and not _XTEXT.fullmatch(value):
        raise ValueError(value)
    return value


_MAIL_PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "SIZE": ("size", _size),
    "BODY": ("body", _body),
    "SMTPUTF8": ("smtputf8", _flag),
    "AUTH": ("", _submitter),
}
_RCPT_PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {}
