"""docs/rfc.md against the sources."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CITED = re.compile(r"RFC (\d+)")
SECTION = re.compile(r"RFC (\d+) (§[\d.]*\d)((?:, §[\d.]*\d)*)")
ROW = re.compile(r"^\| (\d+(?: §[\d.]+)?) \| [^|]+ \| (Yes|Partial|No) \|([^|]*)\|$", re.MULTILINE)
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


def test_sections_are_cited_and_follow_their_rfc() -> None:
    """A row about a section stands below the row of its RFC, and the section, or one of its own, is named in the sources."""
    sources = "\n".join(path.read_text() for path in (ROOT / "smtpplus").rglob("*.py"))
    cited = {
        f"{number} {section}"
        for number, first, more in SECTION.findall(sources)
        for section in (first, *more.removeprefix(", ").split(", "))
    }
    rfc = ""
    for row in (number for number, _, _ in ROW.findall(DOCUMENT.read_text())):
        if "§" not in row:
            rfc = row
        else:
            assert row.partition(" ")[0] == rfc
            assert any(each == row or each.startswith(f"{row}.") for each in cited), row


def test_every_rfc_cited_is_listed(cited: set[str]) -> None:
    """Who meets an RFC in the code finds in the table how far it is followed."""
    assert cited - {number for number, _, _ in ROW.findall(DOCUMENT.read_text())} == set()


def test_what_is_followed_is_cited(cited: set[str]) -> None:
    """An RFC that the table says is followed is named where it is."""
    assert {number for number, status, _ in ROW.findall(DOCUMENT.read_text()) if status != "No" and "§" not in number} - cited == set()


def test_partial_says_what() -> None:
    """Partial without a remark says nothing."""
    assert [number for number, status, remark in ROW.findall(DOCUMENT.read_text()) if status == "Partial" and not remark.strip()] == []
