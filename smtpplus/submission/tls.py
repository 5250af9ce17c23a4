"""TLS for clients: OpenSSL contexts from PEM files, and a self-signed certificate where none is configured.

Whoever starts the daemon without a certificate gets one of his own, P-256, in the state directory, made once; the key is readable by
its owner only from its first octet. Sessions share the context; `reload` swaps it, and sessions under way keep theirs. Failure:
TLSError, a sentence that names the file.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import itertools
import os
from pathlib import Path
from typing import Callable, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from smtpplus.config import Configuration
from smtpplus.storage import ownership

CERTIFICATE = "certificate.pem"  # in the state directory
PRIVATE_KEY = "private_key.pem"
_CHAIN, _KEY = "fullchain.pem", "privkey.pem"  # as certbot names them in /etc/letsencrypt/live/NAME
LIFETIME = datetime.timedelta(days=3650)  # of a self-signed certificate: nobody checks it, and nobody renews it
_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!eNULL"  # for TLS 1.2, RFC 9325 §4.2


class TLSError(Exception):
    """Certificate or key cannot be used; the text is a sentence for the operator."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """What makes a server's connections of OpenSSL. Hand it to `startTLS`.

    `directory` has more certificates, in a directory each: a client that names a host that one of them is for gets that one (SNI).
    """

    _session_id: ClassVar[bytes] = b"smtpplus"  # resumption works inside one kind of service only

    def __init__(self, certificate: Path, private_key: Path, minimum_version: str, directory: Path | None = None) -> None:
        self._certificate = certificate
        self._private_key = private_key
        self._minimum_version = minimum_version
        self._directory = directory
        self._context = self._load()

    def reload(self) -> None:
        """Read the files again, for the sessions to come. TLSError leaves what is in use untouched."""
        self._context = self._load()

    def stamp(self) -> tuple[tuple[str, int, int, int], ...]:
        """What tells whether files were changed: path, time, size and inode of each that is there."""
        found = []
        for path in (self._certificate, self._private_key, *itertools.chain.from_iterable(self._more())):
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection of the context in use."""
        return SSL.Connection(self._context, None)

    def _more(self) -> list[tuple[Path, Path]]:
        """Certificate and key of each directory in `directory` that has a certificate."""
        if self._directory is None:
            return []
        try:
            return [(path, path.with_name(_KEY)) for path in sorted(self._directory.glob(f"*/{_CHAIN}"))]
        except OSError as fault:
            raise TLSError(f"the directory {self._directory} cannot be read: {fault.strerror}") from None

    def _load(self) -> SSL.Context:
        """The context of our own certificate, which gives way to another where the client names its host."""
        if self._directory is not None and not self._directory.is_dir():
            raise TLSError(f"the directory {self._directory} of certificates is not there")
        context = self._make(self._certificate, self._private_key)
        named: dict[str, SSL.Context] = {}
        for certificate, key in self._more():
            more = self._make(certificate, key)
            for name in _names(certificate):
                named.setdefault(name, more)
        if named:

            def choose(connection: SSL.Connection) -> None:
                asked = (connection.get_servername() or b"").decode("ascii", "replace").lower()
                chosen = named.get(asked) or named.get("*." + asked.partition(".")[2])  # a wildcard is one label, RFC 6125 §6.4.3
                if chosen is not None:
                    connection.set_context(chosen)

            context.set_tlsext_servername_callback(choose)
        return context

    def _make(self, certificate: Path, private_key: Path) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(_VERSIONS[self._minimum_version])
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle session keeps no record buffers: 34 KiB less for each
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # sessions are resumed by tickets; nothing is kept for them
        context.set_cipher_list(_CIPHERS)
        context.set_session_id(self._session_id)
        _use(context.use_certificate_chain_file, certificate, "certificate")
        _use(context.use_privatekey_file, private_key, "private key", f"the certificate {certificate}")
        return context


def server_tls(configuration: Configuration, now: float) -> ServerTLS:
    """The TLS of `configuration`; makes the self-signed certificate if none is named and none was made. `now`: seconds since the epoch."""
    tls, state = configuration.tls, configuration.state_directory
    directory = state / tls.directory if tls.directory else None
    if tls.certificate:
        key = tls.private_key or tls.certificate  # one file may hold both
        return ServerTLS(Path(tls.certificate), Path(key), tls.minimum_version, directory)
    certificate, key_file = state / CERTIFICATE, state / PRIVATE_KEY
    if not (certificate.exists() and key_file.exists()):
        make_self_signed(configuration.hostname, certificate, key_file, now)
    return ServerTLS(certificate, key_file, tls.minimum_version, directory)


def _names(certificate: Path) -> list[str]:
    """The hosts that a certificate is for, in lower case. It could be loaded before."""
    leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names]


def make_self_signed(hostname: str, certificate: Path, private_key: Path, now: float) -> None:
    """Write a new P-256 key (mode 0600) and a certificate for `hostname`, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])  # ub-common-name, RFC 5280 appendix A.1
    start = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(hours=1)  # clients' clocks differ
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    signed = builder.sign(key, hashes.SHA256())
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(private_key, text, 0o600)
    _write(certificate, signed.public_bytes(serialization.Encoding.PEM), 0o644)


def _general_name(hostname: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(hostname))
    except ValueError:
        return x509.DNSName(hostname.encode("idna").decode("ascii"))


def _write(path: Path, octets: bytes, mode: int) -> None:
    """Write a file whole or not at all; it never exists with more permission than `mode`."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(ownership.make(fresh, mode), "wb") as stream:
        stream.write(octets)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def _use(load: Callable[[str], None], path: Path, what: str, partner: str = "") -> None:
    """Have OpenSSL `load` a file; TLSError. `partner` is what it must fit."""
    try:
        path.open("rb").close()
        load(str(path))
    except OSError as fault:
        raise TLSError(f"the {what} {path} cannot be read: {fault.strerror}") from None
    except SSL.Error as fault:
        if "mismatch" in str(fault):
            raise TLSError(f"the {what} {path} does not belong to {partner}") from None
        raise TLSError(f"{path} holds no {what} in PEM form") from None
