"""mail.address: the grammar of addresses, and the key that authorization compares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.address import FIELD_LIMIT, MAILBOXES_LIMIT, AddressError, header_mailboxes, normalize_domain, parse_mailbox, parse_path

_ATEXT = "abcXYZ019!#$%&'*+/=?^_`{|}~-"
_atoms = (
    st.lists(st.text(_ATEXT, min_size=1, max_size=8), min_size=1, max_size=3).map(".".join).filter(lambda text: text.count("?") < 4)
)  # no encoded word
_domains = st.lists(st.text("abz09", min_size=1, max_size=8), min_size=1, max_size=4).map(".".join)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("x@a.com", "x@a.com"),
        ("X@A.COM", "x@a.com"),
        ('"q q"@a.com', '"q q"@a.com'),
        ('"x"@a.com', "x@a.com"),
        ('"\\x.y"@a.com', "x.y@a.com"),
        ('"a\\"b\\\\"@a.com', '"a\\"b\\\\"@a.com'),
        ('"a@b"@a.com', '"a@b"@a.com'),
        ('""@a.com', '""@a.com'),
        ("jörg@bücher.example", "jörg@xn--bcher-kva.example"),
        ("jo\u0308rg@BÜCHER.example", "jörg@xn--bcher-kva.example"),
        ("x@[192.0.2.1]", "x@[192.0.2.1]"),
        ("x@[IPv6:2001:DB8:0:0::1]", "x@[IPv6:2001:db8::1]"),
        ("x@localhost", "x@localhost"),
    ],
)
def test_the_key_compares_what_is_the_same_address(text: str, key: str) -> None:
    """A15, A17: case, needless quotes and the spelling of the domain make no difference; everything else does."""
    mailbox = parse_mailbox(text)
    assert mailbox.key == key
    assert mailbox.address == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a", "no @"),
        ("@b", "nothing before the @"),
        ("a@", "domain is missing"),
        ("a..b@c", "needs quotes"),
        (".a@c", "needs quotes"),
        ("a b@c", "needs quotes"),
        ('"a"b@c', "no @"),
        ('"a\rb"@c', "not allowed between quotes"),
        ("a@b..c", "empty part"),
        ("a@b.", "ends with a dot"),
        ("a@-b", "inner hyphens"),
        ("a@b_c.d", "letters, digits"),
        ("a@b@c", "letters, digits"),
        ("a@" + "b" * 64 + ".c", "more than 63"),
        ("a" * 250 + "@b.com", "longer than 254"),
        ("a@[192.0.2.256]", "address literal"),
        ("a@[IPv6:fe80::1%eth0]", "address literal"),
        ("a@[x", "address literal"),
        ("a\u202eb@c", "cannot be seen"),
        ("a\udce9@c", "cannot be seen"),
        ("a\u00a0b@c", "cannot be seen"),
        ("a@b\u200b.c", "cannot be seen"),
        ("=?utf-8?Q?potus=40evil.com?=@good.com", "encoded word"),
        ("x.=?utf-8?b?cG90dXNAZXZpbC5jb20=?=.y@good.com", "encoded word"),
        ('"=?utf-8?Q?potus=40evil.com=00?="@good.com', "encoded word"),
        ('"=?utf-8?Q?potus@evil.com ?="@good.com', "encoded word"),
        ('"\\=\\?utf-8?Q?potus=40evil.com?\\="@good.com', "encoded word"),
        ("a@b\r\nc", "letters, digits"),
        ("a@b\n", "letters, digits"),
    ],
)
def test_a_faulty_address_is_refused_with_a_sentence(text: str, says: str) -> None:
    """RFC 5321 §4.1.2: what is no mailbox is an error that says what is wrong."""
    with pytest.raises(AddressError, match=says):
        parse_mailbox(text)


def test_long_bounce_addresses_are_taken() -> None:
    """RFC 5321 §4.5.3.1: a local part over 64 octets is no error, as bounce addresses are longer."""
    text = "bounce-" + "x" * 90 + "=example.org@a.com"
    assert parse_mailbox(text).address == text


@pytest.mark.parametrize("field", ["{}", "<{}>", "A B <{}>", "x:{};", "x@a.com, =?utf-8?Q?ok?= <{}>", '"x" (c) <{}>'])
def test_an_encoded_word_is_no_address(field: str) -> None:
    """RFC 2047 §5: a program that decodes one inside an address reads another address than was authorized; in a name it is fine."""
    address = "=?utf-8?Q?potus=40evil.com?=@good.com"
    with pytest.raises(AddressError, match="encoded word"):
        header_mailboxes(field.format(address))
    with pytest.raises(AddressError, match="encoded word"):
        parse_path(f"<{address}> SIZE=1", null=True)
    assert header_mailboxes("=?utf-8?Q?J=C3=B6?= <a=?b@c.com>") == [("=?utf-8?Q?J=C3=B6?=", "a=?b@c.com")]


@given(_atoms, _domains)
def test_plain_addresses_survive_a_round_trip(local: str, domain: str) -> None:
    """Any dot-string at any domain parses into what it was, alone, in a path and in a header."""
    address = f"{local}@{domain}"
    assert (parse_mailbox(address).local, parse_mailbox(address).domain) == (local, domain)
    assert parse_path(f"<{address}> SIZE=1", null=False) == (address, " SIZE=1")
    assert header_mailboxes(f"A B <{address}>") == [("A B", address)]
    assert header_mailboxes(f"x:{address}, (c) {address};") == [("", address)] * 2


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).filter(lambda text: text.count("?") < 4))
def test_any_local_part_can_be_quoted(text: str) -> None:
    """RFC 5321 §4.1.2: a quoted local part may hold any printable character, and keys differ exactly if the texts do."""
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    once = parse_mailbox(f"{quoted}@a.com").key
    assert parse_mailbox(once).key == once
    assert parse_path(f"<{quoted}@a.com>", null=False) == (f"{quoted}@a.com", "")


@given(st.text(max_size=40))
def test_parsing_raises_nothing_but_address_errors(text: str) -> None:
    """Whatever comes from outside, the only error is AddressError, and what passes has a key that passes again."""
    for parse in (parse_mailbox, normalize_domain, header_mailboxes, lambda given: parse_path(given, null=True)):
        try:
            parse(text)
        except AddressError as error:
            assert str(error)
    try:
        key = parse_mailbox(f"{text}@a.com").key
    except AddressError:
        return
    assert parse_mailbox(key).key == key


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("A.Com.", "a.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER。example", "xn--bcher-kva.example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[ipv6:::1]", "[IPv6:::1]"),
    ],
)
def test_a_domain_has_one_normal_form(text: str, normal: str) -> None:
    """A14: case, the final dot and U-labels make no difference between domains."""
    assert normalize_domain(text) == normal
    assert normalize_domain(normal) == normal


def test_a_field_has_so_many_mailboxes() -> None:
    """Parsing each costs time, so a field holds MAILBOXES_LIMIT of them at most, in groups or not."""
    some = ",".join(["a@ü.de"] * MAILBOXES_LIMIT)
    assert len(header_mailboxes(some)) == MAILBOXES_LIMIT
    for value in (some + ",b@b.com,c@b.com", f"g:{some},b@b.com,c@b.com;", some + ", <b@b.com>, b"):
        with pytest.raises(AddressError, match=f"more than {MAILBOXES_LIMIT} addresses"):
            header_mailboxes(value)


@pytest.mark.parametrize("piece", [" ", ".", "a ", "a@", '"" ', "(", "()", ",", "g:;", "<"])
def test_a_field_has_so_many_characters(piece: str) -> None:
    """A field over FIELD_LIMIT is refused before it is looked at, whatever it is made of; one within it is read."""
    with pytest.raises(AddressError, match=f"longer than {FIELD_LIMIT} characters"):
        header_mailboxes(piece * FIELD_LIMIT + "a")
    comment = "x" * (FIELD_LIMIT - 10)
    assert header_mailboxes(f"({comment}) a@b.com") == [("", "a@b.com")]


def test_dots_in_a_name_stay() -> None:
    """RFC 5322 §4.1: dots in an unquoted name, however many, belong to the word before them."""
    dots = "." * 10_000
    assert header_mailboxes(f"A{dots} B. C .D <a@b.com>") == [(f"A{dots} B. C. D", "a@b.com")]


@pytest.mark.parametrize("text", ["", ".", "a..b", "a b", "a,b", "a;b", "a@b", "xn--ü.de", "ü" * 70 + ".de", ".a.com", "[]", "a." * 130])
def test_a_faulty_domain_is_refused(text: str) -> None:
    """A14: `a.com,b.com` and the like are not domains."""
    with pytest.raises(AddressError):
        normalize_domain(text)


@pytest.mark.parametrize(
    ("text", "address", "rest"),
    [
        ("<a@b>", "a@b", ""),
        (" <a@b> SIZE=3 BODY=8BITMIME", "a@b", " SIZE=3 BODY=8BITMIME"),
        ("<>", "", ""),
        ("<> RET=HDRS", "", " RET=HDRS"),
        ("<@x.y,@z:a@b>", "a@b", ""),
        ('<"a>b"@c.d> X', '"a>b"@c.d', " X"),
        ("<jörg@b>", "jörg@b", ""),
    ],
)
def test_a_path_gives_address_and_rest(text: str, address: str, rest: str) -> None:
    """RFC 5321 §4.1.2: the address as written, source routes dropped, parameters left to the caller."""
    assert parse_path(text, null=True) == (address, rest)


@pytest.mark.parametrize("text", ["", "a@b", "<a@b", "<a@b>X", "<<a@b>>", "<@x:>", "< a@b>", "<a@b >", "<Postmaster>", "<a@b\r\n>"])
def test_a_faulty_path_is_refused(text: str) -> None:
    """A path stands in brackets, with nothing else in them, and a blank follows."""
    with pytest.raises(AddressError):
        parse_path(text, null=True)


def test_the_null_path_is_for_senders_only() -> None:
    """RFC 5321 §4.1.1.3: a recipient is never null."""
    with pytest.raises(AddressError, match="empty"):
        parse_path("<>", null=False)


@pytest.mark.parametrize(
    ("value", "mailboxes"),
    [
        ("", []),
        ("a@b", [("", "a@b")]),
        ("A B <a@b>", [("A B", "a@b")]),
        ("<a@b>", [("", "a@b")]),
        ('"A, B" <a@b>, d@e', [("A, B", "a@b"), ("", "d@e")]),
        ('"a\\"b" <a@b>', [('a"b', "a@b")]),
        ("undisclosed-recipients:;", []),
        ("g: a@b, C <c@d>;, e@f", [("", "a@b"), ("C", "c@d"), ("", "e@f")]),
        ("John Q. Public <a@b>", [("John Q. Public", "a@b")]),
        ("(c (n) \\) x) a (x) @ (y) b . c (z)", [("", "a@b.c")]),
        ("=?utf-8?Q?J=C3=B6?= <a@b>", [("=?utf-8?Q?J=C3=B6?=", "a@b")]),
        ("Jörg <a@b>", [("Jörg", "a@b")]),
        ("J\udcf6rg <a@b>", [("J\udcf6rg", "a@b")]),
        ("<@r.s:a@b>", [("", "a@b")]),
        (", a@b,,", [("", "a@b")]),
        ("A@b <a@B>", [("a@B", "a@B")]),
        ('"x@y" <a@b>', [("x@y", "a@b")]),
        ("A\t<a@b>", [("A", "a@b")]),
    ],
)
def test_header_mailboxes_reads_address_lists(value: str, mailboxes: list[tuple[str, str]]) -> None:
    """A17: names, groups, several addresses, comments (RFC 5322 §3.4) and the obsolete forms that are seen (§4)."""
    assert header_mailboxes(value) == mailboxes


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "<>",
        "Doe, John <a@b>",
        "a b@c",
        "a@b c@d",
        "<a@b> c",
        "<a@b> <c@d>",
        "g: a@b",
        "g: h: a@b;;",
        "a@b (c",
        '"a <a@b>',
        "<a@b",
        "a@b>",
        "ceo@bank.com <a@b>",
        "A [x] <a@b>",
        "\\ <a@b>",
        "a\udcf6@b",
        "a@b;",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(value: str) -> None:
    """A13: an address list that mail clients could read differently is an error, not a guess."""
    with pytest.raises(AddressError):
        header_mailboxes(value)
