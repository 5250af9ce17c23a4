"""mail.xtext: text in parameters, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail import xtext

_LINE = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=80)
_WORLD = st.text(st.characters(min_codepoint=33, categories=["L", "N", "P", "S"]), min_size=1, max_size=30)


@given(_LINE)
def test_what_is_encoded_is_decoded(text: str) -> None:
    """RFC 3461 §4: xtext is graphic ASCII without blank, "+" and "=" stand for something else, and nothing is lost."""
    encoded = xtext.encode(text)
    assert all("!" <= character <= "~" and character != "=" for character in encoded)
    assert xtext.decode(encoded) == text


@given(_WORLD)
def test_an_original_recipient_outside_ascii_comes_back(address: str) -> None:
    """RFC 6533 §3: an address of the type utf-8 in ASCII, whatever it is, and back."""
    encoded = xtext.encode_recipient(f"utf-8;{address}")
    assert encoded.isascii()
    assert xtext.decode_recipient(encoded) == f"utf-8;{address}"


@pytest.mark.parametrize("text", ["", "a b", "a=b", "+", "+2", "+2b", "+GG", "ü", "+FF"])
def test_what_is_no_xtext(text: str) -> None:
    """RFC 3461 §4: two upper-case digits behind "+", no blank, no "=", nothing that stands for more than ASCII."""
    with pytest.raises(ValueError):
        xtext.decode(text)
