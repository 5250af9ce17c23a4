"""mail.header: headers as octets, and encoded words."""

from __future__ import annotations

import codecs
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail import charset
from smtpplus.mail.header import HEADER_LIMIT, SHOWN_LIMIT, WORDS_LIMIT, Field, Header, decoded, encode_field, find_header_end
from smtpplus.mail.reasons import Refusal

_HEADER = (
    b"Received: from a\r\n\tby b;\r\n  now\r\nFROM : A <a@b.com>\r\nSubject:no blank \r\nX-Priority: 1\r\nx-priority: 2\r\nEmpty:\r\n\r\n"
)
_names = st.from_regex(rb"[!-9;-~]{1,12}", fullmatch=True)
_bodies = st.lists(st.from_regex(rb"[^\r\n\x00]{0,20}", fullmatch=True), min_size=1, max_size=3).map(b"\r\n ".join)
_fields = st.lists(st.tuples(_names, _bodies), max_size=6)
_words = st.lists(
    st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="=?"), min_size=1, max_size=30), min_size=1, max_size=20
)


def test_fields_are_read_in_order() -> None:
    """RFC 5322 §2.2: names in lower case, also with the obsolete blank before the colon; raw octets with folds."""
    header = Header.parse(_HEADER)
    assert [field.name for field in header.fields] == ["received", "from", "subject", "x-priority", "x-priority", "empty"]
    assert header.fields[0].raw == b"Received: from a\r\n\tby b;\r\n  now\r\n"
    assert header.unread == b"\r\n"
    assert header.malformed == ""


def test_values_are_unfolded_and_stripped() -> None:
    """RFC 5322 §2.2.3: a fold is the CRLF alone; all values of a name come in order."""
    header = Header.parse(_HEADER)
    assert header.values("received") == ["from a\tby b;  now"]
    assert header.values("from") == ["A <a@b.com>"]
    assert header.values("subject") == ["no blank"]
    assert header.values("x-priority") == ["1", "2"]
    assert header.values("empty") == [""]
    assert header.values("to") == []
    assert header.has("from") and not header.has("to")


def test_any_octets_survive_the_way_to_text() -> None:
    """Bodies are UTF-8 where they can be, and come back as the same octets where not."""
    header = Header.parse("Subject: ♥ ".encode() + b"\xff\xfe\r\n\r\n")
    assert header.values("subject") == ["♥ \udcff\udcfe"]
    assert header.values("subject")[0].encode("utf-8", "surrogateescape") == "♥ ".encode() + b"\xff\xfe"


@given(_fields, st.sampled_from([b"\r\n", b""]))
def test_untouched_headers_are_byte_exact(fields: list[tuple[bytes, bytes]], end: bytes) -> None:
    """B9: what nobody asked to change is not changed, but for the empty line where it is missing."""
    octets = b"".join(name + b": " + body + b"\r\n" for name, body in fields)
    header = Header.parse(octets + end)
    assert header.compose() == octets + b"\r\n"
    assert b"".join(field.raw for field in header.fields) == octets
    assert [field.name.encode() for field in header.fields] == [name.lower() for name, _ in fields]


def test_compose_removes_and_adds() -> None:
    """Fields to remove go in all their spellings, the others stay byte-exact between what is put before and behind."""
    composed = Header.parse(_HEADER).compose(remove={"x-priority", "received", "bcc"}, prepend=b"A: 1\r\n", append=b"Z: 2\r\n")
    assert composed == b"A: 1\r\nFROM : A <a@b.com>\r\nSubject:no blank \r\nEmpty:\r\nZ: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("octets", "composed", "malformed"),
    [
        (b"", b"N: 1\r\n\r\n", ""),
        (b"\r\n", b"N: 1\r\n\r\n", ""),
        (b"A: b", b"A: b\r\nN: 1\r\n\r\n", ""),
        (b"hello\r\nyou\r\n", b"N: 1\r\n\r\nhello\r\nyou\r\n", "hello"),
        (b"A: b\r\nnonsense\r\nFrom: x@y\r\n\r\n", b"A: b\r\nN: 1\r\n\r\nnonsense\r\nFrom: x@y\r\n\r\n", "nonsense"),
        (b" folded\r\nA: b\r\n\r\n", b"N: 1\r\n\r\n folded\r\nA: b\r\n\r\n", " folded"),
        (b": x\r\n\r\n", b"N: 1\r\n\r\n: x\r\n\r\n", ": x"),
    ],
)
def test_the_first_line_that_is_no_field_ends_the_header(octets: bytes, composed: bytes, malformed: str) -> None:
    """Nobody downstream can find a From behind a line where we stopped: the empty line is put there."""
    header = Header.parse(octets)
    assert header.compose(append=b"N: 1\r\n") == composed
    assert header.malformed == malformed
    assert not header.has("from")


@pytest.mark.parametrize(("octets", "says"), [(b"A: \x00\r\n\r\n", "NUL"), (b"A: b\r\n" * (HEADER_LIMIT // 6 + 1), "longer than")])
def test_nul_and_excess_are_refused(octets: bytes, says: str) -> None:
    """550 5.6.0 for a header that no server would take."""
    with pytest.raises(Refusal, match=says) as caught:
        Header.parse(octets)
    assert (caught.value.reply.code, caught.value.reply.enhanced, caught.value.reason) == (550, "5.6.0", "bad_header")


@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\r\n", b"\r\n\r\n"]), max_size=12), st.integers(1, 5))
def test_the_end_is_found_however_it_arrives(pieces: list[bytes], size: int) -> None:
    """Searching a growing buffer from where the last search stopped finds what searching the whole finds."""
    data = b"".join(pieces)
    position = (b"\r\n" + data).find(b"\r\n\r\n")
    wanted = position + 2 if position >= 0 else -1
    assert find_header_end(data) == wanted
    buffer, searched, found = bytearray(), 0, -1
    for start in range(0, len(data), size):
        buffer += data[start : start + size]
        found = find_header_end(buffer, searched)
        if found >= 0:
            break
        searched = len(buffer)
    assert found == wanted


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=?utf-8?Q?This is the subject text?=", "This is the subject text"),
        ("=?utf-8?Q?I love you =E2=99=A5?=", "I love you ♥"),
        ("=?utf-8?Q?what??=", "what?"),
        ("=?UTF-8?B?4pml?=", "♥"),
        ("=?utf-8?b?4pml4pml4?= x", "=?utf-8?b?4pml4pml4?= x"),
        ("=?utf-8?b?YWI?=", "ab"),
        ("=?utf-7?q?+2AA-?=", "=?utf-7?q?+2AA-?="),
        ("=?utf-8?Q?what? why?=", "=?utf-8?Q?what? why?="),
        ("=?GB2312?B?xOO6ww==?= =?koi8-r?q?=C4=C1?=", "你好да"),
        ("=?punycode?q?a-b9a?=", "=?punycode?q?a-b9a?="),
        ("=?iso-8859-1?q?a_=E9?= =?utf-8?q?=E2=99=A5?=", "a é♥"),
        ("=?utf-8?Q?=E2=99?=\r\n =?utf-8?Q?=A5?=", "♥"),
        ("=?utf-8?Q?a?==?utf-8?Q?b?=", "ab"),
        ("a =?utf-8?q?b?= c", "a b c"),
        ("=?utf-8*en?q?b?=", "b"),
        ("=?nope?q?b?=", "=?nope?q?b?="),
        ("=?zlib?q?b?=", "=?zlib?q?b?="),
        ("=?unknown-8bit?q?caf=E9?=", "café"),
        ("=?utf-8?q?a=0D=0ABcc:_x=1B?=", "a Bcc: x "),
        ("caf\udce9", "café"),
        ("♥", "♥"),
        ("=?utf-8?q??= x", " x"),
    ],
)
def test_encoded_words_are_shown_decoded(value: str, shown: str) -> None:
    """B9: the source's own samples with raw blanks, words that share a character, odd charsets; nothing unprintable comes out."""
    assert decoded(value) == shown


@pytest.mark.parametrize("text", ["=?a?q? x", "=?utf-8?q?a", "=?punycode?q?" + "a1b2" * 900, "=?utf-8?q?" + "?" * 900, "=?" + "a" * 900])
def test_a_word_without_an_end_is_looked_for_once(text: str) -> None:
    """A header at its limit that begins encoded words and ends none is read in one pass: looking for each end anew would take minutes."""
    value = text * (4 * HEADER_LIMIT // len(text))
    assert decoded(value) == value[:SHOWN_LIMIT]
    raw = b"Subject: \xc3\xa9" + value.encode() + b"\xc3\xa9\r\n"
    assert decoded(Header.parse(encode_field(raw)[:HEADER_LIMIT]).values("subject")[0]).startswith("é=?")


def test_what_is_decoded_for_people_is_bounded() -> None:
    """At most SHOWN_LIMIT characters of a body, and WORDS_LIMIT words of it."""
    assert decoded("x" * 5000) == "x" * SHOWN_LIMIT
    assert decoded("=?l1?q?a?= " * 150) == "a" * WORDS_LIMIT + " =?l1?q?a?=" * 50 + " "


def test_names_of_charsets_do_not_reach_the_registry() -> None:
    """Python's codec registry keeps each name that it does not know: it is asked for those of the closed list only."""
    asked: list[str] = []

    def search(name: str) -> None:
        asked.append(name)

    codecs.register(search)
    try:
        assert decoded(" ".join(f"=?none{number}?q?a?=" for number in range(20))).count("none") == 20
    finally:
        codecs.unregister(search)
    assert asked == []


@pytest.mark.parametrize("label", sorted(charset._CODECS))
def test_every_charset_has_a_codec(label: str) -> None:
    """Each label of the list is decoded, whatever the octets, by a codec that Python has."""
    assert charset.known(label)
    assert charset.decode(b"", label) == ""
    charset.decode(bytes(range(256)), label).encode("utf-8")


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_decoding_never_raises(value: str) -> None:
    """Any field body is shown as text on one line that can be written in UTF-8."""
    for text in (value, f"=?utf-8?Q?{value}?=", f"=?utf-16?B?{value}?=", f"=?{value}?q?x?="):
        for given_text in (text, text.encode("utf-8", "replace").decode("ascii", "surrogateescape")):
            assert b"\n" not in decoded(given_text).encode("utf-8")


@pytest.mark.parametrize("name", ["Subject", "X-Anything", "Comments"])
@given(words=_words)
def test_text_is_encoded_and_read_back(name: str, words: list[str]) -> None:
    """B9: raw 8-bit text becomes ASCII in lines and words of legal length (RFC 2047 §2) and is shown as before."""
    raw = f"{name}: {' '.join(words)}\r\n".encode()
    encoded = encode_field(raw)
    assert encoded.isascii()
    assert all(len(word) <= 75 for word in re.findall(rb"=\?\S*?\?=(?=\s|$)", encoded))
    assert all(len(line) <= 998 for line in encoded.split(b"\r\n"))
    assert decoded(Field("", encoded).value) == decoded(Field("", raw).value)
    assert len(Header.parse(encoded + b"\r\n").fields) == 1


@given(_words)
def test_display_names_are_encoded_and_read_back(words: list[str]) -> None:
    """B9: a raw 8-bit name becomes encoded words, its address and neighbours stay."""
    quoted = " ".join(words).replace("\\", "\\\\").replace('"', '\\"')
    raw = f'From: "{quoted}" <a@b.com>,\r\n "Plain, P" <p@q.r>\r\n'.encode()
    encoded = encode_field(raw)
    assert encoded.isascii()
    assert b'<a@b.com>,\r\n "Plain, P" <p@q.r>\r\n' in encoded
    if raw.isascii():
        assert encoded == raw
    else:
        name, _, _ = encoded.removeprefix(b"From: ").partition(b" <a@b.com>")
        assert decoded(name.decode()) == " ".join(words)


def test_unknown_octets_say_so() -> None:
    """RFC 1428 §3: octets that are no UTF-8 are labelled unknown-8bit, unchanged."""
    assert encode_field(b"Subject: caf\xe9\r\n") == b"Subject: =?unknown-8bit?Q?caf=E9?=\r\n"


def test_ascii_words_around_stay_as_they_are() -> None:
    """Only the stretch with 8-bit octets is encoded; an encoded word next to it keeps its blank."""
    assert encode_field("Subject: [list] Grüße an alle\r\n".encode()) == b"Subject: [list]\r\n =?utf-8?B?R3LDvMOfZQ==?=\r\n an alle\r\n"
    both = encode_field("Subject: =?utf-8?q?a?= ü =?utf-8?q?b?=\r\n".encode())
    assert both.isascii()
    assert decoded(Field("", both).value) == "a ü b"


@pytest.mark.parametrize(
    "raw",
    ["Subject: plain\r\n", "From: jörg@b.com\r\n", "To: Ö <jörg@b.com>\r\n", 'Content-Type: text/plain; name="ö"\r\n', "Grüße: x\r\n"],
)
def test_what_cannot_be_encoded_stays(raw: str) -> None:
    """Addresses and structured fields have no encoded words (RFC 2047 §5): they come back as they are."""
    assert encode_field(raw.encode()) == raw.encode()


@pytest.mark.parametrize("rest", ['"', '"\\', '"\\"', '"' + '\\"' * (HEADER_LIMIT // 2), '"a" "' + "\\a" * (HEADER_LIMIT // 2)])
def test_a_quoted_string_without_an_end_stays(rest: str) -> None:
    """A field of addresses that breaks off in a quoted string is left as it is; the end is not looked for from each quotation mark."""
    raw = f"From: x {rest}ü\r\n".encode()
    assert encode_field(raw) == raw


def test_a_header_is_encoded_field_by_field() -> None:
    """B9: fields in raw 8-bit become encoded words; the others, and what is no field, are the same octets, and values are found again."""
    odd = b"SUBJECT:  =?utf-8?Q?I love you =E2=99=A5?=\r\nX-Odd:a\r\n\tb \r\n"
    header = Header.parse(odd + "Comments: größer\r\nContent-Type: text/plain; name=ö\r\n".encode() + b"\r\n").encoded()
    whole = header.compose()
    assert whole.startswith(odd) and whole.endswith("Content-Type: text/plain; name=ö\r\n\r\n".encode())
    assert decoded(header.values("comments")[0]) == "größer"
    assert Header.parse(whole).compose() == whole
