"""Asking DNS for TXT records and addresses, synchronously, for the command line.

An answer is the texts that are there, none if the name or the records are missing. Anything else, such as a server that fails or is silent,
says nothing about the domain and is a LookupFault.
"""

from __future__ import annotations

from typing import Sequence

import dns.exception
import dns.nameserver
import dns.resolver

from smtpplus.config import Endpoint
from smtpplus.mail.reply import printable

PATIENCE = 10.0  # seconds for all servers and retries together


class LookupFault(Exception):
    """DNS could not be asked; str() is a sentence."""


def look_up(name: str, servers: Sequence[Endpoint]) -> list[str]:
    """The TXT records of `name`, each in one piece (RFC 7208 §3.3) and fit to be shown. `servers` are asked; without any, the system's."""
    try:
        answer = _resolver(servers).resolve(f"{name}.", "TXT", search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except (dns.exception.DNSException, OSError) as fault:
        raise LookupFault(f"the TXT records of {name} cannot be looked up: {str(fault).rstrip('.')}") from None
    return [printable(b"".join(record.strings).decode("utf-8", "replace")) for record in answer]


def addresses(host: str, servers: Sequence[Endpoint]) -> list[str]:
    """The addresses of a host, as `servers` have them."""
    try:
        return list(_resolver(servers).resolve_name(f"{host}.").addresses())
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except (dns.exception.DNSException, OSError) as fault:
        raise LookupFault(f"the addresses of {host} cannot be looked up: {str(fault).rstrip('.')}") from None


def _resolver(servers: Sequence[Endpoint]) -> dns.resolver.Resolver:
    resolver = dns.resolver.Resolver(configure=not servers)
    if servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]
    resolver.lifetime = PATIENCE
    return resolver
