"""Settings as people write and read them: `--message-size "10 MiB"`, `--unauthorized inherit`.

`parse` reads the text of one setting, `write` writes a value so that it can be read again, `show` writes it for people, and `changed`
puts values into a `Settings`. What is not right raises
FieldError, a sentence that says what to write instead.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

import msgspec

from smtpplus.accounts import fields
from smtpplus.accounts.fields import FieldError
from smtpplus.accounts.settings import LARGEST, NAMES, Settings
from smtpplus.config.values import rate_text, rates, size
from smtpplus.mail.reply import printable

INHERIT = "inherit"  # what people write to unset
NOBODY = "nobody"  # alerts to no address, where the list or the server has some


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """`settings` with some values set, or unset where the value is None. FieldError if one is not what it must be."""
    unknown = changes.keys() - set(NAMES)
    if unknown:
        raise FieldError(f'there is no setting "{min(unknown)}"; there are {", ".join(NAMES)}')
    values = {name: getattr(settings, name) for name in NAMES} | dict(changes)
    try:
        return msgspec.convert({name: value for name, value in values.items() if value is not None}, Settings)
    except msgspec.ValidationError as error:
        raise FieldError(f"a setting is not what it must be: {error}") from None


def parse(name: str, text: str) -> Any:
    """The value of the setting `name` as people write it; None for "inherit". FieldError."""
    if text.strip().lower() == INHERIT:
        return None
    return _FORMS[name][0](text.strip())


def write(name: str, value: Any) -> str:
    """A value as `parse` reads it."""
    if name == "message_size":
        return f"{value} B"
    if name == "alerts":
        return ";".join(value) or NOBODY
    if name in ("per_user", "per_list"):
        return value or "0"
    return show(name, value) if isinstance(value, (bool, str)) else str(value)


def show(name: str, value: Any) -> str:
    """A value as people read it."""
    return _FORMS[name][1](value)


def _mode(text: str) -> str:
    if text.lower() not in ("block", "alert"):
        raise FieldError(f'"{printable(text)}" is no mode; write "block" (refuse), "alert" (send it and raise an alert) or "inherit"')
    return text.lower()


def _switch(text: str) -> bool:
    found = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}.get(text.lower())
    if found is None:
        raise FieldError(f'"{printable(text)}" is neither yes nor no; write "yes", "no" or "inherit"')
    return found


def _level(text: str) -> int:
    return fields.priority(_number(text, 'a priority; there are 1 (highest) to 5, and "inherit"'))


def _count(text: str) -> int:
    number = _number(text, 'a number; write one such as 500, 0 for no limit, or "inherit"')
    if number > 1_000_000_000:
        raise FieldError(f"{number} is more than can be counted; write 0 for no limit")
    return number


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise FieldError(f'"{printable(text)}" is not {what}')
    return int(text)


def _size(text: str) -> int:
    if text.isascii() and text.isdigit() and not int(text):
        raise FieldError('a message has some size, so 0 cannot stand for "no limit"; write a large one such as "1 GiB", or "inherit"')
    try:
        octets = size(text)
    except ValueError as error:
        raise FieldError(f'{error}, or "inherit"') from None
    if octets > LARGEST:
        raise FieldError(f'"{printable(text)}" is more than can be counted; write one such as "1 GiB", or "inherit"')
    return octets


def _rates(text: str) -> str:
    if text == "0":
        return ""
    try:
        found = rate_text(text)
    except ValueError as error:
        raise FieldError(str(error)) from None
    if not found:
        raise FieldError('no rate is named; write some such as "500/h; 1 GiB/d", 0 for no limit, or "inherit"')
    return found


def _alerts(text: str) -> tuple[str, ...]:
    if text.lower() == NOBODY:
        return ()
    found = fields.recipients(text)
    if not found:
        raise FieldError(f'nobody is named; write addresses, "{NOBODY}" or "{INHERIT}"')
    return found


def _show_size(octets: int) -> str:
    for unit, many in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if octets >= many and octets % many == 0:
            return f"{octets // many} {unit}"
    return f"{octets} octets"


def _show_rates(text: str) -> str:
    periods = {60.0: "a minute", 3600.0: "an hour", 86_400.0: "a day"}
    shown = (f"{_show_size(amount) if unit == 'octets' else f'{amount} recipients'} {periods[span]}" for amount, span, unit in rates(text))
    return "; ".join(shown) or "no limit"


def _show_count(unit: str) -> Callable[[int], str]:
    return lambda count: f"{count} {unit}" if count else "no limit"


_FORMS: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "unauthorized": (_mode, str),
    "require_verified": (_switch, lambda value: "yes" if value else "no"),
    "priority": (_level, str),
    "ceiling": (_level, str),
    "budget": (_count, _show_count("messages an hour at levels 1 and 2")),
    "rate": (_count, _show_count("recipients a minute")),
    "quota": (_count, _show_count("recipients a day")),
    "per_user": (_rates, _show_rates),
    "per_list": (_rates, _show_rates),
    "message_size": (_size, _show_size),
    "alerts": (_alerts, lambda value: "; ".join(value) or NOBODY),
}
assert tuple(_FORMS) == NAMES
