"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS as exchanges of AUTH (RFC 5802, RFC 7677), by the scramp library.

The password never comes; the client proves that it has it, to us by its verifier, and we prove that we have the verifier. A user that is
not there gets a verifier too, made of its name and a key of ours, so that it is the same each time and fits no password (RFC 5802
§9): what is answered, and what is done for the answer, does not tell whether a user exists. -PLUS binds the login to the TLS connection
by the hash of our certificate, `tls-server-end-point`; `tls-exporter` (RFC 9266) is what scramp does not do. Failure: Refusal for what is
no SCRAM; a wrong proof is a `Proof` that says so, for the portal to refuse.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import Any, Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from scramp import ScramException, ScramMechanism
from twisted.cred.credentials import ICredentials
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface, implementer

from smtpplus.accounts.passwords import SCRAM_ITERATIONS, Scram
from smtpplus.accounts.unknown import KEY
from smtpplus.mail import reasons
from smtpplus.storage import ownership

PLAIN, BOUND = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"
BINDING = "tls-server-end-point"  # RFC 5929 §4
_MECHANISMS = {name: ScramMechanism(name) for name in (PLAIN, BOUND)}
_LONGEST_NAME = 320  # characters of a user name worth looking up

Verifiers = Callable[[str], "Deferred[Scram]"]


class IVerifiers(Interface):
    """A checker that can give verifiers: where the portal has one, SCRAM is offered."""

    def verifier(name: str) -> Deferred[Scram]:
        """The verifier of a user, or one that fits no password; the same work for both."""


class IProof(ICredentials):
    """The end of an exchange by proof: `username` has shown that it knows its password if `right`."""

    username: bytes = Attribute("name of the user")
    right: bool = Attribute("whether the proof is one")


@implementer(IProof)
class Proof:
    """See IProof. `last` is what the server says at the end, to prove itself."""

    identity = b""  # scramp takes no proof from a client that wants to be another
    __slots__ = ("last", "mechanism", "right", "username")

    def __init__(self, username: str, mechanism: str, last: bytes | None) -> None:
        self.username = username.encode("utf-8")
        self.mechanism = mechanism
        self.right = last is not None
        self.last = last or b""


class ScramExchange:
    """One login. `binding` is the hash of the certificate that the client saw, None without TLS."""

    __slots__ = ("_binding", "_name", "_server", "_verifiers", "mechanism")

    def __init__(self, mechanism: str, verifiers: Verifiers, binding: bytes | None) -> None:
        self.mechanism = mechanism
        self._verifiers = verifiers
        self._binding = None if binding is None else (BINDING, binding)
        self._server: Any = None
        self._name = ""

    def step(self, response: bytes | None) -> bytes | Deferred[bytes] | Proof:
        """The empty challenge, then the server's first message, then the proof."""
        if response is None:
            return b""
        try:
            text = response.decode("utf-8")
            return self._first(text) if self._server is None else self._final(text)
        except (ScramException, UnicodeDecodeError):
            raise reasons.AUTH_MALFORMED.refusal() from None

    def _first(self, text: str) -> Deferred[bytes]:
        def named(name: str) -> tuple[bytes, bytes, bytes, int]:
            self._name = name[:_LONGEST_NAME]
            return _NOTHING

        # scramp looks users up without waiting: it reads the message once for the name, and again when the verifier is there
        _MECHANISMS[self.mechanism].make_server(named, channel_binding=self._binding).set_client_first(text)

        def found(verifier: Scram) -> bytes:
            known = (verifier.salt, verifier.stored_key, verifier.server_key, verifier.iterations)
            self._server = _MECHANISMS[self.mechanism].make_server(lambda _: known, channel_binding=self._binding)
            self._server.set_client_first(text)
            return str(self._server.get_server_first()).encode("ascii")

        return self._verifiers(self._name).addCallback(found)

    def _final(self, text: str) -> Proof:
        try:
            self._server.set_client_final(text)
        except ScramException:
            return Proof(self._name, self.mechanism, None)
        return Proof(self._name, self.mechanism, str(self._server.get_server_final()).encode("ascii"))


_NOTHING = (b"\0" * 16, b"", b"", SCRAM_ITERATIONS)


def pretended(key: bytes, name: str) -> Scram:
    """A verifier that fits no password, the same for a name each time."""
    salt, stored, server = (hmac.digest(key, b"%d %s" % (part, name.lower().encode("utf-8")), "sha256") for part in range(3))
    return Scram(SCRAM_ITERATIONS, salt[:16], stored, server)


def load_key(state_directory: Path) -> bytes:
    """The key for `pretended`, made at the first start; readable by its owner only."""
    path = state_directory / KEY
    try:
        return path.read_bytes()
    except FileNotFoundError:
        key = os.urandom(32)
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(ownership.make(fresh, 0o600), "wb") as stream:
            stream.write(key)
        fresh.replace(path)
        return key


def end_point(certificate: x509.Certificate) -> bytes:
    """What tls-server-end-point binds to: the certificate's hash, by the algorithm of its signature but SHA-256 at least."""
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.name in {"md5", "sha1"}:
        algorithm = hashes.SHA256()
    return certificate.fingerprint(algorithm)
