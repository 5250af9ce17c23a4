"""Whose certificate tls = "verify" takes: that of the very host, and no other, whatever is wrong with it."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.ssl import Certificate

from smtpplus.config import Route
from smtpplus.mail.disposition import Disposition
from tests.delivery.name_server import NameServer, a
from tests.delivery.peer import EHLO, Line, Peer
from tests.delivery.rig import DeliveryCase, reactor, request, said

OFFERS = EHLO.replace("250-PIPELINING", "250-AUTH PLAIN\r\n250-REQUIRETLS\r\n250-PIPELINING")
HOST = "mx.example"


def trusted(folder: Path, common_name: str, *alternatives: x509.GeneralName) -> tuple[Path, Certificate]:
    """A PEM file of key and chain, and the authority that signed it."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root, leaf = (
        x509.CertificateBuilder(
            name("root"), name(subject), each.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1)
        )
        for subject, each in (("root", root_key), (common_name, key))
    )
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if alternatives:
        leaf = leaf.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    path = folder / "peer.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = serialization.Encoding.PEM
    path.write_bytes(private + leaf.sign(root_key, hashes.SHA256()).public_bytes(pem))
    return path, Certificate.loadPEM(root.sign(root_key, hashes.SHA256()).public_bytes(pem))


class IdentityTests(DeliveryCase):
    def setUp(self) -> None:
        self.directory = self.folder()
        self.directory.mkdir()
        self.server = NameServer(reactor, {host: [a("127.0.0.1")] for host in (HOST, "a." + HOST)})
        self.addCleanup(self.server.stop)

    async def attempt(self, alternatives: list[x509.GeneralName], *, require_tls: bool = False, host: str = HOST) -> Disposition:
        """A message to `host`, which wants a password and has a trusted certificate, with HOST as the common name, for `alternatives`."""
        path, trust = trusted(self.directory, HOST, *alternatives)
        (self.directory / "password").write_text("secret")

        def script(line: Line) -> None:
            line.greet_encrypted(path, OFFERS)
            line.command("AUTH")
            line.send("235 welcome\r\n")
            line.message()
            line.gone()

        with Peer(script) as self.peer:
            via, file = f"smtp://{host}:{self.peer.port}", str(self.directory / "password")
            route = Route(via=via, username="ann", password_file=file)
            delivery = self.make(route, tls="opportunistic" if require_tls else "verify", trust=trust, dns=(self.server.address,))
            wanted = request(delivery.router.destination("b.example"), require_tls=require_tls)
            [disposition] = await self.send(delivery, wanted)
            await delivery.stop()
        return disposition

    async def test_the_name_is_the_hosts(self) -> None:
        """A trusted certificate for the host, by name or by a wildcard of its domain, is taken, and the password sent."""
        for name, to in ((HOST, HOST), ("*." + HOST, "a." + HOST)):
            assert said([await self.attempt([x509.DNSName(name)], host=to)]) == [("bob@b.example", 250, "delivered")]

    async def test_no_other_certificate_is_taken(self) -> None:
        """One that has no usable name, or a malformed or foreign one, ends the session before anything is sent, for REQUIRETLS too."""
        cases: list[tuple[list[x509.GeneralName], str]] = [
            ([], HOST),  # the common name alone counts for nothing
            ([x509.RFC822Name("ann@mx.example")], HOST),
            ([x509.DNSName("*.example")], HOST),
            ([x509.DNSName("m*.mx.*")], HOST),
            ([x509.DNSName("127.0.0.1")], "127.0.0.1"),
            ([x509.DNSName("other.example")], HOST),
            ([x509.UniformResourceIdentifier("smtp://mx.example")], HOST),
        ]
        for alternatives, host in cases:
            for require_tls in (False, True):
                found = await self.attempt(alternatives, require_tls=require_tls, host=host)
                assert (said([found]), "its certificate is not for " + host in found.reply.text) == (
                    [("bob@b.example", 454, "tls_failed")],
                    True,
                )
                [line] = self.peer.lines
                assert line.received.endswith(b"STARTTLS\r\n")
        assert self.flushLoggedErrors() == []
