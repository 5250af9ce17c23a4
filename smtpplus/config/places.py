"""On which line of a TOML text each key stands.

The standard parser tells values but not places. `Places` scans a text that the parser has already accepted, so it need not
judge it: it only steps over strings, comments and brackets. A key it does not know (inside an inline table or an array) gets the
place of the nearest key around it; line 1 if there is none.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]  # ("listen", 0, "ports"): the key `ports` of the first [[listen]]

_ONE = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_SPACE = re.compile(r"(?:[ \t\r\n]|\#[^\n]*)*")
_KEY = re.compile(rf"{_ONE}(?:[ \t]*\.[ \t]*{_ONE})*")
_PART = re.compile(_ONE)
_TOKEN = re.compile(
    r'''"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'''  # multi-line strings may end in two quotes of their own
    r"""|'''(?:[^']|'{1,2}(?!'))*'{3,5}"""
    r"""|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\#[^\n]*|[\[{]|[\]}]|\n|[^"'\#\[\]{}\n]+""",
    re.DOTALL,
)


class Places:
    """The lines of the keys of one TOML text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}  # array of tables: its last index
        self._scan()

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest key around it."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return 1

    def _scan(self) -> None:
        table: Path = ()
        at, line, counted = 0, 1, 0
        while True:
            at = self._end(_SPACE, at)
            line, counted = line + self._text.count("\n", counted, at), at
            brackets = 2 if self._text.startswith("[[", at) else int(self._text.startswith("[", at))
            start = at + brackets
            while self._text[start : start + 1] in {" ", "\t"}:
                start += 1
            key = _KEY.match(self._text, start)
            if key is None:
                return
            names = tuple(_unquoted(part) for part in _PART.findall(key[0]))
            if brackets:
                table = self._header(names, array=brackets == 2)
                for length in range(1, len(table) + 1):
                    self._lines.setdefault(table[:length], line)
                at = self._text.find("\n", key.end())
                if at < 0:
                    return
            else:
                for length in range(1, len(names) + 1):
                    self._lines.setdefault(table + names[:length], line)
                at = self._value_end(key.end())

    def _header(self, names: tuple[str, ...], *, array: bool) -> Path:
        path: Path = ()
        for position, name in enumerate(names):
            path += (name,)
            if array and position == len(names) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path += (self._arrays[path],)
        return path

    def _end(self, pattern: re.Pattern[str], at: int) -> int:
        found = pattern.match(self._text, at)
        return found.end() if found else at

    def _value_end(self, at: int) -> int:
        """Just behind the value that begins at or after `at`: the end of a line outside of all brackets."""
        depth = 0
        while token := _TOKEN.match(self._text, at):
            at = token.end()
            if token[0] in {"[", "{"}:
                depth += 1
            elif token[0] in {"]", "}"}:
                depth -= 1
            elif token[0] == "\n" and depth <= 0:
                break
        return at


def _unquoted(part: str) -> str:
    return part[1:-1] if part[0] in "\"'" else part
