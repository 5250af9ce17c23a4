"""Certificates that change while the server runs, and the one that a client asks for by name; over real sockets."""

from __future__ import annotations

import ssl
import time
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from smtpplus.config import TLS, Configuration
from smtpplus.events import Fault
from smtpplus.submission import renewal
from smtpplus.submission.tls import ServerTLS, TLSError, make_self_signed, server_tls
from tests.submission.rig import Client, SessionCase, reactor

NOW = 1_800_000_000.0


class CertificateCase(SessionCase):
    """A listener whose certificate is ours to replace; `seen` is the name in the one that a client gets."""

    def setUp(self) -> None:
        super().setUp()
        self.certificate, self.key = self.directory_path / "c.pem", self.directory_path / "k.pem"
        self.make("first.example")
        self.patch(renewal, "LOOK", 0.05)

    def make(self, name: str) -> None:
        make_self_signed(name, self.certificate, self.key, NOW)

    def settings(self, **more: Any) -> TLS:
        return TLS(certificate=str(self.certificate), private_key=str(self.key), **more)

    def seen(self, asked: str | None = None) -> str:
        """The name in the certificate that a client gets who asks for the host `asked`."""
        client = Client(self.port)
        client.say("EHLO client.example", "STARTTLS")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(client.socket, server_hostname=asked) as wrapped:
            octets = wrapped.getpeercert(binary_form=True)
        assert octets is not None
        names = x509.load_der_x509_certificate(octets).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)[0]

    @inlineCallbacks
    def eventually(self, name: str) -> Any:
        """Wait until new clients see `name`."""
        for _ in range(200):
            if (yield self.during(self.seen)) == name:
                return
            yield deferLater(reactor, 0.05, lambda: None)
        self.fail(f"nobody ever saw {name}")


class RenewalTests(CertificateCase):
    """C10."""

    @inlineCallbacks
    def test_a_new_certificate_is_used_and_sessions_go_on(self) -> Any:
        """C10: the files change, new sessions get the new certificate, one that is under way goes on under the old."""
        self.serve(tls=self.settings())

        def begin() -> Client:
            client = Client(self.port)
            client.say("EHLO client.example", "STARTTLS")
            client.start_tls()
            return client

        client = yield self.during(begin)
        self.make("second.example")
        yield self.eventually("second.example")
        self.assertEqual((yield self.during(client.codes, "EHLO client.example", "NOOP")), ["250", "250 2.0.0"])
        client.close()

    @inlineCallbacks
    def test_a_faulty_certificate_changes_nothing(self) -> Any:
        """C10: a file that is none keeps the old one in use and is stated once; when it is mended it is used."""
        service = self.serve(tls=self.settings())
        self.certificate.write_text("junk")
        service.reload()
        self.assertEqual((yield self.during(self.seen)), "first.example")
        (fault,) = self.stated(Fault)
        self.assertIn("c.pem holds no certificate", fault.what)
        self.make("third.example")
        yield self.eventually("third.example")
        self.assertEqual(len(self.stated(Fault)), 1)

    @inlineCallbacks
    def test_a_file_that_is_being_written_is_left_alone(self) -> Any:
        """A key that does not fit its certificate yet is no fault before it has stayed so."""
        self.serve(tls=self.settings())
        watch = renewal.Renewal(ServerTLS(self.certificate, self.key, "1.2"), reactor, time.time, self.service.factories[0].events)  # type: ignore[union-attr]  # served
        self.certificate.write_text("half of it")
        watch.look()
        self.make("second.example")
        watch.look()
        watch.look()
        self.assertEqual(self.stated(Fault), [])
        yield self.eventually("second.example")


class NameTests(CertificateCase):
    """SNI, RFC 6066 §3."""

    @inlineCallbacks
    def test_a_client_gets_the_certificate_of_the_host_it_names(self) -> Any:
        """[tls] directory: the names in the certificates count, wildcards for one label; whoever names another, or none, gets ours."""
        more = self.directory_path / "live"
        for number, name in enumerate(("mail.one.example", "*.two.example")):
            (more / str(number)).mkdir(parents=True)
            make_self_signed(name, more / str(number) / "fullchain.pem", more / str(number) / "privkey.pem", NOW)
        self.serve(tls=self.settings(directory="live"))
        for asked, name in (
            ("mail.one.example", "mail.one.example"),
            ("MAIL.one.example", "mail.one.example"),
            ("a.two.example", "*.two.example"),
            ("a.b.two.example", "first.example"),
            ("other.example", "first.example"),
            (None, "first.example"),
        ):
            self.assertEqual((yield self.during(self.seen, asked)), name, asked)

    def test_a_directory_that_is_not_there_is_a_fault(self) -> None:
        """The sentence names it."""
        configuration = Configuration(hostname="a.example", state_directory=self.directory_path, tls=self.settings(directory="none"))
        fault = self.assertRaises(TLSError, server_tls, configuration, NOW)
        self.assertIn("none of certificates is not there", str(fault))


class HandshakeTests(CertificateCase):
    """What is negotiated."""

    @inlineCallbacks
    def test_sessions_are_resumed(self) -> Any:
        """RFC 8446 §2.2, RFC 5077: by a ticket, with TLS 1.2 and 1.3; a client certificate is not asked for and no ALPN is chosen."""
        self.serve(tls=self.settings())

        def handshake(context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None, str | None]:
            client = Client(self.port)
            client.say("EHLO client.example", "STARTTLS")
            client.socket = wrapped = context.wrap_socket(client.socket, session=session)
            client.say("EHLO client.example", "QUIT")
            found = (wrapped.session, wrapped.session_reused, wrapped.selected_alpn_protocol())
            client.close()
            return found

        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["smtp"])
            session, reused, _ = yield self.during(handshake, context, None)
            self.assertFalse(reused)
            _, reused, alpn = yield self.during(handshake, context, session)
            self.assertTrue(reused, version)
            self.assertIsNone(alpn)

    @inlineCallbacks
    def test_a_client_certificate_is_not_asked_for(self) -> Any:
        """A client that has one keeps it to itself: it sees no request."""
        self.serve(tls=self.settings())

        def dialog() -> list[str]:
            client = Client(self.port)
            client.say("EHLO client.example", "STARTTLS")
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            states: list[str] = []
            context.set_info_callback(lambda connection, where, _: states.append(connection.get_state_string().decode()))
            client.socket.setblocking(True)
            client.socket.settimeout(None)
            connection = SSL.Connection(context, client.socket)
            connection.set_connect_state()
            connection.do_handshake()
            client.close()
            return states

        states = yield self.during(dialog)
        self.assertTrue(states)
        self.assertEqual([state for state in states if "certificate request" in state], [])
