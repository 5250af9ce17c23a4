"""The grammar of a command line: the verb, the path, the chunk (RFC 5321 §4.1.1, §4.1.2, RFC 3030 §2).

Pure: octets in, values out. What follows a path is the business of `parameters`. Failure: Refusal.
"""

from __future__ import annotations

import re

import msgspec

from smtpplus.mail import reasons
from smtpplus.mail.address import AddressError, parse_path
from smtpplus.mail.envelope import Recipient
from smtpplus.mail.reasons import Refusal
from smtpplus.submission.parameters import NONE, MailParameters, mail_parameters, recipient

_CHUNK = re.compile(rb"[ \t]*([0-9]{1,20})(?:[ \t]+(LAST))?[ \t]*", re.IGNORECASE).fullmatch  # chunk-size, end-marker, RFC 3030 §2
_GREETING = re.compile(rb"[^\x00-\x20\x7f]{1,255}")  # what a client may call itself; RFC 5321 §4.5.3.1.2 allows 255 octets


class Chunk(msgspec.Struct):
    """One BDAT command and what is still to come of its octets (RFC 3030 §2)."""

    size: int  # octets
    last: bool
    left: int
    refusal: Refusal | None = None  # its octets are read, and then it is refused


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
    parameters = mail_parameters(rest) if rest else NONE
    if not parameters.smtputf8 and not address.isascii():
        raise reasons.UTF8_NEEDED.refusal(address=address)
    return address, parameters


def parse_rcpt(argument: bytes, *, smtputf8: bool) -> Recipient:
    """The forward-path and the parameters behind RCPT. `smtputf8`: whether MAIL announced UTF-8 addresses (RFC 6531 §3.4)."""
    address, rest = _path(argument, b"TO:", null=False)
    if not smtputf8 and not (address.isascii() and rest.isascii()):
        raise reasons.UTF8_NEEDED.refusal(address=address if rest.isascii() else rest)
    return recipient(address, rest) if rest else Recipient(address)


def parse_bdat(argument: bytes) -> Chunk:
    """The argument of BDAT. Refusal if it is none: then nobody knows how many octets follow it."""
    found = _CHUNK(argument)
    if found is None:
        raise reasons.BAD_ARGUMENT.refusal(command="BDAT", cause="it is not a number of octets, or that and LAST")
    size = int(found[1])
    return Chunk(size, found[2] is not None, size)


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
