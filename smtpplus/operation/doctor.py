"""`smtpplus doctor`: on a client's machine, which port of HOST to use; on the server, what is in order and what is not, with the remedy.

What never reached the server raises no alert there (B7): only the client's machine can tell that a firewall swallows a port, so HOST is
examined from where the mail client runs, and needs no configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation.cli import FaultyConfiguration, NoDatabase, Operation, Refused, print_json

if TYPE_CHECKING:
    from smtpplus.operation.health import Finding
    from smtpplus.operation.reach import Port

USUAL = "587, 465, 25, 2525, 26, 23, 1025, 5000"
SERVED = "23, 25, 26, 587, 1025-5000"  # where a server listens unless it is told otherwise
_MOST = 200  # ports tried


@click.command()
@click.argument("host", required=False)
@click.option("--ports", metavar="LIST", default=USUAL, show_default=True, help="With HOST: the ports to try.")
@click.option("--patience", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="With HOST: seconds for each step.")
@click.option("--domain", "domains", multiple=True, help="On the server: look at this sender domain alone. May be repeated.")
@click.option("--offline", is_flag=True, help="On the server: ask no name server, and open no session to a next hop.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_obj
def doctor(
    operation: Operation,
    /,
    *,
    host: str | None,
    ports: str,
    patience: float,
    domains: tuple[str, ...],
    offline: bool,
    as_json: bool,
) -> None:
    """Examine HOST from a mail client's machine: open ports, encryption, login. Without HOST: examine this server, and the smarthosts it
    logs in at."""
    if host is not None:
        _client(operation, host, ports, patience, as_json)
    else:
        _server(operation, tuple(map(_domain, domains)), as_json, offline=offline)


def _domain(text: str) -> str:
    """A domain as DNS is asked for it; wrong usage if it is none."""
    from smtpplus.mail.address import AddressError, normalize_domain

    try:
        return normalize_domain(text)
    except AddressError as error:
        raise click.UsageError(f"--domain: {error}.") from None


def _client(operation: Operation, host: str, text: str, patience: float, as_json: bool) -> None:
    import msgspec

    from smtpplus.config import values
    from smtpplus.operation.reach import best, probe

    try:
        numbers = [port for each in values.ports(text) for port in range(each.first, each.last + 1)]
    except ValueError as error:
        raise click.UsageError(f"--ports: {error}.") from None
    if len(numbers) > _MOST:
        raise click.UsageError(f"--ports: {len(numbers)} ports are too many; name {_MOST} at most.")
    found = probe(host, numbers, patience)
    chosen = best(found)
    served, sentence = _served(operation)
    if as_json:
        told: dict[str, Any] = {"host": host, "use": None if chosen is None else chosen.port, "served": served}
        print_json({**told, "ports": [msgspec.to_builtins(each) for each in found]})
    else:
        for each in found:
            click.echo(_line(each))
        for line in _advice(found, chosen, host, sentence):
            click.echo(line)
    if chosen is None:
        raise click.exceptions.Exit(1)


def _served(operation: Operation) -> tuple[str, str]:
    """The configured ports where there is a configuration, else those that a server has by itself (B5), and a sentence about them."""
    try:
        ports = ", ".join(str(each) for block in operation.configuration.listen for each in block.ports)
    except FaultyConfiguration:
        return SERVED, f"Ports that smtpplus serves, unless it is configured otherwise: {SERVED}"
    return ports, f"Ports that smtpplus is configured to serve: {ports}"


def _line(found: Port) -> str:
    if found.state != "open":
        meaning = {
            "refused": "refused: nothing listens there",
            "filtered": "filtered: a firewall on the way swallows it",
            "unreachable": "unreachable",
        }
        return f"✗ port {found.port}: {meaning[found.state]}" + (f" ({found.fault})" if found.fault else "")
    if not found.smtp:
        return f"✗ port {found.port}: open, but no mail server answers" + (f" ({found.fault})" if found.fault else "")
    tls = {"starttls": "STARTTLS", "implicit": "TLS from the start", "": "no encryption"}[found.tls]
    shown = [tls + (f" ({found.version})" if found.version else ""), f"certificate {found.certificate}" if found.certificate else ""]
    shown.append(f"login by {', '.join(found.auth)}" if found.auth else "no login offered")
    mark = "✓" if found.usable else "✗"
    return f"{mark} port {found.port}: open; {'; '.join(part for part in shown if part)}" + (f"; {found.fault}" if found.fault else "")


def _advice(found: list[Port], chosen: Port | None, host: str, served: str) -> Iterator[str]:
    if chosen is not None:
        how = {"starttls": "with STARTTLS", "implicit": "with SSL/TLS", "": "without encryption"}[chosen.tls]
        yield f"Use port {chosen.port} {how}, and log in with user and password."
        if chosen.tls and chosen.certificate != "valid":
            yield f"The certificate is not trusted here ({chosen.certificate}), and mail clients ask; its operator can name a better one."
    elif any(each.tls and each.fault for each in found if each.smtp):
        yield "A mail server answers, but its encryption does not work: ask its operator."
    elif any(each.smtp for each in found):
        yield "A mail server answers, but offers no login on these ports: ask its operator."
    elif all(each.state == "unreachable" for each in found):
        yield f"{host} cannot be reached: check its name and this machine's network."
    elif any(each.state == "filtered" for each in found):
        yield "A firewall between here and the server swallows these ports. Try others with --ports, or ask who runs the network."
    elif any(each.state == "open" for each in found):
        yield f"No mail server answers on these ports of {host}: another program has those that are open. Try others with --ports."
    else:
        yield f"Nothing listens on these ports of {host}."
    if not all(each.usable for each in found):
        yield f"{served}. What never reaches the server raises no alert there."


def _server(operation: Operation, domains: tuple[str, ...], as_json: bool, *, offline: bool) -> None:
    import msgspec

    findings = list(_findings(operation, domains, offline=offline))
    bad = [each for each in findings if each.good is False]
    if as_json:
        print_json({"good": not bad, "findings": [msgspec.to_builtins(each) for each in findings]})
    else:
        for each in findings:
            mark = {True: "✓", False: "✗", None: "·"}[each.good]
            click.echo(f"{mark} {each.part}: {each.text}" + (f". Remedy: {each.remedy}." if each.remedy else ""))
    if bad:
        raise click.exceptions.Exit(1)


def _findings(operation: Operation, domains: tuple[str, ...], *, offline: bool) -> Iterator[Finding]:
    from smtpplus.config import database_url
    from smtpplus.operation import health
    from smtpplus.operation.domains import sender_domains
    from smtpplus.storage.engine import database_file

    try:
        configuration = operation.configuration
    except FaultyConfiguration as fault:
        for sentence in fault.message.splitlines():
            yield health.Finding("configuration", False, sentence.rstrip("."), "correct the file; smtpplus config check looks again")
        return
    yield health.Finding("configuration", True, "it can be read")
    asked: list[str] = []
    keys, process = (), 0
    try:
        with operation.transaction(reading=True) as connection:
            yield health.Finding("database", True, "it can be used")
            yield from _looked("daemon", lambda: health.daemon(connection))
            yield from _looked("alerts", lambda: health.alerts(connection, time.time()))
            yield from _looked("trusted networks", lambda: health.trusted(configuration, connection))
            yield from _looked("route", lambda: health.routes(configuration, connection, operation.router.destination))
            asked = sender_domains(connection)
            keys = _keys(connection)
            process = health.running(connection)
    except NoDatabase as fault:
        yield health.Finding("database", False, "there is none yet", fault.message.partition(". ")[2].rstrip("."))
    except Refused as fault:
        if database_file(database_url(configuration)) is None:
            remedy = "look whether the server runs and lets us in; the daemon's log and the server's may say more"
        else:
            remedy = "look whether the file is there, whole, and readable for who runs this; the daemon's log may say more"
        yield health.Finding("database", False, fault.message.rstrip("."), remedy)
    if process:
        yield from _looked("mail", lambda: health.ready(configuration))
    certificate = Path(configuration.tls.certificate or configuration.state_directory / "certificate.pem")
    yield from _looked("ports", lambda: health.ports(configuration))
    yield from _looked("certificate", lambda: health.certificates(configuration, certificate, time.time()))
    yield from _looked("disk", lambda: health.disk(configuration))
    yield from _looked("clock", health.clock)
    yield from _looked("file descriptors", lambda: health.descriptors(configuration, process))
    yield from _looked("mail log", lambda: health.mail_log(configuration, process))
    if not offline:
        yield from _elsewhere(operation, list(domains) or asked, keys)


def _elsewhere(operation: Operation, asked: list[str], keys: Any) -> Iterator[Finding]:
    """What others are asked for: next hops and name servers."""
    from smtpplus.operation import domains, health, smarthosts

    configuration = operation.configuration
    yield from _looked("smarthost", lambda: smarthosts.sessions(operation.router, configuration))
    yield from _looked("host name", lambda: health.own_name(configuration))
    yield from domains.look(asked, keys, configuration.dns.servers, configuration.hostname)


def _keys(connection: Any) -> Any:
    from smtpplus.delivery.keys import list_keys

    return list_keys(connection)


def _looked(part: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a part; what it could not look at is one."""
    from smtpplus.operation.health import Finding

    try:
        yield from look()
    except (OSError, ValueError) as fault:
        yield Finding(part, None, f"it could not be looked at: {fault}")
