"""docs/events.md tells every event, and is what the generator prints."""

from __future__ import annotations

from pathlib import Path

from smtpplus import events
from smtpplus.observation import catalogue, story


def test_document_is_current() -> None:
    """docs/events.md is what `python -m smtpplus.observation.catalogue` prints: run it again after a change of events.py."""
    path = Path(events.__file__).parents[1] / "docs" / "events.md"
    assert path.read_text() == catalogue.document()


def test_every_event_and_field_is_told() -> None:
    """No event and no field is missing, and none holds a secret."""
    text = catalogue.document()
    for kind in story.all_events():
        _, _, section = text.partition(f"\n## {kind.__name__}\n")
        table = section.partition("\n## ")[0]
        for name in kind.__struct_fields__:
            assert name == "at" or f"| `{name}` |" in table
            assert name not in ("password", "token", "secret", "credentials", "content")
