"""`smtpplus render`: a message's header as mail clients show it, the priority they show, and what is wrong with its encoding (B9, B10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import click

from smtpplus.operation.cli import Refused, print_json

if TYPE_CHECKING:
    from smtpplus.mail.header import Header

_SHOWN = ("from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id")
_MOST = 1_048_576  # octets read
_LOOKS = {
    1: "very high: marked as important",
    2: "high: marked as important",
    3: "normal: not marked",
    4: "low: marked as unimportant",
    5: "very low: marked as unimportant",
}


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--user-level", type=click.IntRange(1, 5), default=3, show_default=True, help="The priority of the user who will send it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def render(file: BinaryIO, user_level: int, as_json: bool) -> None:
    """Show the header of a message (FILE, or - for standard input) as its recipient's mail client will; exit status 1 if it has faults.

    A file with no header field at all is taken as a subject to be tried.
    """
    told = rendered(file.read(_MOST), user_level)
    if as_json:
        print_json(told)
    else:
        _print(told)
    if told["faults"]:
        raise SystemExit(1)


def rendered(octets: bytes, user_level: int) -> dict[str, Any]:
    """What is shown, as a value: fields, level, faults."""
    from smtpplus.mail import priority
    from smtpplus.mail.header import decoded
    from smtpplus.operation.lint import field_faults

    header = _header(octets)
    names = [name for name in _SHOWN if header.has(name)]
    names += sorted({field.name for field in header.fields if b"=?" in field.raw} - set(names))
    said = {name: header.values(name) for name in priority.PRIORITY_FIELDS if header.has(name)}
    asked = priority.message_level(said)
    level = priority.effective(user_level, asked)
    subject = next((field.raw for field in header.fields if field.name == "subject"), b"")
    faults = [(field.name, fault) for field in header.fields for fault in field_faults(field.raw)]
    return {
        "fields": [{"name": name, "value": _clean(decoded(value))} for name in names for value in header.values(name)],
        "asked_level": asked,
        "level": level,
        "shown_as": _LOOKS[level],
        "priority_fields": [{"name": name, "value": value} for name, value in priority.display_fields(level)],
        "better_subject": _better(decoded(header.values("subject")[0])) if field_faults(subject) else None,
        "faults": [{"field": name.title(), "fault": fault} for name, fault in faults],
    }


def _header(octets: bytes) -> Header:
    from smtpplus.mail.header import Header, find_header_end
    from smtpplus.mail.reasons import Refusal

    text = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    first = text.partition(b"\r\n")[0]
    name, colon, _ = first.partition(b":")
    if first.strip() and (not colon or not name.strip() or b" " in name.strip() or b"=?" in name):
        text = b"Subject: " + first.strip() + b"\r\n\r\n"
    end = find_header_end(text)
    try:
        return Header.parse(text[:end] if end >= 0 else text.rstrip(b"\r\n") + b"\r\n\r\n")
    except Refusal as refusal:
        raise Refused(f"The message would be refused: {refusal.reply}.") from None


def _clean(text: str) -> str:
    from smtpplus.mail.reply import printable

    return printable(text)


def _better(text: str) -> str:
    """A subject as it should have been written."""
    from smtpplus.mail.header import encode_field

    raw = f"Subject: {_clean(text)}\r\n".encode("utf-8", "replace")
    return encode_field(raw).decode("ascii", "replace").partition(":")[2].replace("\r\n", "").strip()


def _print(told: dict[str, Any]) -> None:
    for field in told["fields"]:
        click.echo(f"{field['name'].title()}: {field['value']}")
    asked = "the message asks for none" if told["asked_level"] is None else f"the message asks for {told['asked_level']}"
    click.echo(f"Priority: {told['level']}, {told['shown_as']} ({asked})")
    for fault in told["faults"]:
        click.echo(f"Fault in {fault['field']}: {fault['fault']}")
    if told["better_subject"]:
        click.echo(f"Right would be: Subject: {told['better_subject']}")
    if not told["faults"]:
        click.echo("The encoding is in order.")
