"""What a single option may say: accepted texts with their value, refused texts with the part that is named."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.config import PortRange, values


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.duration, "30s", 30.0),
        (values.duration, "5m", 300.0),
        (values.duration, "1h 30m", 5400.0),
        (values.duration, "1h30m", 5400.0),
        (values.duration, " 5d ", 432_000.0),
        (values.duration, "2w", 1_209_600.0),
        (values.duration, "0.5s", 0.5),
        (values.duration, "250ms", 0.25),
        (values.duration, "0s", 0.0),
        (values.size, "50 MiB", 52_428_800),
        (values.size, "50MiB", 52_428_800),
        (values.size, "10 MB", 10_000_000),
        (values.size, "1.5 KiB", 1536),
        (values.size, "1 B", 1),
        (values.network, "127.0.0.1", ip_network("127.0.0.1/32")),
        (values.network, "2001:db8::/32", ip_network("2001:db8::/32")),
        (values.interface, "::", "::"),
        (values.name_server, "127.0.0.1", ("127.0.0.1", 53)),
        (values.name_server, "127.0.0.1:5353", ("127.0.0.1", 5353)),
        (values.name_server, "::1", ("::1", 53)),
        (values.name_server, "[::1]:5353", ("::1", 5353)),
        (values.optional_endpoint, "", None),
        (values.webhook, "", ""),
        (values.webhook, " https://example.com/hook/?key=1 ", "https://example.com/hook/?key=1"),
        (values.public_url, "", ""),
        (values.public_url, " https://mail.example.com/ ", "https://mail.example.com"),
        (values.public_url, "http://[::1]:8025/smtp-plus", "http://[::1]:8025/smtp-plus"),
        (values.optional_endpoint, "127.0.0.1:8025", ("127.0.0.1", 8025)),
        (values.destination, "*", "*"),
        (values.destination, "Example.COM.", "example.com"),
        (values.destination, ".bücher.example", ".xn--bcher-kva.example"),
        (values.via, "mx", "mx"),
        (values.via, "discard:", "discard:"),
        (values.via, "maildir:/var/mail/x y", "maildir:/var/mail/x y"),
        (values.via, "maildir:/m/{domain}/{user}/{recipient}", "maildir:/m/{domain}/{user}/{recipient}"),
        (values.via, "smtp://Relay.example.com", "smtp://relay.example.com:25"),
        (values.via, "smtps://relay.example.com", "smtps://relay.example.com:465"),
        (values.via, "smtp://[::1]:2525", "smtp://[::1]:2525"),
        (values.via, "smtp://127.0.0.1:2525/", "smtp://127.0.0.1:2525"),
        (values.database, "", ""),
        (values.database, "postgresql://u@h/n", "postgresql://u@h/n"),
    ],
)
def test_read(read: Callable[[str], Any], text: str, value: Any) -> None:
    """An option's text has exactly one value, in seconds, octets, or normalized."""
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "named"),
    [
        (values.duration, "", '"" is no duration'),
        (values.duration, "5", '"5" is no duration'),
        (values.duration, "5 minutes", '"5 minutes" is no duration'),
        (values.duration, "-5s", '"-5s" is no duration'),
        (values.duration, "\u0665s", "is no duration"),
        (values.time_span, "0s", '"0s" is zero'),
        (values.pause, "3m", '"3m" is too long'),
        (values.hold_time, "2000w", '"2000w" is too long'),
        (values.size, "50", '"50" is no size'),
        (values.size, "50 iB", '"50 iB" is no size'),
        (values.size, "0 B", '"0 B" is less than one octet'),
        (values.network, "10.0.0.1/8", '"10.0.0.1/8" is no network'),
        (values.interface, "localhost", '"localhost" is no IP address'),
        (values.endpoint, "127.0.0.1", '"127.0.0.1" is no address with a port'),
        (values.endpoint, "localhost:8025", '"localhost:8025"'),
        (values.endpoint, "127.0.0.1:0", '"127.0.0.1:0"'),
        (values.endpoint, "127.0.0.1:65536", '"127.0.0.1:65536"'),
        (values.name_server, "[::1:53", '"[::1:53"'),
        (values.destination, "a..b", "'a..b'"),
        (values.webhook, "ftp://example.com/", '"ftp://example.com/" is no web address'),
        (values.webhook, "https://", '"https://" is no web address'),
        (values.public_url, "mail.example.com", '"mail.example.com" is no web address'),
        (values.public_url, "https://a/?x=1", '"https://a/?x=1" is no web address'),
        (values.public_url, "https://a b/", '"https://a b" is no web address'),
        (values.public_url, "ftp://a", '"ftp://a" is no web address'),
        (values.mailbox, "postmaster", "postmaster"),
        (values.via, "maildir:", '"maildir:" is no way to deliver'),
        (values.via, "maildir:/m/{usr}", '"maildir:/m/{usr}" has the placeholder {usr}; there are {recipient}, {user}, {domain}'),
        (values.via, "smtp://", '"smtp://" names no host'),
        (values.via, "smtp://host:port", '"smtp://host:port" names no host'),
        (values.database, "mysql://u:hidden@h/n", "postgresql://"),
    ],
)
def test_refuse(read: Callable[[str], Any], text: str, named: str) -> None:
    """A text that is no value is refused with a sentence that names it."""
    with pytest.raises(ValueError) as caught:
        read(text)
    assert named in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_ports_of_the_configuration_page() -> None:
    """A2: 23, 25, 26, 587 and 1025 to 5000, limits included; a port named alone is told from a range."""
    assert values.ports("23,25, 26 ,587,1025-5000") == (
        PortRange(23, 23, alone=True),
        PortRange(25, 25, alone=True),
        PortRange(26, 26, alone=True),
        PortRange(587, 587, alone=True),
        PortRange(1025, 5000, alone=False),
    )
    assert values.ports("7-7") == (PortRange(7, 7, alone=False),)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "the list of ports is empty"),
        ("  ", "the list of ports is empty"),
        ("25,,26", '"25,,26" has an empty entry'),
        ("25,", '"25," has an empty entry'),
        ("25, 5000-1025", '"5000-1025" is reversed; write "1025-5000"'),
        ("25, 65536", '"65536" goes beyond'),
        ("0", '"0" goes beyond'),
        ("60000-70000", '"60000-70000" goes beyond'),
        ("25, 25", '"25" overlaps "25"'),
        ("1025-5000, 2525", '"2525" overlaps "1025-5000"'),
        ("2000-3000, 1025-2000", '"1025-2000" overlaps "2000-3000"'),
        ("smtp", '"smtp" is neither a port nor a range'),
        ("-25", '"-25" is neither'),
        ("25-", '"25-" is neither'),
        ("25;26", '"25;26" is neither'),
        ("²5", '"²5" is neither'),
        ("9" * 5000, "is neither"),
    ],
)
def test_faulty_ports(text: str, named: str) -> None:
    """A2: overlap, reversed range, beyond 65535 and empty are errors that name the token."""
    with pytest.raises(ValueError) as caught:
        values.ports(text)
    assert named in str(caught.value)


@given(st.lists(st.tuples(st.integers(1, 65_535), st.integers(0, 3)), min_size=1, max_size=20))
def test_ports_never_bind_twice(chosen: list[tuple[int, int]]) -> None:
    """A2: a list of ports is accepted if and only if it names no port twice, and keeps what was written."""
    ranges = [(first, min(first + length, 65_535)) for first, length in chosen]
    text = ", ".join(f"{first}-{last}" for first, last in ranges)
    named = [port for first, last in ranges for port in range(first, last + 1)]
    if len(named) == len(set(named)):
        assert [(each.first, each.last) for each in values.ports(text)] == ranges
    else:
        with pytest.raises(ValueError, match="overlaps"):
            values.ports(text)


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_a_sentence(text: str) -> None:
    """No text of an option, however odd, raises anything but ValueError."""
    for read in (values.duration, values.size, values.ports, values.network, values.name_server, values.destination, values.via):
        try:
            read(text)
        except ValueError as error:
            assert str(error)


def test_rates() -> None:
    """C7: amounts of recipients or octets a minute, hour or day, several of them; anything else is named."""
    assert values.rates("") == ()
    assert values.rates("100/m; 10 MiB/h;5000 / d") == (
        (100, 60.0, "recipients"),
        (10 * 1024**2, 3600.0, "octets"),
        (5000, 86_400.0, "recipients"),
    )
    for text in ("100", "100/s", "x/m", "0/m", "/m"):
        with pytest.raises(ValueError, match=r"^\""):
            values.rates(text)


def test_rates_as_text() -> None:
    """C7: rates are kept as text that is equal for equal rates, and reads back as them."""
    assert values.rate_text(" 100/m;10240 KiB / h ; 1.5 GiB/d; 1000 B/m") == "100/m; 10 MiB/h; 1536 MiB/d; 1000 B/m"
    assert values.rate_text("") == values.rate_text(";") == ""
    assert values.rates(values.rate_text("7/d; 1 GB/h")) == values.rates("7/d; 1 GB/h")
