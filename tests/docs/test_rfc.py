"""docs/rfc.md against the sources."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CITED = re.compile(r"RFC (\d+)")
ROW = re.compile(r"^\| (\d+) \| [^|]+ \| (Yes|Partial|No) \|([^|]*)\|$", re.MULTILINE)
DOCUMENT = ROOT / "docs" / "rfc.md"


@pytest.fixture(scope="module")
def cited() -> set[str]:
    """The RFCs that the package's modules name."""
    return {number for path in (ROOT / "smtpplus").rglob("*.py") for number in CITED.findall(path.read_text())}


def test_every_row_can_be_read() -> None:
    """Each line of the tables is a number, a subject, Yes, Partial or No, and a remark; no RFC has two."""
    text = DOCUMENT.read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == len(ROW.findall(text)) > 0
    numbers = [number for number, _, _ in ROW.findall(text)]
    assert len(numbers) == len(set(numbers))


def test_every_rfc_cited_is_listed(cited: set[str]) -> None:
    """Who meets an RFC in the code finds in the table how far it is followed."""
    assert cited - {number for number, _, _ in ROW.findall(DOCUMENT.read_text())} == set()


def test_what_is_followed_is_cited(cited: set[str]) -> None:
    """An RFC that the table says is followed is named where it is."""
    assert {number for number, status, _ in ROW.findall(DOCUMENT.read_text()) if status != "No"} - cited == set()


def test_partial_says_what() -> None:
    """Partial without a remark says nothing."""
    assert [number for number, status, remark in ROW.findall(DOCUMENT.read_text()) if status == "Partial" and not remark.strip()] == []
