"""What `config check` warns of: allowed, and seldom meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpplus.config import load
from smtpplus.config.doubts import doubts

ROUTES = '[[route]]\ndestination = "*"\n[[route]]\ndestination = "late.example"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[queue]\nwarn_after = "2h"\nlifetime = "1h"', "queue.warn_after is longer than queue.lifetime"),
        (ROUTES, 'route.destination "late.example" stands after "*"'),
        (ROUTES.replace("*", "late.example"), 'route.destination "late.example" stands there twice'),
        ('[log]\nmail = "."', "is a directory; name a file"),
        ('[log]\nmail = "no/where/mail.log"', "there is no directory"),
        ('[log]\nmail = "-"', ""),
        ('[[route]]\ndestination = "early.example"\n[[route]]\ndestination = "*"', ""),
    ],
)
def test_doubts(tmp_path: Path, text: str, said: str) -> None:
    """Each thing that is probably not meant has one sentence that names its key; what is in order has none."""
    path = tmp_path / "smtpplus.toml"
    path.write_text(f'state_directory = "."\n{text}\n')
    found = list(doubts(load(path)))
    assert len(found) == bool(said), found
    assert said in "".join(found)
