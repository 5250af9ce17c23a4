"""What DNS says about the domains that users send from: SPF, DKIM, DMARC (each finding with the record to publish)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from smtpplus.mail.command_line import quoted
from smtpplus.operation.health import Finding

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.config import Endpoint
    from smtpplus.delivery.keys import StoredKey

MOST = 50  # domains looked at


def sender_domains(connection: Connection) -> list[str]:
    """The domains users may send from, those of single addresses among them."""
    from sqlalchemy import select

    from smtpplus.storage.schema import senders

    rows = connection.execute(select(senders.c.value).distinct())
    return sorted({row.value.rpartition("@")[2] for row in rows})


def look(domains: Sequence[str], keys: Sequence[StoredKey], servers: Sequence[Endpoint], hostname: str) -> Iterator[Finding]:
    """Three findings for each domain."""
    from smtpplus.operation.txt import LookupFault

    for domain in domains[:MOST]:
        try:
            yield _spf(domain, servers, hostname)
            yield from _dkim(domain, keys, servers)
            yield _dmarc(domain, servers)
        except LookupFault as fault:
            yield Finding(domain, None, str(fault), "try again, or name DNS servers under [dns]")
    if len(domains) > MOST:
        yield Finding("domains", None, f"{len(domains) - MOST} more domains were not looked at", "name some: smtpplus doctor --domain NAME")


def _spf(domain: str, servers: Sequence[Endpoint], hostname: str) -> Finding:
    from smtpplus.operation.txt import look_up

    found = [text for text in look_up(domain, servers) if text.lower().split(" ")[0] == "v=spf1"]
    if not found:
        return Finding(domain, False, "SPF: there is no record", f'publish: {domain}. IN TXT "v=spf1 a:{hostname} ~all"')
    if len(found) > 1:
        return Finding(domain, False, "SPF: there are several records, which is an error (RFC 7208 §4.5)", "leave one")
    if found[0].lower().rstrip().endswith("+all"):
        return Finding(domain, False, "SPF: the record lets everybody send (+all)", "end it with ~all or -all")
    return Finding(domain, True, f"SPF: {found[0]}")


def _dkim(domain: str, keys: Sequence[StoredKey], servers: Sequence[Endpoint]) -> Iterator[Finding]:
    from smtpplus.operation.dkim import look

    own = [key for key in keys if key.domain == domain]
    if not own:
        yield Finding(domain, None, "DKIM: mail from here is not signed", f"smtpplus dkim add {quoted(domain)}, then publish its record")
    for key in own:
        state, remedy = look(key, servers)
        yield Finding(domain, state == "published" if state != "fault" else None, f"DKIM: the key {key.selector} is {state}", remedy)


def _dmarc(domain: str, servers: Sequence[Endpoint]) -> Finding:
    from smtpplus.operation.txt import look_up

    labels = domain.split(".")
    for start in range(max(1, len(labels) - 1)):
        name = ".".join(labels[start:])
        found = [text for text in look_up(f"_dmarc.{name}", servers) if text.lower().replace(" ", "").startswith("v=dmarc1")]
        if found:
            return Finding(domain, len(found) == 1, f"DMARC: {found[0]}", "" if len(found) == 1 else "leave one record")
    return Finding(
        domain, False, "DMARC: there is no record", f'publish: _dmarc.{domain}. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@{domain}"'
    )
