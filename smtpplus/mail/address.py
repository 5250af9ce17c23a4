"""Mail addresses: the grammar of RFC 5321 §4.1.2 and RFC 5322 §3.4, with the UTF-8 of RFC 6531 and RFC 6532.

Addresses are kept as written; `Mailbox.key` is for comparing. Plain ASCII addresses take one regular expression, everything else the
full grammar. Nothing is guessed: what two programs could read as two different addresses is an error, because senders are authorized by
what is read here. All errors are AddressError, a sentence for the person who wrote the address.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import re
import unicodedata

import idna
import msgspec

MAILBOX_LIMIT = (
    254  # octets: a path is 256 with its brackets, RFC 5321 §4.5.3.1.3. No limit of 64 on the local part: bounce addresses exceed it
)
MAILBOXES_LIMIT = 100  # in one field: each is parsed, and may have an internationalized domain. Who has so many authors has none
FIELD_LIMIT = MAILBOXES_LIMIT * 320  # characters of such a field: each token in it costs microseconds
DOMAIN_LIMIT = 253  # octets without the final dot, RFC 1035 §2.3.4

_ATEXT = r"-A-Za-z0-9!#$%&'*+/=?^_`{|}~"  # RFC 5322 §3.2.3
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 5321 §4.1.2 sub-domain, RFC 1035 §2.3.4
_PLAIN_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_PLAIN_ADDRESS = rf"(?![^@]*=\?)[{_ATEXT}]+(?:\.[{_ATEXT}]+)*@{_PLAIN_DOMAIN}"
_PLAIN = re.compile(_PLAIN_ADDRESS).fullmatch
_PLAIN_PATH = re.compile(rf"<({_PLAIN_ADDRESS})>(?= |\Z)").match
_DOMAIN = re.compile(_PLAIN_DOMAIN).fullmatch
# RFC 2047 §5 (3) forbids encoded words in an addr-spec; a program that decodes one there reads another address
_ENCODED_WORD = re.compile(r"=\?[^?]*\?[^?]*\?.*\?=").search
_DOT_STRING = re.compile(rf"[{_ATEXT}\x80-\U0010ffff]+(?:\.[{_ATEXT}\x80-\U0010ffff]+)*").fullmatch
_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_QUOTED_LOCAL = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\U0010ffff]|\\[\x20-\x7e])*"').fullmatch
_QUOTED_PREFIX = re.compile(_QUOTED).match
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_ROUTE = re.compile(rf"@{_PLAIN_DOMAIN}(?:,@{_PLAIN_DOMAIN})*:").match  # RFC 5321 §4.1.2 A-d-l
# Blanks, controls, bidirectional overrides and stray octets: they make an address look like another
_INVISIBLE = re.compile(
    r"[\x80-\xa0\xad\u1680\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f-\u206f\u3000\ud800-\udfff\ufeff\ufff9-\uffff]"
).search

_NAMED = re.compile(
    rf'[ \t]*+(?:(?:([{_ATEXT}]+(?: [{_ATEXT}]+)*)|"([^"\\\r\n]*)")?[ \t]*<({_PLAIN_ADDRESS})>|({_PLAIN_ADDRESS}))[ \t]*'
).fullmatch
_TOKEN = re.compile(
    rf"""(?P<blank>[ \t\r\n]+) | (?P<quoted>{_QUOTED}) | (?P<literal>\[[^\[\]\\\r\n]*\])
       | (?P<special>[.,:;<>@]) | (?P<atom>[{_ATEXT}\x80-\U0010ffff]+)""",
    re.VERBOSE | re.DOTALL,
).match
_COMMENT_PART = re.compile(r"[()]|\\.|\\\Z", re.DOTALL)


class AddressError(ValueError):
    """An address that cannot be used; str() is a sentence for the user."""


class Mailbox(msgspec.Struct, frozen=True):
    """One address. `local` and `domain` are as written, quotes included."""

    local: str
    domain: str

    @property
    def address(self) -> str:
        """The address as written."""
        return f"{self.local}@{self.domain}"

    @property
    def key(self) -> str:
        """What to compare for authorization (A15, A17): lower case, no needless quotes, normalized domain."""
        local = self.local
        if local.startswith('"'):
            local = _QUOTED_PAIR.sub(r"\1", local[1:-1])
            if not _DOT_STRING(local):
                local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        local = local.lower()
        if not local.isascii():
            local = unicodedata.normalize("NFC", local)  # RFC 6532 §3.1
        return f"{local}@{normalize_domain(self.domain)}"


def normalize_domain(text: str) -> str:
    """`text` as A-labels in lower case without a final dot; an address literal in its shortest form. AddressError."""
    if _DOMAIN(text) and len(text) <= DOMAIN_LIMIT:
        return text.lower()
    return _normalize_odd_domain(text)


@functools.lru_cache(maxsize=4096)
def _normalize_odd_domain(text: str) -> str:
    if text.startswith("["):
        return _normalize_literal(text)
    name = text.removesuffix(".")
    if not name.isascii():
        if len(name) > DOMAIN_LIMIT:  # before the work, and what it becomes is not shorter
            raise AddressError(f"the domain is longer than {DOMAIN_LIMIT} octets")
        if _INVISIBLE(name):
            raise AddressError(f"the domain {text!r} has a character that cannot be seen")
        try:
            name = idna.encode(name, uts46=True, std3_rules=True).decode("ascii")  # RFC 5891, UTS #46
        except (idna.IDNAError, UnicodeError, IndexError) as error:
            raise AddressError(f"the domain {text!r} is not a valid internationalized name: {error}") from None
    if not name:
        raise AddressError("the domain is missing")
    if len(name) > DOMAIN_LIMIT:
        raise AddressError(f"the domain is longer than {DOMAIN_LIMIT} octets")
    for label in name.split("."):
        if not label:
            raise AddressError(f"the domain {text!r} has an empty part between its dots")
        if len(label) > 63:
            raise AddressError(f"the domain {text!r} has a part of more than 63 characters")
        if not _DOMAIN(label):
            raise AddressError(f"the domain {text!r} has a part {label!r}: letters, digits and inner hyphens are allowed")
    return name.lower()


def _normalize_literal(text: str) -> str:
    """RFC 5321 §4.1.3; the general form with a registered tag is not used by anybody and is refused."""
    inner = text[1:-1]
    try:
        if not text.endswith("]"):
            raise ValueError
        if inner[:5].lower() == "ipv6:" and "%" not in inner:
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise AddressError(f"{text!r} is not an address literal such as [192.0.2.1] or [IPv6:2001:db8::1]") from None


def parse_mailbox(text: str) -> Mailbox:
    """The address `text`, which is nothing but an address: `local@domain` by RFC 5321 §4.1.2 and RFC 6531 §3.3. AddressError."""
    if _PLAIN(text) and len(text) <= MAILBOX_LIMIT:
        local, _, domain = text.rpartition("@")
        return Mailbox(local, domain) if len(domain) <= DOMAIN_LIMIT else _parse_odd_mailbox(text)
    return _parse_odd_mailbox(text)


def _parse_odd_mailbox(text: str) -> Mailbox:
    if not text:
        raise AddressError("the address is empty")
    if _INVISIBLE(text):
        raise AddressError(f"the address {text!r} has a character that cannot be seen")
    if len(text.encode()) > MAILBOX_LIMIT:
        raise AddressError(f"the address is longer than {MAILBOX_LIMIT} octets")
    quoted = _QUOTED_PREFIX(text)
    at = quoted.end() if quoted else text.find("@")
    if at < 0 or text[at : at + 1] != "@":
        raise AddressError(f"{text!r} has no @ between a name and a domain")
    local, domain = text[:at], text[at + 1 :]
    if not local:
        raise AddressError(f"{text!r} has nothing before the @")
    if _ENCODED_WORD(_QUOTED_PAIR.sub(r"\1", local) if quoted else local):
        raise AddressError(f"{text!r} has an encoded word (=?…?=) before the @; write the name as it is")
    if quoted:
        if not _QUOTED_LOCAL(local):
            raise AddressError(f"{local} has a character that is not allowed between quotes")
    elif not _DOT_STRING(local):
        raise AddressError(f"{text!r} has a blank, a dot or a sign before the @ that needs quotes around the name")
    if domain.endswith("."):
        raise AddressError(f"{text!r} ends with a dot")
    normalize_domain(domain)
    return Mailbox(local, domain)


def parse_path(text: str, null: bool) -> tuple[str, str]:
    """A path of MAIL or RCPT (RFC 5321 §4.1.2): the address as written, and what follows the `>` ("" or from the blank on).

    `<>` gives "" where `null` allows it. A source route is dropped (RFC 5321 appendix C). Blanks before the `<` are tolerated.
    """
    found = _PLAIN_PATH(text)
    if found and found.end(1) - 1 <= MAILBOX_LIMIT:
        return found[1], text[found.end() :]
    text = text.lstrip(" ")
    if not text.startswith("<"):
        raise AddressError("the address must stand between < and >")
    start = 1
    route = _ROUTE(text, start)
    if route:
        start = route.end()
    quoted = _QUOTED_PREFIX(text, start)
    end = text.find(">", quoted.end() if quoted else start)
    if end < 0:
        raise AddressError("the > after the address is missing")
    inner, rest = text[start:end], text[end + 1 :]
    if rest and not rest.startswith(" "):
        raise AddressError("a blank must separate the > from what follows")
    if not inner and not route:
        if null:
            return "", rest
        raise AddressError("the address is empty")
    return parse_mailbox(inner).address, rest


def header_mailboxes(value: str) -> list[tuple[str, str]]:
    """The mailboxes of an unfolded From, Sender, To … (RFC 5322 §3.4): (display name without quotes, address as written) each.

    Groups give their members, comments are dropped, encoded words are kept. [] for an empty field or group. AddressError if it
    cannot be read in one way only, or is larger than MAILBOXES_LIMIT and FIELD_LIMIT; a name that holds an unquoted address must
    repeat the one between the brackets.
    """
    if len(value) > FIELD_LIMIT:
        raise AddressError(f"it is longer than {FIELD_LIMIT} characters")
    found = _NAMED(value)
    if found and len(found[3] or found[4]) <= MAILBOX_LIMIT:
        return [(found[1] or found[2] or "", parse_mailbox(found[3] or found[4]).address)]
    return _List(_tokens(value)).parse()


def _tokens(value: str) -> list[tuple[str, str]]:
    """(kind, text) of each lexical token but blanks and comments; specials have themselves as kind."""
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(value):
        if value[position] == "(":
            position = _after_comment(value, position)
            continue
        found = _TOKEN(value, position)
        if found is None or found.lastgroup is None:
            raise AddressError(f"{value[position]!r} is not allowed there; put the name between quotes")
        position = found.end()
        kind = found.lastgroup
        if kind != "blank":
            tokens.append((found[0] if kind == "special" else kind, found[0]))
    return tokens


def _after_comment(value: str, start: int) -> int:
    depth = 0
    for part in _COMMENT_PART.finditer(value, start):
        if part[0] == "(":
            depth += 1
        elif part[0] == ")":
            depth -= 1
            if depth == 0:
                return part.end()
    raise AddressError("a comment is not closed: ) is missing")


class _List:
    """The address-list of RFC 5322 §3.4 over tokens: `phrase` collects until a delimiter says what it was."""

    __slots__ = ("found", "group", "phrase", "tokens")

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.found: list[tuple[str, str]] = []
        self.phrase: list[tuple[str, str]] = []
        self.group = False

    def parse(self) -> list[tuple[str, str]]:
        index, closed = 0, False  # closed: after > or ; only a delimiter may follow
        while index < len(self.tokens):
            kind, text = self.tokens[index]
            index += 1
            if len(self.found) > MAILBOXES_LIMIT:
                raise AddressError(f"there are more than {MAILBOXES_LIMIT} addresses")
            if kind == ",":
                self._bare()
                closed = False
            elif kind == ";" and self.group:
                self._bare()
                self.group, closed = False, True
            elif closed:
                raise AddressError(f"a comma is missing before {text!r}")
            elif kind == ":" and self.phrase and not self.group:
                self._name()
                self.group, self.phrase = True, []
            elif kind == "<":
                index = self._angle(index)
                closed = True
            elif kind in ("atom", "quoted", "literal", ".", "@"):
                self.phrase.append((kind, text))
            else:
                raise AddressError(f"{text!r} is not allowed there; put the name between quotes")
        self._bare()
        if self.group:
            raise AddressError("a group is not closed: ; is missing")
        return self.found

    def _bare(self) -> None:
        """What was collected is an address without a name, or nothing."""
        if self.phrase:
            self.found.append(("", _spelled(self.phrase)))
            self.phrase = []

    def _angle(self, index: int) -> int:
        end = index
        while end < len(self.tokens) and self.tokens[end][0] != ">":
            end += 1
        if end == len(self.tokens):
            raise AddressError("the > after the address is missing")
        inner = self.tokens[index:end]
        if inner and inner[0][0] == "@":  # RFC 5322 §4.4 obs-route
            colon = next((place for place, token in enumerate(inner) if token[0] == ":"), -1)
            inner = inner[colon + 1 :]
        address = _spelled(inner)
        self.found.append((self._name(address), address))
        self.phrase = []
        return end + 1

    def _name(self, address: str = "") -> str:
        """The phrase as a display name. Dots are tolerated (RFC 5322 §4.1 obs-phrase), an @ only in a copy of the address."""
        if any(kind == "@" for kind, _ in self.phrase):
            if "".join(text for _, text in self.phrase).lower() != address.lower():
                raise AddressError("the name before < has an @; put the name between quotes")
            return address
        words: list[str] = []  # with the blanks between them
        for kind, text in self.phrase:
            if kind == "literal":
                raise AddressError("the name before < has a bracket; put the name between quotes")
            if words and kind != ".":
                words.append(" ")
            words.append(_QUOTED_PAIR.sub(r"\1", text[1:-1]) if kind == "quoted" else text)
        return "".join(words)


def _spelled(tokens: list[tuple[str, str]]) -> str:
    """The address that the tokens spell without blanks and comments between them."""
    words = ("atom", "quoted", "literal")
    for (kind, text), (following, text_after) in itertools.pairwise(tokens):
        if kind in words and following in words:
            raise AddressError(f"{text} {text_after} is not an address; a comma or the brackets < > are missing")
    return parse_mailbox("".join(text for _, text in tokens)).address
