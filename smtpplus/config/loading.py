"""From a file to a `Configuration`, with one sentence for each fault.

A fault reads `FILE:LINE: KEY …`. All faults of a file are found in one go: an option that is wrong keeps its default while the
rest is read, and relations between options are judged only in tables that are otherwise in order. No text of a file, however
odd, raises anything but `ConfigurationError`.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Iterator, Literal, Mapping, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from smtpplus.config import places
from smtpplus.config.settings import Configuration, Listen, Route
from smtpplus.mail.reply import printable

DEFAULT_PATH = Path("/etc/smtpplus/smtpplus.toml")
VARIABLE = "SMTPPLUS_CONFIG"
_POSITION = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_FAULTY: Any = object()
_SECRET_KEYS = frozenset({"database"})
S = TypeVar("S", bound=Struct)


class ConfigurationError(ValueError):
    """What is wrong with a configuration: `faults`, one sentence each, naming key and place; never empty."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def locate(option: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The file to load: what --config names, else what SMTPPLUS_CONFIG names, else /etc/smtpplus/smtpplus.toml."""
    return Path(option or environment.get(VARIABLE) or DEFAULT_PATH)


def load(path: Path) -> Configuration:
    """The configuration in the file `path`. Relative paths in it count from its own directory. ConfigurationError with all faults."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigurationError([f"{path}: there is no such file; name one with --config or {VARIABLE}."]) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{path}: the file is not UTF-8 text: octet {error.start + 1} does not belong there."]) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError([f"{path}: the file cannot be read: {why}."]) from None
    text = text.replace("\r\n", "\n")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ConfigurationError([f"{path}: the file is no TOML that can be read: its brackets are nested too deep."]) from None
    except ValueError as error:
        raise ConfigurationError([_syntax_fault(path, text, str(error))]) from None
    reading = _Reading(path, text)
    configuration = reading.table(table, Configuration, ())
    reading.relations(configuration)
    if reading.faults:
        raise ConfigurationError([sentence for _, sentence in sorted(reading.faults, key=lambda fault: fault[0])])
    return reading.absolute(configuration)


def _syntax_fault(path: Path, text: str, message: str) -> str:
    found = _POSITION.search(message)
    what = message[: found.start()] if found else message
    line = int(found[1]) if found and found[1] else text.rstrip().count("\n") + 1
    column = f" in column {found[2]}" if found and found[2] else ""
    return f"{path}:{line}: this is no TOML{column}: {what}."


class _Reading:
    """One file on its way to a configuration, and the faults met so far, each with its line."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.base = path.absolute().parent
        self.text = text
        self.faults: list[tuple[int, str]] = []
        self.faulty: set[places.Path] = set()  # tables with a fault in them

    @functools.cached_property
    def where(self) -> places.Places:
        """Where its keys stand; looked for at the first fault."""
        return places.Places(self.text)

    def fault(self, path: places.Path, sentence: str) -> Any:
        """Note what is wrong at `path`; the value to go on with is _FAULTY."""
        line = self.where.line(path)
        self.faults.append((line, f"{self.path}:{line}: {printable(sentence)}" + ("" if sentence.endswith("?") else ".")))
        self.faulty.update(path[:length] for length in range(1, len(path) + 1))
        return _FAULTY

    def table(self, table: dict[str, Any], kind: type[S], path: places.Path) -> S:
        """A struct from a table: unknown keys are faults, missing ones have their default."""
        fields, hints = _options(kind)
        given: dict[str, Any] = {}
        for key, raw in table.items():
            where = (*path, key)
            if key not in fields:
                near = difflib.get_close_matches(key, fields, 1)
                self.fault(where, f"{_name(where)} is no option" + (f"; did you mean {_name((*path, near[0]))}?" if near else ""))
                continue
            value = self.value(raw, hints[fields[key]], where)
            if value is not _FAULTY:
                given[fields[key]] = value
        return kind(**given)

    def value(self, raw: Any, hint: Any, path: places.Path) -> Any:
        """The value that `raw` stands for where `hint` is expected, or _FAULTY."""
        meta = Meta()
        if get_origin(hint) is Annotated:
            hint, meta = get_args(hint)
        extra = meta.extra or {}
        if isinstance(hint, type) and issubclass(hint, Struct):
            if isinstance(raw, dict):
                return self.table(raw, hint, path)
            return self.fault(path, f"{_name(path)} must be a table, headed [{_name(path)}]")
        if get_origin(hint) is tuple and "read" not in extra:
            return self.items(raw, get_args(hint)[0], path)
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            return raw if raw in choices else self.mismatch(path, "one of " + ", ".join(f'"{choice}"' for choice in choices), raw)
        try:
            if "read" in extra:
                return extra["read"](msgspec.convert(raw, str))
            if "path" in extra:
                return self.file(msgspec.convert(raw, str), path, extra["path"])
            return msgspec.convert(raw, Annotated[hint, meta])
        except msgspec.ValidationError:
            return self.mismatch(path, meta.description or "a value of another type", raw)
        except ValueError as error:
            return self.fault(path, f"{_name(path)}: {error}")

    def items(self, raw: Any, hint: Any, path: places.Path) -> Any:
        """A tuple from a list; _FAULTY if one of its items is."""
        tables = isinstance(hint, type) and issubclass(hint, Struct)
        if not isinstance(raw, list):
            expected = f"headed [[{_name(path)}]]" if tables else f"a list, each item {get_args(hint)[1].description}"
            return self.mismatch(path, expected, raw)
        found = tuple(self.value(item, hint, (*path, index)) for index, item in enumerate(raw))
        return _FAULTY if _FAULTY in found else found

    def mismatch(self, path: places.Path, expected: str, raw: Any) -> Any:
        found = "" if path[0] in _SECRET_KEYS else f", not {_shown(raw)}"
        return self.fault(path, f"{_name(path)} must be {expected}{found}")

    def file(self, text: str, path: places.Path, kind: str) -> Any:
        """`text` as an absolute path; a file that is named must be there (whether it may be read is seen by who reads it)."""
        if not text:
            return text if kind == "file" else self.fault(path, f"{_name(path)} is empty; name a directory")
        absolute = self.base / text
        try:
            mode = absolute.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return absolute if kind == "directory" else self.fault(path, f"{_name(path)}: there is no file {absolute}")
        except (OSError, ValueError) as error:
            if not isinstance(error, PermissionError):
                return self.fault(path, f"{_name(path)}: {text!r} is no path: {error}")
        else:
            if stat.S_ISDIR(mode) != (kind == "directory"):
                return self.fault(path, f"{_name(path)}: {absolute} is no {kind}")
        return absolute if kind == "directory" else str(absolute)

    def relations(self, configuration: Configuration) -> None:
        """Judge what options say about one another, in tables that have no fault of their own."""
        faulty = frozenset(self.faulty)
        for path, sentence in _relations(configuration):
            if path[: 2 if isinstance(path[1], int) else 1] not in faulty:
                self.fault(path, sentence)

    def absolute(self, configuration: Configuration) -> Configuration:
        """`configuration` with the paths in `via` made absolute."""
        routes = tuple(
            msgspec.structs.replace(route, via=f"maildir:{self.base / route.via[8:]}") if route.via.startswith("maildir:") else route
            for route in configuration.route
        )
        return msgspec.structs.replace(configuration, route=routes)


def _relations(configuration: Configuration) -> Iterator[tuple[places.Path, str]]:
    """Path and sentence of every relation that does not hold."""
    yield from _listen_relations(configuration.listen)
    tls, levels, delivery = configuration.tls, configuration.priority.preempting_levels, configuration.delivery
    if bool(tls.certificate) != bool(tls.private_key):
        given, missing = ("certificate", "private_key") if tls.certificate else ("private_key", "certificate")
        yield ("tls", given), f"tls.{given} needs tls.{missing} beside it"
    if levels != tuple(range(1, len(levels) + 1)):
        yield ("priority", "preempting_levels"), "priority.preempting_levels must count up from 1 without a gap, such as [1, 2]"
    if not configuration.queue.retry:
        yield ("queue", "retry"), "queue.retry is empty; name at least one wait"
    if delivery.reserved_for_preempting >= delivery.connections:
        yield (
            ("delivery", "reserved_for_preempting"),
            f"delivery.reserved_for_preempting ({delivery.reserved_for_preempting}) must be less than delivery.connections "
            f"({delivery.connections}), or nothing else is ever sent",
        )
    if bool(configuration.alerts.webhook) != bool(configuration.alerts.webhook_secret_file):
        given, missing = ("webhook", "webhook_secret_file") if configuration.alerts.webhook else ("webhook_secret_file", "webhook")
        yield ("alerts", given), f"alerts.{given} needs alerts.{missing} beside it"
    for index, route in enumerate(configuration.route):
        yield from _route_relations(index, route)


def _route_relations(index: int, route: Route) -> Iterator[tuple[places.Path, str]]:
    if bool(route.username) != bool(route.password_file):
        given, missing = ("username", "password_file") if route.username else ("password_file", "username")
        yield ("route", index, given), f"route.{given} needs route.{missing} beside it"
    elif route.username and not route.via.startswith(("smtp://", "smtps://")):
        yield ("route", index, "username"), f'route.username is of no use with via "{route.via}"; only smtp:// and smtps:// log in'


def _listen_relations(listen: tuple[Listen, ...]) -> Iterator[tuple[places.Path, str]]:
    if not listen:
        yield ("listen", "listen"), "listen is empty; without a listener nothing can be submitted"
    for index, block in enumerate(listen):
        if not block.interfaces:
            yield ("listen", index, "interfaces"), 'listen.interfaces is empty; name at least one address, or "0.0.0.0" and "::" for all'
        if block.trusted_networks and not block.trusted_as:
            yield ("listen", index, "trusted_networks"), "listen.trusted_networks needs listen.trusted_as, the user its clients submit as"
        for earlier in listen[:index]:
            if not _share_interface(block, earlier):
                continue
            for new, old in ((new, old) for new in block.ports for old in earlier.ports if new.first <= old.last and old.first <= new.last):
                yield ("listen", index, "ports"), f'listen.ports: "{new}" overlaps "{old}" of an earlier [[listen]] on the same interface'


def _share_interface(one: Listen, other: Listen) -> bool:
    """Whether some address would be bound twice; 0.0.0.0 and :: stand for every address of their family."""
    for family, wildcard in ((4, "0.0.0.0"), (6, "::")):
        here, there = (
            {address for address in block.interfaces if ipaddress.ip_address(address).version == family} for block in (one, other)
        )
        if here and there and (here & there or wildcard in here | there):
            return True
    return False


@functools.cache
def _options(kind: type[Struct]) -> tuple[dict[str, str], dict[str, Any]]:
    """The attribute of each key of a table, and the type of each attribute: worked out once, as there may be very many [[route]]s."""
    return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}, get_type_hints(kind, include_extras=True)


def _name(path: places.Path) -> str:
    """The key as people write it: "listen.ports"."""
    return ".".join(part for part in path if isinstance(part, str))


def _shown(raw: Any) -> str:
    """A value as it may look in the file, short and on one line."""
    if isinstance(raw, dict):
        return "a table"
    if isinstance(raw, list):
        return "a list"
    if isinstance(raw, bool):
        return "true" if raw else "false"
    text = f'"{raw}"' if isinstance(raw, str) else str(raw)
    return text if len(text) <= 60 else f"{text[:57]}…"
