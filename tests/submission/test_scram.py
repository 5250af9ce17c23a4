"""SCRAM over real sockets, with scramp's own client; what strangers can learn from failures."""

from __future__ import annotations

import base64
from typing import Any

from cryptography import x509
from scramp import ScramClient
from twisted.internet.defer import inlineCallbacks

from smtpplus.accounts import passwords, store, unknown
from smtpplus.config import Limits, Listen
from smtpplus.events import Authenticated, AuthenticationFailed
from smtpplus.storage.engine import create_engine
from smtpplus.submission.scram import BOUND, PLAIN, end_point, load_key, pretended
from smtpplus.submission.tls import CERTIFICATE
from tests.submission.rig import PASSWORD, USER, Client, SessionCase, status


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class ScramCase(SessionCase):
    """The user `app` has a SCRAM verifier; `exchange` logs in, and returns every reply."""

    def add_user(self, name: str, **fields: Any) -> None:
        scram = fields.pop("scram", True)
        super().add_user(name, **fields)
        engine = create_engine(self.url)
        with engine.begin() as connection:
            verifier = passwords.scram_verifier(PASSWORD) if scram else None
            store.set_password(connection, name, passwords.hash_password(PASSWORD), now=2.0, scram=verifier)
        engine.dispose()

    def exchange(
        self,
        user: str = USER,
        password: str = PASSWORD,
        *,
        tls: bool = False,
        binding: bytes | None = None,
        initial: bool = True,
        end: str = "",
    ) -> list[str]:
        """One login in a session of its own; every reply from AUTH on, the challenges as text."""
        client = Client(self.port)
        client.say("EHLO client.example")
        if tls:
            client.say("STARTTLS")
            client.start_tls()
            client.say("EHLO client.example")
        mechanism = PLAIN if binding is None else BOUND
        bound = None if binding is None else ("tls-server-end-point", binding)
        scram = ScramClient([mechanism], user, password, channel_binding=bound)
        first = b64(scram.get_client_first())
        replies = client.say(f"AUTH {mechanism} {first}") if initial else client.say(f"AUTH {mechanism}", first)
        if replies[-1].startswith("334 "):
            scram.set_server_first(base64.b64decode(replies[-1][4:]).decode())
            replies += client.say(b64(scram.get_client_final()))
        if replies[-1].startswith("334 "):
            scram.set_server_final(base64.b64decode(replies[-1][4:]).decode())
            replies += client.say(end)
        client.close()
        return replies

    def salt_for(self, user: str) -> str:
        """The salt and the iterations that the server names for a user."""
        client = Client(self.port)
        client.say("EHLO client.example")
        (reply,) = client.say(f"AUTH {PLAIN} {b64(f'n,,n={user},r=nonce')}")
        client.close()
        return base64.b64decode(reply[4:]).decode().partition(",")[2]


class LoginTests(ScramCase):
    """RFC 5802, RFC 7677."""

    @inlineCallbacks
    def test_a_client_logs_in_by_proof(self) -> Any:
        """RFC 7677: with and without initial response; the server proves itself, and then the session is logged in."""
        self.serve()
        for initial in (True, False):
            replies = yield self.during(self.exchange, initial=initial)
            self.assertEqual([reply[:3] for reply in replies], ["334"] * (2 if initial else 3) + ["235"])
        self.assertEqual([event.mechanism for event in self.stated(Authenticated)], [PLAIN, PLAIN])

    @inlineCallbacks
    def test_plus_binds_the_login_to_the_certificate(self) -> Any:
        """RFC 5929 §4: with the hash of our certificate the login works; with that of another, a man in the middle's, it does not."""
        self.serve(Listen(auth_without_tls="never"))
        certificate = x509.load_pem_x509_certificate((self.directory_path / CERTIFICATE).read_bytes())
        replies = yield self.during(self.exchange, tls=True, binding=end_point(certificate))
        self.assertEqual(replies[-1][:3], "235")
        replies = yield self.during(self.exchange, tls=True, binding=b"x" * 32)
        self.assertEqual(status(replies[-1]), "535 5.7.8")

    @inlineCallbacks
    def test_mechanisms_are_offered_where_they_work(self) -> Any:
        """-PLUS needs a TLS connection to bind to: it is offered and taken under TLS only."""
        self.serve()

        def dialog() -> list[str]:
            client = Client(self.port)
            replies = client.say("EHLO client.example", "AUTH SCRAM-SHA-256-PLUS", "STARTTLS")
            client.start_tls()
            replies += client.say("EHLO client.example")
            client.close()
            return replies

        clear, refused, _, secure = yield self.during(dialog)
        self.assertIn("AUTH PLAIN LOGIN SCRAM-SHA-256\n", clear)
        self.assertEqual(status(refused), "504 5.5.4")
        self.assertIn("AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS\n", secure)

    @inlineCallbacks
    def test_an_exchange_can_be_ended(self) -> Any:
        """RFC 4954 §4: `*` cancels, also after the proof; what is no SCRAM is 501; the session goes on and is not logged in."""
        self.serve()
        replies = yield self.during(self.exchange, end="*")
        self.assertEqual(status(replies[-1]), "501 5.7.0")
        replies = yield self.during(self.exchange, end="AAAA")
        self.assertEqual(status(replies[-1]), "501 5.5.2")

        def dialog() -> list[str]:
            client = Client(self.port)
            client.say("EHLO client.example")
            codes = client.codes(f"AUTH {PLAIN} =", f"AUTH {PLAIN} {b64('n,,n=app')}", "MAIL FROM:<app@a.com>", "NOOP")
            client.close()
            return codes

        self.assertEqual((yield self.during(dialog)), ["501 5.5.2", "501 5.5.2", "530 5.7.0", "250 2.0.0"])
        self.assertEqual(self.stated(Authenticated), [])

    @inlineCallbacks
    def test_a_client_that_saw_no_binding_under_tls_is_warned(self) -> Any:
        """RFC 5802 §6: a client that could bind, and was told by somebody that we cannot, is refused: its offer was tampered with."""
        self.serve()

        def dialog() -> str:
            client = Client(self.port)
            client.say("EHLO client.example", "STARTTLS")
            client.start_tls()
            replies = client.codes("EHLO client.example", f"AUTH {PLAIN} {b64('y,,n=app,r=nonce')}")
            client.close()
            return replies[-1]

        self.assertEqual((yield self.during(dialog)), "501 5.5.2")


class StrangerTests(ScramCase):
    """B1: nothing tells whether a user exists."""

    @inlineCallbacks
    def test_failures_are_alike(self) -> Any:
        """B1, A7: unknown user, wrong password, inactive user and one without verifier: the same replies; the events know better."""
        self.serve(limits=Limits(grace=0.2))
        self.add_user("idle", active=False)
        self.add_user("old", scram=False)
        found = []
        for user, password in (("nobody", PASSWORD), (USER, "wrong"), ("idle", PASSWORD), ("old", PASSWORD)):
            replies = yield self.during(self.exchange, user, password)
            found.append([reply[:3] for reply in replies[:-1]] + [replies[-1].partition(" (ref")[0]])
        self.assertEqual(found, [["334", "535 5.7.8 User or password is not correct; " + found[0][-1].partition("; ")[2]]] * 4)
        reasons = [event.reason for event in self.stated(AuthenticationFailed)]
        self.assertEqual(reasons, ["unknown_user", "wrong_password", "inactive_user", "no_scram"])
        mark = unknown.mark(load_key(self.directory_path), "nobody")
        self.assertEqual([event.user for event in self.stated(AuthenticationFailed)], [mark, USER, "idle", "old"])

    @inlineCallbacks
    def test_a_user_that_is_not_there_has_a_salt_too(self) -> Any:
        """RFC 5802 §9: each time the same one, also after a restart, in the form of a real one; another user has another."""
        self.serve()
        asked = (USER, "nobody", "NOBODY", "somebody")
        real, one, again, other = yield self.during(lambda: [self.salt_for(user) for user in asked])
        self.assertEqual(one, again)
        self.assertEqual(len({real, one, other}), 3)
        self.assertEqual((len(real), real.partition(",")[2]), (len(one), one.partition(",")[2]))
        key = load_key(self.directory_path)
        self.assertEqual(pretended(key, "nobody"), pretended(load_key(self.directory_path), "nobody"))

    @inlineCallbacks
    def test_a_wrong_user_costs_what_a_wrong_password_costs(self) -> Any:
        """B1: for PLAIN one argon2 comparison with the same parameters each, whoever it is; SCRAM does none for anybody."""
        self.serve(limits=Limits(grace=0.2))
        self.add_user("idle", active=False)
        costs: list[str] = []
        verify = passwords.verify

        def counted(hashed: str, secret: str | bytes) -> bool:
            costs.append("$".join(hashed.split("$")[:4]))
            return verify(hashed, secret)

        self.patch(passwords, "verify", counted)

        def dialog(user: str, secret: str) -> str:
            client = Client(self.port)
            replies = client.say("EHLO client.example", f"AUTH PLAIN {b64(chr(0) + user + chr(0) + secret)}")
            client.close()
            return replies[-1].partition(" (ref")[0]

        replies = set()
        for user, secret in (("nobody", "wrong"), (USER, "wrong"), ("idle", PASSWORD)):
            replies.add((yield self.during(dialog, user, secret)))
        self.assertEqual((len(replies), len(costs), len(set(costs))), (1, 3, 1))
        yield self.during(self.exchange, "nobody", "wrong")
        yield self.during(self.exchange, USER, "wrong")
        self.assertEqual(len(costs), 3)
