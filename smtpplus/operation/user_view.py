"""A user as commands show one: rows for people, JSON for programs. The note is for `show` alone (A8), password and hash for nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smtpplus.operation.cli import Operation, date

if TYPE_CHECKING:
    from rich.table import Table

    from smtpplus.accounts.settings import Effective
    from smtpplus.accounts.user import Sender, User

LABELS = {
    "unauthorized": "Unauthorized senders",
    "require_verified": "Senders must be verified",
    "priority": "Priority",
    "ceiling": "Highest priority",
    "budget": "Urgent mail",
    "rate": "Rate",
    "quota": "Quota",
    "per_user": "More limits",
    "per_list": "The whole list",
    "message_size": "Largest message",
    "alerts": "Alerts to",
}


def in_force(operation: Operation, user: User) -> Effective:
    """What is in force for a user."""
    from smtpplus.accounts.settings import effective, server_settings

    return effective(server_settings(operation.configuration), user.list_settings, user.settings)


def as_json(user: User, effective: Effective) -> dict[str, Any]:
    """A user for programs, with each setting in force and who sets it: "user", "list" or "server"."""
    return {
        "name": user.name,
        "list": user.list,
        "active": user.active,
        "priority": effective.priority,
        "domains": [_entry_json(entry) for entry in user.senders if entry.kind != "address"],
        "senders": [_entry_json(entry) for entry in user.senders if entry.kind == "address"],
        "allow_any": user.allow_any,
        "scram": user.scram is not None,
        "settings": {name: {"value": getattr(effective, name), "from": origin} for name, origin in effective.origins.items()},
        "created_at": user.created_at,
        "changed_at": user.changed_at,
    }


def overview(users: list[tuple[User, Effective]]) -> Table:
    """A row for each user."""
    from rich.table import Table
    from rich.text import Text

    table = Table("User", "List", "Active", "Mode", "Priority", "Domains", "Senders")
    for user, effective in users:
        cells = (user.name, user.list, _yes(user.active), effective.unauthorized, str(effective.priority))
        table.add_row(*map(Text, (*cells, entries(user, address=False), entries(user, address=True))))
    return table


def details(user: User, effective: Effective) -> Table:
    """Everything about one user, each setting with where it comes from."""
    from rich.table import Table
    from rich.text import Text

    from smtpplus.accounts import forms

    rows = [
        ("User", user.name),
        ("List", user.list),
        ("Active", _yes(user.active)),
        ("Domains", entries(user, address=False)),
        ("Senders", entries(user, address=True)),
        ("SCRAM-SHA-256", "yes" if user.scram is not None else "not until the password is reset"),
        ("Note", user.note),
        ("Added", date(user.created_at)),
        ("Changed", date(user.changed_at)),
    ]
    table = Table(show_header=False)
    for label, text in rows:
        table.add_row(label, Text(text), "")
    table.add_section()
    for name, origin in effective.origins.items():
        source = f"list {user.list}" if origin == "list" else origin
        table.add_row(LABELS[name], Text(forms.show(name, getattr(effective, name))), Text(f"from {source}"))
    return table


def entries(user: User, *, address: bool) -> str:
    """The user's authorized senders (`address`) or domains, for people."""
    chosen = (entry for entry in user.senders if (entry.kind == "address") == address)
    return "; ".join(str(entry) if entry.verified else f"{entry} (pending)" for entry in chosen)


def _entry_json(entry: Sender) -> dict[str, Any]:
    return {
        "value": str(entry),
        "verified": entry.verified,
        "provenance": entry.provenance,
        "verified_at": entry.verified_at,
        "verified_by": entry.verified_by,
        "created_at": entry.created_at,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"
