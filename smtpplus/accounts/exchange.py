"""Users as a file: TOML or CSV, written by `user export`, read by `user import` (A12).

Both hold the same: names, lists, settings, what is kept of the passwords, authorized domains and senders with their verification. TOML
holds the lists with their settings too; CSV has a column for each setting and suits spreadsheets. Everything but the name may
be missing, except that a user without domains and senders must say `allow_any`. What was written is read back equal.

Reading is all or nothing: `read` raises FileFaults with one sentence for each fault, in the order of the file, and names the line.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Callable, Mapping, Sequence

import msgspec

from smtpplus.accounts import fields, forms, passwords
from smtpplus.accounts.fields import AccountError, FieldError
from smtpplus.accounts.lists import UserList
from smtpplus.accounts.settings import NAMES, UNSET, USER_NAMES, Settings
from smtpplus.accounts.user import Secret, Sender, User
from smtpplus.mail.reply import printable

PROVENANCES = ("token", "dns", "vouched", "grandfathered")
LAST = 253_402_300_799  # seconds since 1970, the end of the year 9999: what calendars can show
_SHOWN = 60  # characters of a value
Where = Callable[[str], int]  # the line on which a field of the record stands; that of a setting is asked for as "settings.NAME"


class _NoText(FieldError):
    """Something else stands where a string belongs."""


class FileFaults(AccountError):
    """A file that cannot be imported. `faults`: pairs of a line and a sentence."""

    def __init__(self, faults: Sequence[tuple[int, str]]) -> None:
        super().__init__("; ".join(f"line {line}: {sentence}" for line, sentence in faults))
        self.faults = sorted(faults)


class Import(msgspec.Struct, frozen=True):
    """What a file holds. A user without a password has none in the file; ids and times of change mean nothing."""

    users: list[User]
    lines: dict[str, int]  # where each user stands
    lists: list[UserList] = []  # these from TOML only
    list_lines: dict[str, int] = {}


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is known of an authorized domain or sender beside its name."""

    verified: bool = False
    provenance: str = ""
    verified_at: float | None = None
    verified_by: str = ""
    created_at: float = 0.0


class Gathering:
    """The records read so far, and the faults."""

    def __init__(self) -> None:
        self.users: list[User] = []
        self.lines: dict[str, int] = {}
        self.lists: list[UserList] = []
        self.list_lines: dict[str, int] = {}
        self.faults: list[tuple[int, str]] = []

    def result(self) -> Import:
        """What was read; FileFaults if anything was wrong."""
        if self.faults:
            raise FileFaults(self.faults)
        return Import(self.users, self.lines, self.lists, self.list_lines)

    def field(self, raw: Mapping[str, Any], name: str, read: Callable[[Any], Any], where: Where, default: Any) -> Any:
        """A field of a record; `default` where it is missing or faulty."""
        value = raw.get(name)
        if value is None or (value == "" and name != "name"):
            return default
        try:
            return read(value)
        except _NoText:
            self.faults.append((where(name), _no_text(name, value)))
        except RecursionError:
            self.faults.append((where(name), f'"{name}" is nested too deep'))
        except OverflowError:
            self.faults.append((where(name), f'"{name}" has a number that is too large'))
        except (ValueError, msgspec.ValidationError) as error:
            self.faults.append((where(name), printable(str(error))))
        return default

    def add_user(self, raw: Mapping[str, Any], where: Where) -> None:
        """Add the user of one record."""
        unknown = [name for name in raw if name not in USER_FIELDS]
        self.faults += [(where(name), f'there is no field "{name}"; there are {", ".join(USER_FIELDS)}') for name in unknown]
        if not raw.get("name"):
            self.faults.append((where("name"), "the user has no name"))
            return
        name = self.field(raw, "name", _text(fields.user_name), where, "")
        domains = self.field(raw, "domains", _text(fields.domains), where, [])
        addresses = self.field(raw, "senders", _text(fields.addresses), where, [])
        details = self.field(raw, "entries", _details, where, {})
        any_ = self.field(raw, "allow_any", _switch, where, False)
        self._entries(raw, [*domains, *addresses], details, any_=any_, where=where)
        if name in self.lines:
            self.faults.append((where("name"), f"the user {name} stands in the file twice, first on line {self.lines[name]}"))
        self.lines.setdefault(name, where("name"))
        scram = self.field(raw, "scram", _text(_scram), where, "")
        self.users.append(
            User(
                name=name,
                password=Secret(self.field(raw, "password", _text(passwords.accepted), where, "")),
                list=self.field(raw, "list", _text(fields.list_name), where, "default"),
                active=self.field(raw, "active", _switch, where, True),
                note=self.field(raw, "note", _text(fields.note), where, ""),
                allow_any=any_,
                senders=tuple(_verified(entry, details.get(str(entry))) for entry in [*domains, *addresses]),
                created_at=self.field(raw, "created_at", _time, where, 0.0),
                scram=Secret(scram) if scram else None,
                settings=self.settings(raw.get("settings"), where, USER_NAMES),
            )
        )

    def add_list(self, raw: Mapping[str, Any], where: Where) -> None:
        """Add the list of one record."""
        unknown = [name for name in raw if name not in ("name", "note", "settings")]
        self.faults += [(where(name), f'there is no field "{name}" of a list; there are name, note, settings') for name in unknown]
        if not raw.get("name"):
            self.faults.append((where("name"), "the list has no name"))
            return
        name = self.field(raw, "name", _text(fields.list_name), where, "")
        if name in self.list_lines:
            self.faults.append((where("name"), f"the list {name} stands in the file twice, first on line {self.list_lines[name]}"))
        self.list_lines.setdefault(name, where("name"))
        note = self.field(raw, "note", _text(fields.note), where, "")
        self.lists.append(UserList(name, note, self.settings(raw.get("settings"), where, NAMES)))

    def settings(self, raw: Any, where: Where, names: Sequence[str]) -> Settings:
        """Settings, of these names, given as a mapping of their texts or plain values."""
        if raw is None:
            return UNSET
        if not isinstance(raw, Mapping):
            self.faults.append((where("settings"), "settings must be a table"))
            return UNSET
        values: dict[str, Any] = {}
        for name in raw:
            if name in names:
                values[name] = self.field(raw, name, functools.partial(_setting, name), lambda name: where(f"settings.{name}"), None)
            else:
                self.faults.append((where(f"settings.{name}"), f'there is no setting "{name}"; there are {", ".join(names)}'))
        return forms.changed(UNSET, values)

    def _entries(self, raw: Mapping[str, Any], named: list[Sender], details: dict[str, Entry], *, any_: bool, where: Where) -> None:
        """Judge domains and senders together."""
        strange = details.keys() - {str(entry) for entry in named}
        if strange:
            self.faults.append((where("entries"), f'"{min(strange)}" is neither among the domains nor among the senders'))
        if any_ and named:
            self.faults.append((where("allow_any"), "allow_any and a list of domains or senders contradict each other; leave out one"))
        if not (any_ or named or any(str(raw.get(name) or "").strip("; \t\r\n") for name in ("domains", "senders"))):
            self.faults.append(
                (where("name"), "the user has no domains and no senders; name some, or write allow_any if every one is meant")
            )


USER_FIELDS = (
    *("name", "list", "active", "note", "domains", "senders", "allow_any", "password", "scram", "entries", "settings", "created_at"),
)


def record(user: User) -> dict[str, Any]:
    """A user as plain values under the names of USER_FIELDS, settings and entries as mappings; what is empty is left out."""
    texts = {is_address: ";".join(str(entry) for entry in user.senders if (entry.kind == "address") == is_address) for is_address in (0, 1)}
    whole: dict[str, Any] = {
        "name": user.name,
        "list": user.list,
        "active": user.active,
        "note": user.note,
        "domains": texts[0],
        "senders": texts[1],
        "allow_any": user.allow_any,
        "password": str(user.password),
        "scram": "" if user.scram is None else str(user.scram),
        "created_at": user.created_at,
        "settings": settings_record(user.settings),
        "entries": {str(entry): msgspec.to_builtins(_entry(entry)) for entry in user.senders},
    }
    return {name: value for name, value in whole.items() if value not in ("", {}, False) or name == "active"}


def settings_record(settings: Settings) -> dict[str, str]:
    """The settings that are set, as text."""
    return {name: forms.write(name, value) for name in NAMES if (value := getattr(settings, name)) is not None}


def ordered(user: User) -> User:
    """The user with domains before senders, in which order they are written and read."""
    return msgspec.structs.replace(user, senders=tuple(sorted(user.senders, key=lambda entry: entry.kind == "address")))


def _entry(entry: Sender) -> Entry:
    return Entry(entry.verified, entry.provenance, entry.verified_at, entry.verified_by, entry.created_at)


def _verified(entry: Sender, detail: Entry | None) -> Sender:
    if detail is None:
        return entry
    return msgspec.structs.replace(entry, **msgspec.structs.asdict(detail))


def _details(value: Any) -> dict[str, Entry]:
    if isinstance(value, str):
        value = json.loads(value)
    found = msgspec.convert(value, dict[str, Entry])
    for name, entry in found.items():
        if entry.verified != bool(entry.provenance) or entry.provenance not in ("", *PROVENANCES):
            raise FieldError(f'"{name}" must have a provenance if it is verified, one of {", ".join(PROVENANCES)}, and none if it is not')
        if not entry.verified_by.isprintable():
            raise FieldError(f'verified_by of "{name}" has a control character; take it out')
        for at in (entry.created_at, entry.verified_at or 0.0):
            _time(at)
    return found


def _text(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        if not isinstance(value, str):
            raise _NoText
        return read(value)

    return checked


def _no_text(name: str, value: Any) -> str:
    """What to write for a field that must be a string and is something else."""
    whole = "; ".join(map(str, value)) if isinstance(value, list) else _shown(value)
    remedy = f': write {name} = "{printable(whole)}"' if len(whole) <= _SHOWN else ""
    return f'"{name}" must be a string, not {_shown(value)}{remedy}'


def _switch(value: Any) -> bool:
    return value if isinstance(value, bool) else bool(forms.parse("require_verified", _text(str)(value)))


def _time(value: Any) -> float:
    try:
        at = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        at = -1.0
    if not 0 <= at <= LAST:  # NaN is neither
        raise FieldError(f"{_shown(value)} is no time in seconds since 1970, from 0 to {LAST}")
    return at


def _shown(value: Any) -> str:
    """A value as it was written, or nearly; cut to what fits on a line."""
    text = f'"{value}"' if isinstance(value, str) else hex(value) if isinstance(value, int) and value > LAST else str(value)
    return printable(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _scram(text: str) -> str:
    return str(passwords.Scram.parse(text))


def _setting(name: str, value: Any) -> Any:
    """A setting from its text, or from what TOML has for it."""
    if isinstance(value, bool):
        value = "yes" if value else "no"
    elif isinstance(value, list):
        value = ";".join(map(str, value)) or forms.NOBODY
    elif not isinstance(value, (str, int, float)):
        raise FieldError(f"{_shown(value)} is no value of a setting")
    return forms.parse(name, str(value))
