"""The mark of a user name that nobody has."""

import re

from smtpplus.accounts import fields
from smtpplus.accounts.unknown import mark


def test_a_mark_tells_names_apart_and_nothing_else() -> None:
    """A6: the same name has the same mark, however it is written; another name or key has another; none is a user's name."""
    one = mark(b"key", "Pa55word!")
    assert re.fullmatch(r"unknown:[0-9a-f]{10}", one)
    assert one == mark(b"key", " pa55WORD! ")
    assert len({one, mark(b"key", "Pa55word"), mark(b"other", "Pa55word!"), mark(b"key", "\ufffd\udcff")}) == 4
    assert mark(b"key", " ") == ""
    try:
        fields.user_name(one)
    except fields.FieldError:
        return
    raise AssertionError(f"{one} could be a user's name")
