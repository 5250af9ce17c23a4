"""Logging in at a smarthost: the mechanisms by themselves, and in a dialog."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

import pytest
from scramp import ScramException, ScramMechanism

from smtpplus.config import Route
from smtpplus.delivery.dialogue import Dialogue
from smtpplus.delivery.login import REPEATED, Login, LoginFault, Scram
from smtpplus.delivery.terms import Credentials, Step, Terms
from tests.delivery.peer import Line, Peer
from tests.delivery.rig import DeliveryCase, request, said
from tests.delivery.test_dialogue import HELLO, play

ANN = Credentials("user", "pencil")
NONCE = "rOprNGfwEbeRWgbNEkqO"
FIRST = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
PROOF = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def fixed(_: int) -> bytes:
    return base64.b64decode(NONCE)


PLAIN = f"AUTH PLAIN {encoded(chr(0) + 'user' + chr(0) + 'pencil')}"
SCRAM = f"AUTH SCRAM-SHA-256 {encoded('n,,n=user,r=' + NONCE)}"


def test_the_example_of_the_rfc() -> None:
    """The exchange of RFC 7677 §3, to the octet; only the server's proof makes it believed."""
    scram = Scram(ANN, fixed)
    assert scram.command == SCRAM
    assert scram.respond(encoded(FIRST)) == encoded(FINAL)
    assert not scram.proved()
    assert scram.respond(encoded(PROOF)) == ""
    assert scram.proved()


@pytest.mark.parametrize(
    "first",
    [
        "",
        "nonsense",
        FIRST.replace(NONCE, "other"),
        f"r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        FIRST.replace("4096", "1"),
        FIRST.replace("4096", "999999999"),
        FIRST.replace("4096", "x"),
        FIRST.replace("s=", "s=*"),
        "m=x," + FIRST,
        "\xff",
    ],
)
def test_a_hostile_server_gets_no_proof(first: str) -> None:
    """A nonce that is not ours, none of the server's own, weak or endless iterations, and nonsense end the exchange."""
    with pytest.raises(LoginFault):
        Scram(ANN, fixed).respond(encoded(first))
    with pytest.raises(LoginFault):
        Scram(ANN, fixed).respond("*")


def test_a_server_that_cannot_prove_itself_is_not_believed() -> None:
    """A wrong signature of the server is a fault."""
    scram = Scram(ANN, fixed)
    scram.respond(encoded(FIRST))
    with pytest.raises(LoginFault, match="does not know the password"):
        scram.respond(encoded("v=" + encoded("x" * 32)))


@pytest.mark.parametrize("password", ["p\u00e4ss\u2168", "a,b=c", "\u00aa"])
def test_other_characters(password: str) -> None:
    """Names are escaped and compatibility forms made one (RFC 5802 §5.1, RFC 4013 §2.2), as a server's verifier has them."""
    import unicodedata

    scram = Scram(Credentials("a=b,c", password), fixed)
    assert base64.b64decode(scram.command.split()[2]).decode() == f"n,,n=a=3Db=2Cc,r={NONCE}"
    final = base64.b64decode(scram.respond(encoded(FIRST))).decode()
    salted = hashlib.pbkdf2_hmac(
        "sha256", unicodedata.normalize("NFKC", password).encode(), base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096
    )
    key = hmac.digest(salted, b"Client Key", "sha256")
    said = f"n=a=3Db=2Cc,r={NONCE},{FIRST},{final.rpartition(',p=')[0]}"
    signature = hmac.digest(hashlib.sha256(key).digest(), said.encode(), "sha256")
    assert base64.b64decode(final.rpartition(",p=")[2]) == bytes(a ^ b for a, b in zip(key, signature, strict=True))


def commands(offered: str, codes: list[int]) -> list[str | None]:
    login = Login(ANN, offered, fixed)
    first = login.next()
    return [command and command.split()[1] for command in (first, *(login.next(code) for code in codes))]


def test_the_best_that_is_offered_comes_first() -> None:
    """SCRAM before PLAIN before LOGIN, in whatever order they are offered, and nothing else."""
    assert commands("LOGIN PLAIN SCRAM-SHA-256 XOAUTH2", [535, 504, 500]) == ["SCRAM-SHA-256", "PLAIN", "LOGIN", None]
    assert commands("login", [535]) == ["LOGIN", None]
    assert commands("GSSAPI", []) == [None]


def test_a_wrong_password_is_not_tried_twice_in_the_clear() -> None:
    """After PLAIN only a mechanism that was not understood hands over to LOGIN."""
    assert commands("PLAIN LOGIN", [535]) == ["PLAIN", None]
    assert commands("PLAIN LOGIN", [504]) == ["PLAIN", "LOGIN"]


@pytest.fixture(params=["whole", "lines", "octets"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(offers: str, dialog: str, how: str, random: Callable[[int], bytes] = fixed) -> tuple[Step, str]:
    """The step that a dialog ends with, and the fault."""
    dialogue = Dialogue(Terms("us.example", credentials=ANN), random)
    step = play(dialogue, f"{HELLO}S: 250-next.example\nS: 250 AUTH {offers}\n{dialog}", how)
    return step, dialogue.fault.cause if dialogue.fault else ""


def test_scram_in_a_dialog(how: str) -> None:
    """The server's proof comes in a 334 and is answered with an empty line (RFC 4954 §4)."""
    dialog = f"C: {SCRAM}\nS: 334 {encoded(FIRST)}\nC: {encoded(FINAL)}\nS: 334 {encoded(PROOF)}\nC: \nS: 235 welcome"
    assert opened("PLAIN SCRAM-SHA-256", dialog, how) == (Step.READY, "")


def test_a_welcome_without_proof_is_none(how: str) -> None:
    """Who says 235 without proving that it knows the password is not the smarthost."""
    dialog = f"C: {SCRAM}\nS: 334 {encoded(FIRST)}\nC: {encoded(FINAL)}\nS: 235 welcome"
    assert opened("SCRAM-SHA-256", dialog, how) == (Step.BROKEN, "it did not prove that it knows the password")


def test_plain_follows_a_refused_scram(how: str) -> None:
    """A smarthost that offers SCRAM and has no verifier for us gets PLAIN; its last refusal is what is told."""
    start = f"C: {SCRAM}\nS: 535 5.7.8 no\nC: {PLAIN}\n"
    assert opened("PLAIN SCRAM-SHA-256", start + "S: 235 in", how) == (Step.READY, "")
    assert opened("PLAIN LOGIN SCRAM-SHA-256", start + "S: 535 5.7.8 never", how) == (Step.BROKEN, "535 5.7.8 never")


def test_login_follows_where_plain_is_not_understood(how: str) -> None:
    """AUTH PLAIN answered 504 is followed by LOGIN, whose questions may end only in a verdict."""
    start = f"C: {PLAIN}\nS: 504 5.5.4 what?\nC: AUTH LOGIN\nS: 334 VXNlcg==\nC: {encoded('user')}\nS: 334 UA==\nC: {encoded('pencil')}\n"
    assert opened("PLAIN LOGIN", start + "S: 235 in", how) == (Step.READY, "")
    assert opened("PLAIN LOGIN", start + "S: 334 again?", how) == (Step.BROKEN, "it asks again")


RESPONSE = encoded(chr(0) + "user" + chr(0) + "pencil")
ASKED = f"C: AUTH LOGIN\nS: 334 VXNlcg==\nC: {encoded('user')}\nS: 334 UA==\nC: {encoded('pencil')}\n"
PROVING = f"C: {SCRAM}\nS: 334 {encoded(FIRST)}\nC: {encoded(FINAL)}\n"
HIDDEN = f"535 5.7.8 {REPEATED}"
ECHOES = {
    "the command": ("PLAIN", f"C: {PLAIN}\nS: 535 5.7.8 Syntax error in: {PLAIN}", HIDDEN),
    "the response": ("PLAIN", f"C: {PLAIN}\nS: 535 5.7.8 what is {RESPONSE}?", HIDDEN),
    "its beginning": ("PLAIN", f"C: {PLAIN}\nS: 535 5.7.8 what is {RESPONSE[:9]}...", HIDDEN),
    "in capitals": ("PLAIN", f"C: {PLAIN}\nS: 535 5.7.8 {PLAIN.upper()}", HIDDEN),
    "with blanks": ("PLAIN", f"C: {PLAIN}\nS: 535 5.7.8 {' '.join(RESPONSE)}", HIDDEN),
    "on two lines": ("PLAIN", f"C: {PLAIN}\nS: 535-5.7.8 {RESPONSE[:7]}\nS: 535 5.7.8 {RESPONSE[7:]}", HIDDEN),
    "the password": ("PLAIN", f"C: {PLAIN}\nS: 535 5.7.8 user is not let in with PENCIL", HIDDEN),
    "the password at LOGIN": ("LOGIN", f"{ASKED}S: 535 5.7.8 {encoded('pencil')} is not it", HIDDEN),
    "the name at LOGIN": ("LOGIN", f"C: AUTH LOGIN\nS: 334 VXNlcg==\nC: {encoded('user')}\nS: 535 5.7.8 no {encoded('user')}", HIDDEN),
    "the beginning of SCRAM": ("SCRAM-SHA-256", f"C: {SCRAM}\nS: 535 5.7.8 {SCRAM}", HIDDEN),
    "the end of SCRAM": ("SCRAM-SHA-256", f"{PROVING}S: 535 5.7.8 {encoded(FINAL)}", HIDDEN),
    "an earlier try": ("SCRAM-SHA-256 PLAIN", f"C: {SCRAM}\nS: 535 no\nC: {PLAIN}\nS: 535 5.7.8 {SCRAM}", HIDDEN),
    "no reply": ("PLAIN", f"C: {PLAIN}\nS: {PLAIN}", REPEATED),
    "goodbye": ("PLAIN", f"C: {PLAIN}\nS: 421 4.7.0 {PLAIN}", f"421 4.7.0 {REPEATED}"),
}


@pytest.mark.parametrize(("offers", "dialog", "told"), ECHOES.values(), ids=ECHOES)
def test_an_echo_of_the_login_is_not_told(offers: str, dialog: str, told: str, how: str) -> None:
    """A peer that repeats what was sent at login, or the password, in whatever form: code and status are told, its text is not."""
    dialogue = Dialogue(Terms("us.example", credentials=ANN), fixed)
    assert play(dialogue, f"{HELLO}S: 250-next.example\nS: 250 AUTH {offers}\n{dialog}", how) is Step.BROKEN
    assert dialogue.fault is not None
    assert (dialogue.fault.cause or str(dialogue.fault.answer)) == told


class SmarthostTests(DeliveryCase):
    async def test_an_independent_server_believes_us(self) -> None:
        """SCRAM-SHA-256 over a socket with the scramp library at the other end: the right password delivers, a wrong one defers, and
        neither is sent."""
        folder = self.folder()
        folder.mkdir()
        path = folder / "password"
        mechanism = ScramMechanism("SCRAM-SHA-256")
        known = mechanism.make_auth_info("pencil \u00e9", iteration_count=4096)

        def script(line: Line) -> None:
            line.greet("250-smart.example\r\n250-PIPELINING\r\n250 AUTH SCRAM-SHA-256\r\n")
            server = mechanism.make_server(lambda name: {"user": known}[name])
            server.set_client_first(base64.b64decode(line.command("AUTH SCRAM-SHA-256 ").split()[2]).decode())
            line.send(f"334 {encoded(server.get_server_first())}\r\n")
            final = base64.b64decode(line.until(b"\r\n")).decode()
            try:
                server.set_client_final(final)
            except ScramException:
                line.send("535 5.7.8 no\r\n")
            else:
                line.send(f"334 {encoded(server.get_server_final())}\r\n")
                assert line.until(b"\r\n") == b"\r\n"
                line.send("235 2.7.0 welcome\r\n")
                line.message()
            line.gone()

        found = []
        with Peer(script) as peer:
            route = Route(via=peer.via, username="user", password_file=str(path))
            for password in ("pencil \u00e9", "pencil e"):
                path.write_text(password)
                delivery = self.make(route)
                found += said(await self.send(delivery, request(delivery.router.destination("b.example"))))
                await delivery.stop()
        assert [each[1:] for each in found] == [(250, "delivered"), (454, "peer_login_failed")]
        assert not any(b"pencil" in line.received for line in peer.lines)
