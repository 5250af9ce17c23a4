"""The two forms of a file of users, text on one side and `exchange` on the other: TOML with a table per user, CSV with a row per user."""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from pathlib import PurePath
from typing import Any, Callable, Literal, Mapping, Sequence

from smtpplus.accounts.exchange import USER_FIELDS, FileFaults, Gathering, Import, record, settings_record
from smtpplus.accounts.fields import FieldError
from smtpplus.accounts.lists import UserList
from smtpplus.accounts.settings import USER_NAMES
from smtpplus.accounts.user import User
from smtpplus.config.places import Places

Format = Literal["toml", "csv"]
_COLUMNS = (*(name for name in USER_FIELDS if name not in ("settings", "entries")), *USER_NAMES, "entries")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_DIGITS = re.compile(r"[0-9_]+|\Z")
_CELL_LIMIT = 10_000_000  # characters; the csv module's own is too small for a user with very many senders


def format_of(name: str) -> Format:
    """The format by the ending of a file's name; FieldError."""
    ending = PurePath(name).suffix.lower()
    if ending == ".toml":
        return "toml"
    if ending == ".csv":
        return "csv"
    raise FieldError(f'"{name}" ends neither in .toml nor in .csv')


def read(octets: bytes, kind: Format) -> Import:
    """What a file holds; FileFaults."""
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFaults([(octets.count(b"\n", 0, error.start) + 1, "the line is no text in UTF-8")]) from None
    return _read_toml(text) if kind == "toml" else _read_csv(text)


def write(users: Sequence[User], lists: Sequence[UserList], kind: Format) -> str:
    """The text of a file; CSV has no place for `lists`."""
    return _write_toml(users, lists) if kind == "toml" else _write_csv(users)


# TOML


def _read_toml(text: str) -> Import:
    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+),", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        raise FileFaults([(line, f"this is no TOML: {re.sub(r' [(]at .*[)]', '', str(error))}")]) from None
    except RecursionError:
        raise FileFaults([(1, "the file is nested too deep")]) from None
    except ValueError:  # the only other one that there is: Python reads no number of more than 4,300 digits
        raise FileFaults([(_longest(text), "the line has a number that is too large")]) from None
    places, gathered = Places(text), Gathering()
    add: dict[str, Callable[[Mapping[str, Any], Callable[[str], int]], None]] = {"list": gathered.add_list, "user": gathered.add_user}
    for key, tables in whole.items():
        if key not in add:
            gathered.faults.append((places.line((key,)), f'"{key}" means nothing here; there are [[user]] and [[list]]'))
        elif not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            gathered.faults.append((places.line((key,)), f"write [[{key}]] in two brackets"))
        else:
            for index, table in enumerate(tables):
                add[key](table, _toml_line(places, key, index))
    return gathered.result()


def _longest(text: str) -> int:
    """The line with the longest number."""
    number = max(_DIGITS.finditer(text), key=lambda found: found.end() - found.start())
    return text.count("\n", 0, number.start()) + 1


def _toml_line(places: Places, key: str, index: int) -> Callable[[str], int]:
    return lambda name: places.line((key, index, *name.split(".", 1)))


def _write_toml(users: Sequence[User], lists: Sequence[UserList]) -> str:
    lines: list[str] = []
    for each in lists:
        lines += ["[[list]]", f"name = {_quoted(each.name)}"] + ([f"note = {_quoted(each.note)}"] if each.note else [])
        lines += [*_table("list.settings", settings_record(each.settings)), ""]
    for user in users:
        lines.append("[[user]]")
        fields = record(user)
        lines += [f"{name} = {_toml(value)}" for name, value in fields.items() if not isinstance(value, dict)]
        for name in ("settings", "entries"):
            lines += _table(f"user.{name}", fields.get(name, {}))
        lines.append("")
    return "\n".join(lines)


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    return [f"[{name}]", *(f"{_key(key)} = {_toml(value)}" for key, value in values.items())] if values else []


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(inner)}" for key, inner in value.items()) + " }" if value else "{}"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# CSV


def _read_csv(text: str) -> Import:
    csv.field_size_limit(_CELL_LIMIT)
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in head and "," not in head else ",", strict=True)
    gathered, columns, line = Gathering(), list[str](), 1
    try:
        for row in rows:
            start, line = line, rows.line_num + 1
            if not columns:
                columns = _columns(row, gathered)
            elif row and len(row) != len(columns):
                gathered.faults.append((start, f"the row has {len(row)} columns, the first line names {len(columns)}"))
            elif any(row):
                _row(dict(zip(columns, row, strict=True)), start, gathered)
    except csv.Error as error:
        gathered.faults.append((line, f"this is no CSV: {error}"))
    if not columns and not gathered.faults:
        gathered.faults.append((1, "the file is empty; the first line must name the columns"))
    return gathered.result()


def _columns(row: Sequence[str], gathered: Gathering) -> list[str]:
    """The names of the columns, from the first line."""
    columns = [name.strip().lower() for name in row]
    strange = [name for name in columns if name not in _COLUMNS]
    if strange or "name" not in columns:
        gathered.faults.append(
            (1, f'the first line must name the columns, "name" among them; there are {", ".join(_COLUMNS)}')
            if "name" not in columns
            else (1, f'there is no column "{strange[0]}"; there are {", ".join(_COLUMNS)}')
        )
        raise FileFaults(gathered.faults)
    if len(set(columns)) < len(columns):
        raise FileFaults([(1, "a column is named twice")])
    return columns


def _row(cells: Mapping[str, str], line: int, gathered: Gathering) -> None:
    """Add the user of one row; an empty cell says nothing."""
    settings = {name: cells[name] for name in USER_NAMES if cells.get(name, "").strip()}
    gathered.add_user({**{name: cell for name, cell in cells.items() if name not in USER_NAMES}, "settings": settings}, lambda _: line)


def _write_csv(users: Sequence[User]) -> str:
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for user in users:
        cells = record(user)
        cells |= cells.pop("settings", {})
        if "entries" in cells:
            cells["entries"] = json.dumps(cells["entries"], ensure_ascii=False)
        rows.writerow([_cell(cells.get(name, "")) for name in _COLUMNS])
    return out.getvalue()


def _cell(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
