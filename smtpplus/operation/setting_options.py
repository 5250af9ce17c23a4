"""The options that set and unset what server, list and user may say: the same for `user` and `list`, add and edit."""

from __future__ import annotations

from typing import Any, Callable, Mapping, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = {  # setting: metavar and help; each may also be "inherit"
    "unauthorized": ("MODE", "What happens to mail of a sender that is not authorized: block or alert."),
    "require_verified": ("yes|no", "Whether a sender must be verified before it may be used."),
    "priority": ("1..5", "Priority of mail that says none itself: 1 highest, 5 lowest."),
    "ceiling": ("1..5", "The highest priority that mail may have, whatever it says."),
    "budget": ("COUNT", "Messages an hour at priorities 1 and 2; 0: no limit."),
    "rate": ("COUNT", "Recipients a minute; 0: no limit."),
    "quota": ("COUNT", "Recipients a day; 0: no limit."),
    "per_user": ("RATES", 'What one user may send besides, such as "500/h; 1 GiB/d": recipients or octets a minute, hour or day; 0: none.'),
    "per_list": ("RATES", "What all users of the list may send together, in the same way."),
    "message_size": ("SIZE", 'Largest message, such as "10 MiB".'),
    "alerts": ("LIST", 'Addresses that get alerts, separated by ";".'),
}
LIST_ALONE = frozenset(("per_list",))  # of no use to a single user


def setting_options(command: F) -> F:
    """Give a command an option for each setting; they arrive as texts, by name."""
    return _give(command, [*OPTIONS])


def user_setting_options(command: F) -> F:
    """The same for what may be set for a single user."""
    return _give(command, [name for name in OPTIONS if name not in LIST_ALONE])


def _give(command: F, names: list[str]) -> F:
    for name in reversed(names):
        metavar, text = OPTIONS[name]
        command = click.option(f"--{name.replace('_', '-')}", name, metavar=f"{metavar}|inherit", help=text)(command)
    return command


def settings_named(texts: Mapping[str, str | None]) -> dict[str, Any]:
    """The settings that were named, None for "inherit". To be called where FieldError becomes wrong usage."""
    from smtpplus.accounts import forms

    return {name: forms.parse(name, text) for name, text in texts.items() if text is not None}
