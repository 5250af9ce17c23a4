"""`python -m smtpplus.observation.catalogue` prints docs/events.md: every event of the structured log with its fields.

It reads the source of events.py, because what a field means is said in the comment behind it. An event without a docstring is a
ValueError, so that none is stated that nobody can look up.
"""

from __future__ import annotations

import ast
import inspect
import re

from smtpplus import events
from smtpplus.observation import story

_COMMENT = re.compile(r"#\s*(.*)$")
_HEAD = """\
# Events

One line of the mail log for each event: text or JSON (`[log] format`). In text the line begins with the time and the event's name with
hyphens (`authentication-failed`), and empty fields are left out; in JSON the field `event` has the name as it stands here. Every
event has `at`, seconds since the epoch. No event has a field for a secret. Events with an `id` are about one message and go into its
history. Made by `python -m smtpplus.observation.catalogue`. Numbers such as A19 are those of
[requirements.md](requirements.md).
"""


def document() -> str:
    """The whole of docs/events.md."""
    source = inspect.getsource(events)
    lines = source.splitlines()
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    return "\n".join([_HEAD, *(_section(classes[kind.__name__], lines) for kind in story.all_events())])


def _section(node: ast.ClassDef, lines: list[str]) -> str:
    said = ast.get_docstring(node)
    if not said:
        raise ValueError(f"{node.name} has no docstring")
    rows = [_row(each, lines) for each in node.body if isinstance(each, ast.AnnAssign)]
    return "\n".join([f"## {node.name}", "", said.replace("\n", " "), "", "| field | type | meaning |", "|---|---|---|", *rows, ""])


def _row(field: ast.AnnAssign, lines: list[str]) -> str:
    name = field.target.id if isinstance(field.target, ast.Name) else ""
    comment = _COMMENT.search(lines[(field.end_lineno or field.lineno) - 1])
    kind = ast.unparse(field.annotation).replace("|", "\\|")
    meaning = comment[1].replace("|", "\\|") if comment else ""
    return f"| `{name}` | {kind} | {meaning} |"


if __name__ == "__main__":
    print(document(), end="")
