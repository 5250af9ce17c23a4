"""What server, list and user set, and what is in force in the end: one pure function, proved over the product of the three."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.accounts import forms
from smtpplus.accounts.fields import FieldError
from smtpplus.accounts.settings import NAMES, SERVER, UNSET, Settings, decode, effective, encode, server_settings
from smtpplus.config import Alerts, Configuration, Limits, Priority, Senders

VALUES: dict[str, tuple[Any, Any]] = {  # of each setting: the value that the list sets, and the one that the user sets
    "unauthorized": ("alert", "block"),
    "require_verified": (False, True),
    "priority": (4, 5),
    "ceiling": (2, 3),
    "budget": (10, 0),
    "rate": (100, 0),
    "quota": (1000, 7),
    "per_user": ("10/h", ""),
    "per_list": ("1 GiB/d", "5/m"),
    "message_size": (10, 20),
    "alerts": (("x@a.com",), ()),
}
counts = st.none() | st.integers(0, 1_000_000_000)
levels = st.none() | st.integers(1, 5)
settings = st.builds(
    Settings,
    unauthorized=st.sampled_from((None, "block", "alert")),
    require_verified=st.sampled_from((None, True, False)),
    priority=levels,
    ceiling=levels,
    budget=counts,
    rate=counts,
    quota=counts,
    per_user=st.none() | st.sampled_from(("", "5/m", "1000/h; 10 MiB/d")),
    per_list=st.none() | st.sampled_from(("", "1500 KiB/m")),
    message_size=st.none() | st.integers(1, 999_999_999_999_999),
    alerts=st.none() | st.lists(st.sampled_from(("x@a.com", "y@b.com", '"q;q"@c.com', "ü@d.com")), unique=True).map(tuple),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("on_list", "on_user"), [*itertools.product((False, True), repeat=2)])
def test_user_then_list_then_server(name: str, on_list: bool, on_user: bool) -> None:
    """A32, A20: for each setting the user's word counts, else the list's, else the server's, and it is told whose it is."""
    listed, own = VALUES[name]
    found = effective(SERVER, Settings(**{name: listed}) if on_list else UNSET, Settings(**{name: own}) if on_user else UNSET)
    expected = ("user", own) if on_user else ("list", listed) if on_list else ("server", getattr(SERVER, name))
    assert (found.origins[name], getattr(found, name)) == expected
    assert {origin for other, origin in found.origins.items() if other != name} == {"server"}
    assert tuple(found.origins) == NAMES


def test_server_settings() -> None:
    """A20, A23: what the configuration says is what the server sets, for every setting."""
    configuration = Configuration(
        hostname="mail.example.com",
        senders=Senders(unauthorized="alert", require_verified=False),
        priority=Priority(default=5, ceiling=2, budget=9),
        limits=Limits(message_size=1000, rate=60, quota=5000, per_user="1/m", per_list="1 GiB/d"),
        alerts=Alerts(to=("root@a.com",)),
    )
    expected = ("alert", False, 5, 2, 9, 60, 5000, "1/m", "1 GiB/d", 1000, ("root@a.com",))
    assert msgspec.structs.astuple(server_settings(configuration)) == expected
    assert None not in msgspec.structs.astuple(SERVER)
    assert (SERVER.unauthorized, SERVER.require_verified, SERVER.priority, SERVER.ceiling) == ("block", True, 3, 1)


@given(settings)
def test_kept_as_it_is(given_: Settings) -> None:
    """What is kept in the database is read back equal, and equal texts are one object, so that many users cost no memory."""
    text = encode(given_)
    assert decode(text) == given_
    assert decode(text) is decode("".join(text))
    assert "null" not in text


def test_settings_of_a_newer_release() -> None:
    """C14: a setting that another release of the daemon has written, and this one does not know, does not keep users out."""
    assert decode('{"priority":2,"colour":"red"}') == Settings(priority=2)


@given(settings)
def test_written_and_read(given_: Settings) -> None:
    """A12: the text that `write` makes of a value is read as this value."""
    for name in NAMES:
        value = getattr(given_, name)
        if value is not None:
            assert forms.parse(name, forms.write(name, value)) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("unauthorized", " Alert ", "alert"),
        ("require_verified", "No", False),
        ("require_verified", "yes", True),
        ("ceiling", "2", 2),
        ("budget", "0", 0),
        ("per_user", "500 / h;1024 MiB/d", "500/h; 1 GiB/d"),
        ("per_list", "0", ""),
        ("message_size", "10 MiB", 10 * 1024**2),
        ("alerts", "Ops@A.com; y@b.com", ("Ops@A.com", "y@b.com")),
        ("alerts", "nobody", ()),
        *((name, " Inherit", None) for name in NAMES),
    ],
)
def test_read(name: str, text: str, value: Any) -> None:
    """A32: settings are read as people write them; "inherit" unsets each."""
    assert forms.parse(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("unauthorized", "refuse", 'write "block" (refuse), "alert" (send it and raise an alert) or "inherit"'),
        ("require_verified", "maybe", "neither yes nor no"),
        ("priority", "6", "6 is no priority; there are 1 (highest) to 5"),
        ("priority", "high", '"high" is not a priority; there are 1 (highest) to 5'),
        ("ceiling", "", "is not a priority"),
        ("rate", "-1", '"-1" is not a number; write one such as 500, 0 for no limit'),
        ("quota", "9999999999", "more than can be counted"),
        ("budget", "\u0665", "is not a number"),
        ("per_user", "500", '"500" is no rate; write an amount a minute, hour or day, such as "100/m" or "10 MiB/h"'),
        ("per_list", ";", 'no rate is named; write some such as "500/h; 1 GiB/d", 0 for no limit, or "inherit"'),
        ("message_size", "10", "is no size; write a number with B, KB, MB, GB, KiB, MiB or GiB"),
        ("message_size", "0 MiB", "less than one octet"),
        ("message_size", "50 M", '"50 M" is no size; write a number with B, KB, MB, GB, KiB, MiB or GiB, such as "50 MiB", or "inherit"'),
        ("message_size", "0", 'a message has some size, so 0 cannot stand for "no limit"; write a large one such as "1 GiB"'),
        ("message_size", "999999999 GB", '"999999999 GB" is more than can be counted; write one such as "1 GiB", or "inherit"'),
        ("alerts", "a.com", "is no address"),
        ("alerts", "", 'write addresses, "nobody" or "inherit"'),
        ("alerts", "x@a.com, y@b.com", 'separate them with ";"'),
    ],
)
def test_faulty(name: str, text: str, said: str) -> None:
    """A32: what cannot be read is a sentence that says what to write."""
    with pytest.raises(FieldError) as refused:
        forms.parse(name, text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "change", [{"unauthorized": "refuse"}, {"priority": 0}, {"budget": -1}, {"rate": "5"}, {"colour": "red"}, {"message_size": 0}]
)
def test_changed_refuses(change: dict[str, Any]) -> None:
    """What is no setting, or out of its range, never gets into the database, whoever asks for it."""
    with pytest.raises(FieldError):
        forms.changed(UNSET, change)


def test_changed() -> None:
    """A change sets what it names, unsets what it names as None, and leaves the rest."""
    before = Settings(unauthorized="alert", priority=2)
    assert forms.changed(before, {"priority": None, "ceiling": 3}) == Settings(unauthorized="alert", ceiling=3)
    assert forms.changed(before, {}) == before


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("require_verified", False, "no"),
        ("budget", 20, "20 messages an hour at levels 1 and 2"),
        ("quota", 0, "no limit"),
        ("per_user", "500/h; 1536 MiB/d; 7/m", "500 recipients an hour; 1536 MiB a day; 7 recipients a minute"),
        ("per_list", "", "no limit"),
        ("message_size", 50 * 1024**2, "50 MiB"),
        ("message_size", 1000, "1000 octets"),
        ("alerts", (), "nobody"),
        ("alerts", ("x@a.com", "y@b.com"), "x@a.com; y@b.com"),
    ],
)
def test_shown(name: str, value: Any, shown: str) -> None:
    """Values are shown with their units."""
    assert forms.show(name, value) == shown


def test_a_value_of_a_newer_release_says_nothing() -> None:
    """What is not known here is passed over, be it a setting or one of its values; the others hold."""
    assert decode('{"unauthorized": "quarantine", "later": 1, "priority": 9, "quota": 5}') == Settings(quota=5)
