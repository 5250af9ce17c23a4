"""TLS as a client: verified against the peer's name where the route asks for that, else encrypted without proof of who it is.

Opportunistic TLS (RFC 7435) takes any certificate, for the alternative is plaintext; `verify` takes none but a trusted one for the
very name that was connected to (RFC 6125, by service-identity). TLS 1.2 and later in both cases.
"""

from __future__ import annotations

import functools

from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

KNOWN_HOSTS = 1024  # hosts whose settings are remembered


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._host and not isIPAddress(self._host) and not isIPv6Address(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))  # RFC 6066 §3
        return connection


class Contexts:
    """Makes what `startTLS` wants. `trust` is the authority that `verified` trusts; None: the platform's."""

    def __init__(self, trust: Certificate | None = None) -> None:
        self._trust = trust
        self._unverified = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2).getContext()
        self.verified = functools.lru_cache(maxsize=KNOWN_HOSTS)(self._verified)

    def unverified(self, host: str) -> IOpenSSLClientConnectionCreator:
        """Settings that take any certificate; `host` is named to the peer (SNI)."""
        return _Unverified(self._unverified, host)

    def _verified(self, host: str) -> IOpenSSLClientConnectionCreator:
        """Settings that take only a trusted certificate for `host`, a name or an IP address."""
        return optionsForClientTLS(host, trustRoot=self._trust)
