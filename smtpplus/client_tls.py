"""TLS as a client: verified against the peer's name where the route asks for that, else encrypted without proof of who it is.

Opportunistic TLS (RFC 7435) takes any certificate, for the alternative is plaintext; `verify` takes none but a trusted one for the
very name that was connected to (RFC 6125, by service-identity). TLS 1.2 and later in both cases.

Invariant: a verified handshake ends only if the certificate was looked at and found to be the peer's; whatever goes wrong in looking
fails it. (Twisted's own `optionsForClientTLS` takes a certificate that has no name at all, or a malformed one: it logs the exception.)
"""

from __future__ import annotations

import functools
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, platformTrust
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer


class WrongName(Exception):
    """The certificate is for somebody else, or for nobody."""


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._host and self._host.isascii() and not _is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))  # RFC 6066 §3
        return connection


@implementer(IOpenSSLClientConnectionCreator)
class _Verified:
    def __init__(self, context: SSL.Context, host: str) -> None:
        """ValueError if `host` is neither a host name nor an address."""
        self._context = context
        self._host = host
        self._wanted = IPAddress_ID(host) if _is_address(host) else DNS_ID(host)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if isinstance(self._wanted, DNS_ID):
            connection.set_tlsext_host_name(self._wanted.hostname)  # RFC 6066 §3

        def looked_at(connection: SSL.Connection, certificate: X509, error: int, depth: int, trusted: int) -> bool:
            """Whether the chain is good so far; of the peer's own certificate (depth 0) the name counts too."""
            if depth or not trusted:
                return bool(trusted)
            try:
                verify_service_identity(extract_patterns(certificate), [self._wanted], [])
            except Exception:  # not only VerificationError: a certificate without a usable name is a CertificateError
                tlsProtocol.failVerification(Failure(WrongName(f"its certificate is not for {self._host}")))
                return False
            return True

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, looked_at)
        return connection


class Contexts:
    """Makes what `startTLS` wants. `trust` is the authority that `verified` trusts; None: the platform's."""

    def __init__(self, trust: Certificate | None = None) -> None:
        self._trust = trust
        self._unverified = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2).getContext()

    def unverified(self, host: str) -> IOpenSSLClientConnectionCreator:
        """Settings that take any certificate; `host` is named to the peer (SNI)."""
        return _Unverified(self._unverified, host)

    def verified(self, host: str) -> IOpenSSLClientConnectionCreator:
        """Settings that take only a trusted certificate for `host`, a name or an IP address. ValueError if it is neither."""
        return _Verified(self._verified, host)

    @functools.cached_property
    def _verified(self) -> SSL.Context:
        trust: Any = self._trust or platformTrust()
        return CertificateOptions(trustRoot=trust, raiseMinimumTo=TLSVersion.TLSv1_2).getContext()


def _is_address(host: str) -> bool:
    return isIPAddress(host) or isIPv6Address(host)
