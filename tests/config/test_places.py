"""The line of a key in a TOML text, whatever stands around it."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from smtpplus.config.places import Path, Places

TEXT = '''\
a = 1 # ] [ " \' """
"b c" = [ # [x]
  "]", \'"\',
]
d.e . "f" = { g = 1, "h" = "}" }
m = """
n = 1 \\" ""
[o]"""
l = \'\'\'
[p]\'\'\'
[q]
r = 2
  [ s . "t" ]
u = 1979-05-27 07:32:00
[[v]]
w = 1
[v.x]
y = 1
[[v]] # again
w = 2
[v.x]
y = 2
z = 1'''


def test_lines() -> None:
    """Strings, comments, brackets, dotted and quoted keys, tables and arrays of tables do not confuse the count of lines."""
    places = Places(TEXT)
    tomllib.loads(TEXT)
    expected: dict[Path, int] = {
        ("a",): 1,
        ("b c",): 2,
        ("b c", 0): 2,  # inside of an array: the array's line
        ("d",): 5,
        ("d", "e", "f"): 5,
        ("d", "e", "f", "g"): 5,
        ("m",): 6,
        ("l",): 9,
        ("q",): 11,
        ("q", "r"): 12,
        ("s", "t"): 13,
        ("s", "t", "u"): 14,
        ("v", 0): 15,
        ("v", 0, "w"): 16,
        ("v", 0, "x", "y"): 18,
        ("v", 1): 19,
        ("v", 1, "w"): 20,
        ("v", 1, "x", "y"): 22,
        ("v", 1, "x", "z"): 23,
        ("nowhere",): 1,
    }
    assert {path: places.line(path) for path in expected} == expected


_strings = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=6)
_values = st.one_of(
    st.integers(-5, 5).map(str),
    _strings.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    _strings.map(lambda text: "'" + text.replace("'", "") + "'"),
    _strings.map(lambda text: '"""\n' + text.replace("\\", "\\\\").replace('"', '\\"') + '\n"""'),
    st.lists(st.sampled_from(['"]"', "1", "'['", "[[2]]", "{a = '}'}"]), max_size=3).map(
        lambda items: "[\n" + ",\n".join(items) + " # ]\n]"
    ),
)


@given(st.lists(st.tuples(st.booleans(), _values), max_size=8))
def test_every_key_stands_where_it_was_written(entries: list[tuple[bool, str]]) -> None:
    """For texts made of tables and values of all kinds, each key is found on the line it was written on."""
    text, expected, table = "", {}, ""
    for number, (new_table, value) in enumerate(entries):
        if new_table:
            table = f"t{number}"
            text += f"[{table}]\n"
        path: Any = (table, f"k{number}") if table else (f"k{number}",)
        expected[path] = text.count("\n") + 1
        text += f"k{number} = {value}\n"
    tomllib.loads(text)
    places = Places(text)
    assert {path: places.line(path) for path in expected} == expected
