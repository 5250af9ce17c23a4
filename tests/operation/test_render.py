"""`render`: what a client shows, the source's own malformed samples among it, and each fault of encoding by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpplus.mail.header import decoded
from smtpplus.operation.cli import main
from smtpplus.operation.lint import field_faults


def test_the_samples_of_the_source_are_shown_right_and_named(tmp_path: Path) -> None:
    """B9, B10: raw blanks in an encoded word are shown as text and named as a fault, in a message and in a bare subject."""
    for text in (
        "=?utf-8?Q?I love you =E2=99=A5?=\n",
        "From: =?utf-8?q?J=C3=BCrgen?= <j@a.com>\nSubject: =?utf-8?Q?I love you =E2=99=A5?=\n\nbody",
    ):
        path = tmp_path / "subject"
        path.write_text(text)
        result = CliRunner().invoke(main, ["render", str(path), "--json"])
        assert result.exit_code == 1
        told = json.loads(result.output)
        fields = {field["name"]: field["value"] for field in told["fields"]}
        assert fields["subject"] == "I love you ♥"
        assert fields.get("from", "Jürgen <j@a.com>") == "Jürgen <j@a.com>"
        (fault,) = told["faults"]
        assert fault["field"] == "Subject"
        assert "raw blanks are not allowed" in fault["fault"]
        assert field_faults(f"Subject: {told['better_subject']}\r\n".encode()) == []
        assert decoded(told["better_subject"]) == "I love you ♥"
    assert "Right would be: Subject: I love you =?utf-8?" in CliRunner().invoke(main, ["render", str(path)]).output


@pytest.mark.parametrize(
    ("fields", "user", "level"),
    [("X-Priority: 1\n", "3", 1), ("Importance: low\n", "3", 3), ("Importance: low\n", "5", 4), ("", "3", 3), ("X-Priority: 9\n", "2", 2)],
)
def test_priority_that_a_client_shows(tmp_path: Path, fields: str, user: str, level: int) -> None:
    """B10, A24: the level is that of message and user together, with the fields that will be written."""
    path = tmp_path / "message.eml"
    path.write_text(f"Subject: plain\r\n{fields}\r\nbody")
    result = CliRunner().invoke(main, ["render", str(path), "--user-level", user, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["level"] == level
    assert [field["value"] for field in told["priority_fields"] if field["name"] == "X-Priority"] == ([] if level == 3 else [str(level)])
    plain = CliRunner().invoke(main, ["render", str(path), "--user-level", user])
    assert "The encoding is in order." in plain.output


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("=?utf-8?Q?=E2=99=A5?=", None),
        ("=?utf-8?B?4pml?= and more", None),
        ("=?utf-8*en?Q?a?=", None),
        ("plain = text ? here", None),
        ("=?utf-8?Q?a b?=", "raw blanks"),
        ("=?nonsense?Q?a?=", "no character set"),
        ("=?utf-8?X?a?=", "no encoding"),
        ("=?utf-8?Q?=G1?=", "two hexadecimal digits"),
        ("=?utf-8?B?4pm?=", "base64"),
        ("=?utf-8?B?4pml===?=", "base64"),
        ("=?utf-8?Q?=E2=99?=", "no utf-8"),
        ("=?utf-8?Q?" + "a" * 80 + "?=", "75 are allowed"),
        ("x=?utf-8?Q?a?=", "a blank must stand"),
        ("=?utf-8?Q?a", "not closed"),
        ("\u2665", "outside ASCII"),
        ("a" * 1000, "more than 998"),
    ],
)
def test_faults_of_encoded_words(value: str, fault: str | None) -> None:
    """B10: each rule of RFC 2047 that a field breaks is named, and a field that keeps them has no fault."""
    found = field_faults(f"Subject: {value}\r\n".encode())
    if fault is None:
        assert found == []
    else:
        assert len(found) == 1
        assert fault in found[0]


def test_nothing_in_a_file_reaches_the_terminal_raw(tmp_path: Path) -> None:
    """Control characters hidden in encoded words are not printed; a header with NUL is refused with the reason."""
    path = tmp_path / "m"
    path.write_bytes(b"Subject: =?utf-8?Q?=1B[31mred=07?=\r\n\r\n")
    result = CliRunner().invoke(main, ["render", str(path)])
    assert not {"\x1b", "\x07"} & set(result.output)
    path.write_bytes(b"Subject: a\x00b\r\n\r\n")
    result = CliRunner().invoke(main, ["render", str(path)])
    assert result.exit_code == 1
    assert "would be refused" in result.output


@pytest.mark.parametrize("charset", ["idna", "undefined", "punycode", "zlib", "utf-7", "no-such\udcff"])
def test_what_is_no_charset_is_named_and_costs_nothing(charset: str) -> None:
    """B9: a charset out of the closed list is a fault that is named; Python's codecs of that name are not asked."""
    long = "9" * 70_000
    faults = field_faults(f"Subject: =?{charset}?q?xn--a{long}?=\r\n".encode("utf-8", "surrogateescape"))
    assert any("is no character set that mail programs know" in fault for fault in faults)


@pytest.mark.parametrize(("charset", "good"), [("us-ascii", False), ("utf-8", False), ("iso-8859-1", True), ("UTF-8*en", False)])
def test_octets_that_are_no_text_of_their_charset(charset: str, good: bool) -> None:
    """B9: octets that the named charset does not have are a fault."""
    faults = field_faults(f"Subject: =?{charset}?q?=E9?=\r\n".encode())
    assert any("its octets are no" in fault for fault in faults) is not good
