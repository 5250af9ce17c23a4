"""`smtpplus dkim`: the keys that sign mail, and the DNS records that tell the world about them.

A private key is never printed. DNS is asked outside of transactions.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterator, Literal, Sequence

import click

from smtpplus.mail.command_line import quoted
from smtpplus.operation.cli import Operation, Refused, console, date, print_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.config import Endpoint
    from smtpplus.delivery.keys import StoredKey

Kind = Literal["rsa", "ed25519", "both"]
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_domain = click.argument("domain")
_selector = click.option("--selector", metavar="S", help="Only the key with this selector.")


@click.group()
def dkim() -> None:
    """Keys that sign mail (DKIM). Mail is signed by the keys of the domain in its From: of each algorithm, by the newest in use."""


@dkim.command()
@_domain
@click.option("--selector", metavar="S", help="The key's name in DNS; else smtpplus with year and month.")
@click.option(
    "--algorithm", type=click.Choice(["rsa", "ed25519", "both"]), default="rsa", show_default=True, help="Not every receiver knows ed25519."
)
@click.option(
    "--wait", is_flag=True, help="Let it sign only after `smtpplus dkim check` has found its record: for a key that replaces another."
)
@_json
@click.pass_obj
def add(operation: Operation, /, *, domain: str, selector: str | None, algorithm: Kind, wait: bool, as_json: bool) -> None:
    """Make a key for a domain, or one of each algorithm, and print the DNS record to publish."""
    from smtpplus.delivery import keys

    now = time.time()
    name = selector or time.strftime("smtpplus%Y%m", time.gmtime(now))
    with _transaction(operation) as connection:
        made = keys.add_keys(connection, domain, selector=name, algorithm=algorithm, now=now, active=not wait)
    if as_json:
        print_json([_as_json(key) for key in made])
        return
    for key in made:
        click.echo(f"The {key.algorithm} key {key.selector} for {key.domain} was made. Publish:\n")
        click.echo(f"{_zone_line(key)}\n")
    when = "It signs as soon as the check has found it" if wait else "It signs from now on"
    click.echo(f"{when}; then run: smtpplus dkim check {quoted(made[0].domain)}")


@dkim.command("list")
@click.argument("domain", required=False)
@_json
@click.pass_obj
def list_keys(operation: Operation, domain: str | None, as_json: bool) -> None:
    """List the keys, of all domains or of one."""
    from smtpplus.delivery import keys

    with _transaction(operation, reading=True) as connection:
        found = keys.list_keys(connection, domain)
    if as_json:
        print_json([_as_json(key) for key in found])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("Domain", "Selector", "Algorithm", "State", "Made")
    for key in found:
        state = "in use" if key.active else "waiting"
        table.add_row(*(Text(cell) for cell in (key.domain, key.selector, key.algorithm, state, date(key.created_at))))
    console().print(table)


@dkim.command()
@_domain
@_selector
@_json
@click.pass_obj
def show(operation: Operation, domain: str, selector: str | None, as_json: bool) -> None:
    """Print the DNS records of a domain's keys as lines of a zone."""
    from smtpplus.delivery import keys

    with _transaction(operation, reading=True) as connection:
        found = keys.get_keys(connection, domain, selector)
    if as_json:
        print_json([_as_json(key) for key in found])
        return
    for key in found:
        click.echo(_zone_line(key))


@dkim.command()
@_domain
@_selector
@_json
@click.pass_obj
def remove(operation: Operation, domain: str, selector: str | None, as_json: bool) -> None:
    """Remove the keys of a domain, or one of them. Leave its record in DNS for a week: mail on its way still needs it."""
    from smtpplus.delivery import keys

    with _transaction(operation) as connection:
        gone = keys.get_keys(connection, domain, selector)
        keys.remove_keys(connection, gone)
    if as_json:
        print_json({"removed": [key.name for key in gone]})
        return
    for key in gone:
        click.echo(f"The key {key.selector} of {key.domain} was removed.")


@dkim.command()
@_domain
@_selector
@_json
@click.pass_obj
def check(operation: Operation, domain: str, selector: str | None, as_json: bool) -> None:
    """Look in DNS for the records of a domain's keys. A key that waited for its record signs from now on."""
    from smtpplus.delivery import keys

    with _transaction(operation, reading=True) as connection:
        found = keys.get_keys(connection, domain, selector)
    looked = [(key, *look(key, operation.configuration.dns.servers)) for key in found]
    begin = [key for key, state, _ in looked if state == "published" and not key.active]
    if begin:
        with _transaction(operation) as connection:
            keys.put_to_use(connection, begin)
    if as_json:
        print_json([{**_as_json(key), "active": key.active or key in begin, "state": state, "remedy": say} for key, state, say in looked])
    for key, state, say in () if as_json else looked:
        click.echo(f"{key.name}: {state}" + (f". {say}." if say else ", and signs from now on." if key in begin else "."))
    if any(state != "published" for _, state, _ in looked):
        raise click.exceptions.Exit(1)


def look(key: StoredKey, servers: Sequence[Endpoint]) -> tuple[str, str]:
    """What DNS says about a key: published | missing | other | fault, and what to do about it."""
    from smtpplus.mail.dkim import published_key
    from smtpplus.operation.txt import LookupFault, look_up

    try:
        texts = look_up(key.name, servers)
    except LookupFault as fault:
        return "fault", f"{fault}; try again later"
    found = [published for published in map(published_key, texts) if published != ("", "")]
    if not found:
        return "missing", f"Publish the record that `smtpplus dkim show {quoted(key.domain)}` prints"
    if len(found) > 1:
        return "other", "There are several records of which one must go"
    if found[0] != published_key(key.record()):
        return "other", f"The record has another key; publish the one that `smtpplus dkim show {quoted(key.domain)}` prints"
    return "published", ""


def _zone_line(key: StoredKey) -> str:
    from smtpplus.mail.dkim import strings

    text = " ".join(f'"{each}"' for each in strings(key.record()))
    return f"{key.name}. IN TXT ( {text} )"


def _as_json(key: StoredKey) -> dict[str, Any]:
    return {
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm,
        "active": key.active,
        "created_at": key.created_at,
        "record": key.name,
        "value": key.record(),
    }


@contextmanager
def _transaction(operation: Operation, *, reading: bool = False) -> Iterator[Connection]:
    """As of `operation`; what cannot be done with keys is a refusal too."""
    from smtpplus.delivery.keys import KeyFault, KeyUsage

    try:
        with operation.transaction(reading=reading) as connection:
            yield connection
    except KeyUsage as fault:
        raise click.UsageError(f"{fault}.") from None
    except KeyFault as fault:
        text = str(fault)
        raise Refused(f"{text[:1].upper()}{text[1:]}.") from None
