"""xtext, and the original recipient of RFC 3461: text that travels in ESMTP parameters.

Octets outside `!` to `~`, and `+` and `=`, are written `+XX` (RFC 3461 §4). An address of the type utf-8 has an encoding of its own,
`\\x{HEX}` for each character (RFC 6533 §3), and where SMTPUTF8 is in use its characters may also stand as they are. What is kept of
both is the text that is meant. Failure: ValueError for what is no such thing.
"""

from __future__ import annotations

import re

ADDRESS_LIMIT = 500  # characters of an ORCPT parameter's value, RFC 3461 §4.2

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+").fullmatch  # RFC 3461 §4
_HEX = re.compile(r"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*").fullmatch
# RFC 6533 §3: the characters that need no encoding, and the others by their code point, as few digits as do
_UTF8_XTEXT = re.compile(r"(?:[!-*,-<>-\[\]-~\u00a0-\U0010ffff]|\\x\{[1-9A-F][0-9A-F]{1,5}\})+").fullmatch
_CODE_POINT = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


def check(text: str) -> None:
    """ValueError unless `text` is xtext, whatever it stands for."""
    if not _XTEXT(text):
        raise ValueError(f"{text} is not xtext")


def decode(text: str) -> str:
    """The text behind an xtext: ASCII, for nothing else is defined. ValueError."""
    check(text)
    plain = _HEX.sub(lambda found: chr(int(found[1], 16)), text)
    if not plain.isascii():
        raise ValueError(f"{text} stands for more than ASCII")
    return plain


def encode(text: str) -> str:
    """`text`, which must be ASCII, as xtext."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)


def decode_recipient(value: str) -> str:
    """The value of ORCPT as "type;address" with the address as it is meant. ValueError."""
    kind, semicolon, address = value.partition(";")
    if not semicolon or not _ADDRESS_TYPE(kind) or len(value) > ADDRESS_LIMIT:
        raise ValueError(f"{value} is not type;address")
    if kind.lower() != "utf-8":
        address = decode(address)
    elif _UTF8_XTEXT(address):
        address = _CODE_POINT.sub(_character, address)
    else:
        raise ValueError(f"{address} is not utf-8-addr-xtext")
    if not address.isprintable():
        raise ValueError(f"{address!r} cannot be printed")
    return f"{kind};{address}"


def encode_recipient(original: str) -> str:
    """What `decode_recipient` gave, in ASCII, as the value of ORCPT and of Original-Recipient."""
    kind, _, address = original.partition(";")
    return f"{kind};{encode_utf8(address) if kind.lower() == 'utf-8' else encode(address)}"


def encode_utf8(address: str) -> str:
    """An address in the utf-8-addr-xtext of RFC 6533 §3."""
    return "".join(c if "!" <= c <= "~" and c not in "\\+=" else f"\\x{{{ord(c):X}}}" for c in address)


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise ValueError(f"{found[0]} is no character")
    return chr(number)
