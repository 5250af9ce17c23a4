"""X-SMTPAPI: what is read, what says nothing, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.mail.header import Header
from smtpplus.mail.reasons import Refusal
from smtpplus.mail.smtpapi import NOTHING, Wishes, read

NOW, LONGEST = 1_800_000_000.0, 86_400.0


def asked(*values: str) -> Wishes:
    return read(values, now=NOW, longest=LONGEST)


@pytest.mark.parametrize(
    ("value", "wishes"),
    [
        ("{}", NOTHING),
        ('{"Schedule": "2027-01-15T09:00:00+01:00"}', Wishes(release_at=NOW)),
        ('{"Schedule": "2027-01-15T08:01:00Z"}', Wishes(release_at=NOW + 60)),
        ('{"schedule": "2027-01-15 08:01"}', Wishes(release_at=NOW + 60)),
        ('{"Schedule": 1800000060.5}', Wishes(release_at=NOW + 60.5)),
        ('{"Schedule": null, "Priority": "2"}', Wishes(level=2)),
        ('{"PRIORITY": 5, "CampaignCode": " spring \u00fc "}', Wishes(level=5, campaign="spring \u00fc")),
        ('{"CampaignCode": 2027}', Wishes(campaign="2027")),
        ('{"to": ["somebody@else.example"], "unique_args": {"a": 1}}', NOTHING),
    ],
)
def test_what_is_asked_for(value: str, wishes: Wishes) -> None:
    """A30: a time with its zone or in seconds, a level, a campaign; a time that is over means at once."""
    assert asked(value) == (wishes if wishes.release_at != NOW else NOTHING)


@pytest.mark.parametrize("value", ['{"Priority": 0}', '{"Priority": "high"}', '{"Priority": true}', '{"Priority": [1]}'])
def test_a_priority_that_is_none_says_nothing(value: str) -> None:
    """A24: nonsense in a priority has no opinion, and is never an error."""
    assert asked(value) == NOTHING


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        (["{}", "{}"], "more than once"),
        (["{"], "not JSON at character 2"),
        (["[1]"], "not a JSON object"),
        (['{"Schedule": "tomorrow"}'], "Schedule is no time"),
        (['{"Schedule": true}'], "Schedule is no time"),
        (['{"Schedule": NaN}'], "Schedule is no time"),
        (['{"Schedule": {"at": 1}}'], "Schedule is no time"),
        (['{"Schedule": 1800086401}'], "more than 86400 seconds ahead"),
        (['{"CampaignCode": ["x"]}'], "CampaignCode is no text"),
        (['{"CampaignCode": "a\\u0007b"}'], "CampaignCode is no text"),
        (['{"CampaignCode": "' + "x" * 101 + '"}'], "CampaignCode is no text"),
        (["[" * 100_000], "not JSON"),
    ],
)
def test_what_cannot_be_read_is_refused(values: list[str], cause: str) -> None:
    """A30: 550 5.6.0 with the reason."""
    with pytest.raises(Refusal) as refused:
        read(values, now=NOW, longest=LONGEST)
    assert str(refused.value.reply).startswith("550 5.6.0 ")
    assert cause in str(refused.value.reply)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever the field says, the answer is wishes within bounds or a refusal."""
    try:
        wishes = asked(text)
    except Refusal:
        return
    assert wishes.level in {None, 1, 2, 3, 4, 5}
    assert wishes.release_at <= NOW + LONGEST


def test_raw_utf8_is_read() -> None:
    """A30: what a client wrote in raw UTF-8, which is encoded by the time it is read, is read as it was meant."""
    header = Header.parse('X-SMTPAPI: {"CampaignCode": "Frühling", "Priority": 2}\r\n\r\n'.encode()).encoded()
    assert read(header.values("x-smtpapi"), now=0.0, longest=0.0) == Wishes(2, campaign="Frühling")
