"""The fields of an account: what people write, and what they are told when it is not right."""

from __future__ import annotations

import pytest

from smtpplus.accounts import fields
from smtpplus.accounts.fields import FieldError


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        (" ; ", []),
        ("a.com;b.com", ["a.com", "b.com"]),
        (" a.com ; b.com ; ", ["a.com", "b.com"]),
        ("A.COM;a.com.", ["a.com"]),
        (".a.com;a.com", [".a.com", "a.com"]),
        ("m.a.com", ["m.a.com"]),
        ("bücher.example", ["xn--bcher-kva.example"]),
        ("XN--BCHER-KVA.example;bücher.example", ["xn--bcher-kva.example"]),
        ("localhost", ["localhost"]),
    ],
)
def test_domains(text: str, entries: list[str]) -> None:
    """A14: domains are separated by semicolons; blanks, a trailing semicolon, case and IDN are handled, doubles dropped."""
    assert [str(entry) for entry in fields.domains(text)] == entries


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        ("x@c.com;y@d.com", ["x@c.com", "y@d.com"]),
        (" X@C.com ; x@c.com; ", ["x@c.com"]),
        ('"a;b"@c.com;"d e"@f.com', ['"a;b"@c.com', '"d e"@f.com']),
        ('"plain"@c.com', ["plain@c.com"]),
        ("user+tag@c.com", ["user+tag@c.com"]),
        ("jürgen@bücher.example", ["jürgen@xn--bcher-kva.example"]),
    ],
)
def test_addresses(text: str, entries: list[str]) -> None:
    """A17: addresses are separated by semicolons, as domains are; a semicolon inside of a quoted local part is part of it."""
    assert [str(entry) for entry in fields.addresses(text)] == entries


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a.com,b.com", 'separate domains with ";"'),
        ("a.com b.com", 'separate domains with ";"'),
        ("x@a.com", "give it with --senders, or its domain a.com alone"),
        ("@a.com", 'write "a.com"'),
        ("https://a.com/", "write its domain alone"),
        ("*.a.com", 'write ".a.com"'),
        ("a..com", "is no domain"),
        (".", "is no domain"),
        ("-a.com", "is no domain"),
        ("a.com\r\nb.com", 'separate domains with ";"'),
    ],
)
def test_faulty_domains(text: str, remedy: str) -> None:
    """A14: a comma where a semicolon belongs, an address in the domain field and the like are errors that say what to write."""
    with pytest.raises(FieldError) as caught:
        fields.domains(f"ok.example; {text}")
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("x@c.com,y@d.com", 'separate them with ";"'),
        ("x@c.com, y@d.com", 'separate them with ";"'),
        ("x@c.com y@d.com", 'separate them with ";"'),
        ("c.com", "a whole domain is given with --domains"),
        ("Jo <x@c.com>", "write only the address"),
        ("x@c..com", "is no address"),
        ("@c.com", "is no address"),
        ('"x@c.com', "has a quotation mark without its partner"),
    ],
)
def test_faulty_addresses(text: str, remedy: str) -> None:
    """A17: each usual mistake among the senders is an error that says what to write."""
    with pytest.raises(FieldError) as caught:
        fields.addresses(f"ok@ok.example; {text}")
    assert remedy in str(caught.value)


def test_www_is_pointed_out() -> None:
    """B2: www. before a domain is taken, and pointed out."""
    (sentence,) = fields.near_misses(fields.domains("www.mycompany.com; other.com; .www.mycompany.com"))
    assert sentence.startswith('"www.mycompany.com" covers')
    assert "mycompany.com, which is another domain" in sentence


@pytest.mark.parametrize(("text", "name"), [("Demo", "demo"), (" a.b_c-d@e ", "a.b_c-d@e"), ("x" * 64, "x" * 64), ("a\n", "a")])
def test_user_names(text: str, name: str) -> None:
    """A5: names are letters, digits and . _ - @, up to 64, in lower case."""
    assert fields.user_name(text) == name


@pytest.mark.parametrize("text", ["", " ", "x" * 65, "a b", "a/b", "ä", "a\nb", "a\0b", "\u0661", "a;b", "a'b"])
def test_faulty_user_names(text: str) -> None:
    """A5: any other name is refused with a sentence that says what may be in one, on one line."""
    with pytest.raises(FieldError, match="cannot be a user name") as caught:
        fields.user_name(text)
    assert str(caught.value).isprintable()


def test_notes() -> None:
    """A8: a note may have several lines, but no control characters, and has an end."""
    assert fields.note(" a\n\tb ") == "a\n\tb"
    for text in ("a\x1bb", "x" * (fields.NOTE_LIMIT + 1)):
        with pytest.raises(FieldError):
            fields.note(text)
