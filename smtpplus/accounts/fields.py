"""The fields of an account as people fill them in: user name, list, note, authorized domains, authorized senders (A14, A17).

Each function returns normalized values or raises FieldError, a sentence that says what to write instead. Domains and addresses
are separated by semicolons; the mistakes people make there (a comma, an address among domains, a domain among addresses) have
sentences of their own.
"""

from __future__ import annotations

import re

from smtpplus.accounts.user import Sender
from smtpplus.mail.address import AddressError, normalize_domain, parse_mailbox
from smtpplus.mail.reply import printable
from smtpplus.storage.statement import Declined

_NAME = re.compile(r"[a-z0-9._@-]{1,64}", re.ASCII)
_PIECES = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^";])*)(;|\Z)', re.DOTALL)  # a quoted local part may hold a semicolon
NOTE_LIMIT = 2_000  # characters


class AccountError(Declined, ValueError):
    """An account cannot be changed as asked; str() is a sentence with its remedy."""


class FieldError(AccountError):
    """A field is not filled in as it must be."""


def user_name(text: str) -> str:
    """A user name in lower case: letters, digits and . _ - @, up to 64."""
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise FieldError(f'"{printable(text)}" cannot be a user name; use 1 to 64 of the letters a to z, digits, ".", "_", "-" and "@"')
    return name


def list_name(text: str) -> str:
    """A list's name, as user_name."""
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise FieldError(
            f'"{printable(text)}" cannot be the name of a list; use 1 to 64 of the letters a to z, digits, ".", "_", "-" and "@"'
        )
    return name


def note(text: str) -> str:
    """A note, stripped; several lines are fine."""
    text = text.strip()
    if len(text) > NOTE_LIMIT:
        raise FieldError(f"the note has {len(text)} characters; {NOTE_LIMIT} are allowed")
    if any(not (character.isprintable() or character in "\n\t") for character in text):
        raise FieldError("the note has a control character; take it out")
    return text


def priority(level: int) -> int:
    """A level, 1 highest to 5."""
    if not 1 <= level <= 5:
        raise FieldError(f"{level} is no priority; there are 1 (highest) to 5")
    return level


def domains(text: str) -> list[Sender]:
    """Authorized domains: "a.com; .b.com" is a domain and a subtree. [] for the empty text. Doubles are dropped."""
    found = {}
    for piece in _pieces(text):
        sender = _domain(piece)
        found[sender.kind, sender.value] = sender
    return list(found.values())


def addresses(text: str) -> list[Sender]:
    """Authorized senders: "x@a.com; y@b.com". [] for the empty text. Doubles are dropped."""
    found = {}
    for piece in _pieces(text):
        sender = _address(piece)
        found[sender.value] = sender
    return list(found.values())


def recipients(text: str) -> tuple[str, ...]:
    """Addresses that get mail of ours, as written: "x@a.com; y@b.com". () for the empty text."""
    pieces = _pieces(text)
    for piece in pieces:
        if "@" not in piece:
            raise FieldError(f'"{printable(piece)}" is no address; write one such as "ops@a.com"')
        _address(piece)
    return tuple(dict.fromkeys(pieces))


def entries(text: str) -> list[Sender]:
    """Addresses, domains and subtrees together: "x@a.com; b.com; .c.com". [] for the empty text. Doubles are dropped."""
    found = {}
    for piece in _pieces(text):
        if len(piece.split()) > 1 and "@" not in piece:
            raise FieldError(f'"{printable(piece)}" has a blank; name domains and addresses one by one, or separate them with ";"')
        sender = _address(piece) if "@" in piece[1:] else _domain(piece)
        found[sender.kind, sender.value] = sender
    return list(found.values())


def near_misses(senders: list[Sender]) -> list[str]:
    """Sentences about entries that are right but seldom meant: www. before a domain (B2)."""
    return [
        f'"{sender}" covers addresses such as x@{sender.value} only; mail is usually sent from {sender.value[4:]}, which is another domain'
        for sender in senders
        if sender.kind == "domain" and sender.value.startswith("www.") and "." in sender.value[4:]  # nobody sends from a top-level domain
    ]


def _pieces(text: str) -> list[str]:
    pieces, at = [], 0
    while at < len(text):
        found = _PIECES.match(text, at)
        if found is None:
            raise FieldError(f'"{printable(text[at:].strip())}" has a quotation mark without its partner; add it, or take it out')
        pieces.append(found[1].strip())
        at = found.end()
    return [piece for piece in pieces if piece]


def _domain(piece: str) -> Sender:
    shown = printable(piece)
    if "," in piece:
        raise FieldError(f'"{shown}" has a comma; separate domains with ";"')
    if "@" in piece:
        name, _, domain = piece.rpartition("@")
        remedy = f'write "{printable(domain)}"' if not name else f"give it with --senders, or its domain {printable(domain)} alone"
        raise FieldError(f'"{shown}" is an address where a domain belongs; {remedy}')
    if "://" in piece or "/" in piece:
        raise FieldError(f'"{shown}" is a web address where a domain belongs; write its domain alone, such as a.com')
    if "*" in piece:
        raise FieldError(f'"{shown}" has an asterisk; write ".a.com" for a.com and everything below it')
    if len(piece.split()) > 1:
        raise FieldError(f'"{shown}" has a blank; separate domains with ";"')
    subtree = piece.startswith(".")
    try:
        value = normalize_domain(piece[subtree:])
    except AddressError as error:
        raise FieldError(f'"{shown}" is no domain: {error}') from None
    if subtree and value.startswith("["):
        raise FieldError(f'"{shown}" is a subtree of an IP address, below which there is nothing; write "{printable(value)}"')
    for label in value.split("."):
        if label.startswith("xn--") and not _internationalized(label):
            raise FieldError(f'"{shown}" is no domain: "{label}" stands for no internationalized name; write the name itself')
    return Sender("subtree" if subtree else "domain", value)


def _internationalized(label: str) -> bool:
    """Whether an A-label stands for something, RFC 3492; what IDNA 2003 allowed and IDNA 2008 does not is in use and right."""
    try:
        text = label[4:].encode("ascii").decode("punycode")
        return not text.isascii() and text.isprintable() and text.encode("punycode").decode("ascii") == label[4:]
    except UnicodeError:
        return False


def _address(piece: str) -> Sender:
    shown = printable(piece)
    try:
        return Sender("address", parse_mailbox(piece).key)
    except AddressError as error:
        if "@" not in piece:
            raise FieldError(f'"{shown}" is no address; a whole domain is given with --domains') from None
        if piece.count("@") > 1 and re.search(r"[,\s]", piece):
            raise FieldError(f'"{shown}" looks like several addresses; separate them with ";"') from None
        if "<" in piece:
            raise FieldError(f'"{shown}" has a name beside the address; write only the address between < and >') from None
        raise FieldError(f'"{shown}" is no address: {error}') from None
