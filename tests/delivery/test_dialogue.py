"""The SMTP client without I/O: dialogs, each fed whole, by line and byte by byte."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.delivery.dialogue import Dialogue
from smtpplus.delivery.replies import LINES_LIMIT, LONGEST_LINE
from smtpplus.delivery.terms import Credentials, Proposal, Step, Terms

PLAIN = Terms("us.example")
HELLO = """
S: 220 next.example ESMTP
C: EHLO us.example
"""
OFFERS = """
S: 250-next.example
S: 250-PIPELINING
S: 250-STARTTLS
S: 250 AUTH PLAIN LOGIN
"""


def turns(dialog: str) -> Iterator[tuple[bytes, bytes]]:
    """What the peer says in one go, and what we are to answer."""
    said = expected = b""
    for line in filter(None, dialog.splitlines()):
        side, _, text = line.strip().partition(": ")
        if side == "S":
            if expected:
                yield said, expected
                said = expected = b""
            said += text.encode() + b"\r\n"
        else:
            expected += text.encode() + b"\r\n"
    yield said, expected


def cuts(octets: bytes, how: str) -> list[bytes]:
    if how == "whole":
        return [octets]
    return octets.splitlines(keepends=True) if how == "lines" else [octets[place : place + 1] for place in range(len(octets))]


def play(dialogue: Dialogue, dialog: str, how: str) -> Step:
    """Play the dialog; the step it ends with. Every answer must be as written, and only the last thing said may end anything."""
    step = Step.WAIT
    for said, expected in turns(dialog):
        for octets in cuts(said, how):
            assert step is Step.WAIT
            step = dialogue.receive(octets)
        assert dialogue.take() == expected
    return step


@pytest.fixture(params=["whole", "lines", "octets"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ready(terms: Terms = PLAIN, offers: str = "S: 250-next.example\nS: 250 PIPELINING") -> Dialogue:
    dialogue = Dialogue(terms)
    assert play(dialogue, HELLO + offers, "whole") is Step.READY
    return dialogue


def begun(*addresses: str, dialogue: Dialogue | None = None) -> Dialogue:
    dialogue = dialogue or ready()
    dialogue.begin(Proposal("a@x", addresses or ("b@x",)))
    dialogue.take()
    return dialogue


def test_a_session_opens(how: str) -> None:
    """Greeting, EHLO, and what the peer offers is known."""
    dialogue = Dialogue(PLAIN)
    assert play(dialogue, HELLO + "S: 250-next.example hello\nS: 250-size 1000\nS: 250 PIPELINING", how) is Step.READY
    assert (dialogue.pipelining, dialogue.size_limit, dialogue.secure) == (True, 1000, False)


def test_helo_where_ehlo_is_unknown(how: str) -> None:
    """A peer that refuses EHLO gets HELO, and is taken to offer nothing (RFC 5321 §3.2)."""
    dialogue = Dialogue(PLAIN)
    assert play(dialogue, HELLO + "S: 502 what?\nC: HELO us.example\nS: 250 next.example", how) is Step.READY
    assert not dialogue.extensions


@pytest.mark.parametrize(
    ("dialog", "reason", "reply"),
    [
        ("S: 554 no mail here", "peer_refused", 554),
        ("S: 421 busy", "peer_deferred", 421),
        (HELLO + "S: 451 not now", "peer_deferred", 451),
        (HELLO + "S: 500 what?\nC: HELO us.example\nS: 550 nor this", "peer_refused", 550),
    ],
)
def test_a_peer_that_will_not_have_the_session(dialog: str, reason: str, reply: int, how: str) -> None:
    """A greeting, EHLO or HELO that is refused ends the session with the peer's own words."""
    dialogue = Dialogue(PLAIN)
    assert play(dialogue, dialog, how) is Step.BROKEN
    assert dialogue.fault is not None
    assert dialogue.fault.answer is not None
    assert (dialogue.fault.reason.code, dialogue.fault.answer.code) == (reason, reply)


@pytest.mark.parametrize("code", ["334", "354", "199"])
@pytest.mark.parametrize(
    "dialog", ["S: ", HELLO + "S: ", HELLO + "S: 500 what?\nC: HELO us.example\nS: ", HELLO + OFFERS + "C: STARTTLS\nS: "]
)
def test_a_session_that_is_neither_taken_nor_refused(dialog: str, code: str, how: str) -> None:
    """3xx and 1xx answer no greeting, EHLO, HELO or STARTTLS: a breach, and nobody's verdict."""
    dialogue = Dialogue(Terms("us.example", tls="opportunistic"))
    assert play(dialogue, dialog + code + " go", how) is Step.BROKEN
    assert dialogue.fault is not None
    assert (dialogue.fault.reason.code, dialogue.fault.answer) == ("peer_broke_protocol", None)


def test_tls_forgets_what_was_said_before(how: str) -> None:
    """After STARTTLS the session starts with EHLO again, and only what is offered then counts (RFC 3207 §4.2)."""
    dialogue = Dialogue(Terms("us.example", tls="opportunistic"))
    assert play(dialogue, HELLO + OFFERS + "C: STARTTLS\nS: 220 go", how) is Step.START_TLS
    dialogue.secured()
    assert dialogue.take() == b"EHLO us.example\r\n"
    assert play(dialogue, "S: 250 next.example", how) is Step.READY
    assert (dialogue.secure, dialogue.extensions, dialogue.pipelining) == (True, {}, False)


@pytest.mark.parametrize("injected", [b"2", b"250 ok\r\n", b"250-evil\r\n250 AUTH PLAIN\r\n"])
def test_plaintext_behind_starttls_is_a_breach(injected: bytes) -> None:
    """Octets behind the answer to STARTTLS came unencrypted: the session is cut (CVE-2011-0411, client side)."""
    dialogue = Dialogue(Terms("us.example", tls="opportunistic"))
    play(dialogue, HELLO + OFFERS + "C: STARTTLS", "whole")
    assert dialogue.receive(b"220 go\r\n" + injected) is Step.BROKEN
    assert dialogue.fault is not None
    assert dialogue.fault.reason.code == "peer_broke_protocol"


@pytest.mark.parametrize("tls", ["required", "verify"])
@pytest.mark.parametrize("dialog", ["S: 250 next.example", OFFERS + "C: STARTTLS\nS: 454 no"])
def test_where_tls_is_required_nothing_goes_without(tls: str, dialog: str, how: str) -> None:
    """Without STARTTLS, or with a refused one, a session that must be encrypted is not opened."""
    dialogue = Dialogue(Terms("us.example", tls=tls))
    assert play(dialogue, HELLO + dialog, how) is Step.BROKEN
    assert dialogue.fault is not None
    assert dialogue.fault.reason.code == "tls_unavailable"


@pytest.mark.parametrize("dialog", ["S: 250 next.example", OFFERS + "C: STARTTLS\nS: 454 no"])
def test_opportunistic_tls_goes_without(dialog: str, how: str) -> None:
    """Opportunistic TLS takes plaintext where STARTTLS is missing or refused."""
    assert play(Dialogue(Terms("us.example", tls="opportunistic")), HELLO + dialog, how) is Step.READY


def test_a_password_does_not_go_in_the_clear(how: str) -> None:
    """With a password to send, opportunistic TLS insists: who strips STARTTLS from the offers must not get it."""
    terms = Terms("us.example", tls="opportunistic", credentials=Credentials("ann", "secret"))
    dialogue = Dialogue(terms)
    assert play(dialogue, HELLO + "S: 250-next.example\nS: 250 AUTH PLAIN", how) is Step.BROKEN
    assert dialogue.fault is not None
    assert dialogue.fault.reason.code == "tls_unavailable"


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "dialog",
    [
        f"S: 250 AUTH=PLAIN\nC: AUTH PLAIN {_encoded(chr(0) + 'ann' + chr(0) + 'secret')}\nS: 235 welcome",
        f"S: 250 AUTH LOGIN PLAIN\nC: AUTH PLAIN {_encoded(chr(0) + 'ann' + chr(0) + 'secret')}\nS: 235 welcome",
        f"S: 250 AUTH X LOGIN\nC: AUTH LOGIN\nS: 334 VXNlcg==\nC: {_encoded('ann')}\nS: 334 UGFzcw==\nC: {_encoded('secret')}\nS: 235 in",
    ],
)
def test_login_at_a_smarthost(dialog: str, how: str) -> None:
    """PLAIN with an initial response, else LOGIN (RFC 4954, RFC 4616)."""
    dialogue = Dialogue(Terms("us.example", credentials=Credentials("ann", "secret")))
    assert play(dialogue, HELLO + "S: 250-next.example\n" + dialog, how) is Step.READY


@pytest.mark.parametrize(
    "dialog",
    ["S: 250 AUTH GSSAPI", "S: 250 AUTH LOGIN\nC: AUTH LOGIN\nS: 334 x\nC: YW5u\nS: 535 no", "S: 250 AUTH LOGIN\nC: AUTH LOGIN\nS: 503 x"],
)
def test_a_failed_login_is_temporary(dialog: str, how: str) -> None:
    """A smarthost that does not take our login defers the mail, whatever it says: the password can be corrected."""
    dialogue = Dialogue(Terms("us.example", credentials=Credentials("ann", "secret")))
    assert play(dialogue, HELLO + "S: 250-next.example\n" + dialog, how) is Step.BROKEN
    assert dialogue.fault is not None
    assert (dialogue.fault.reason.code, dialogue.fault.reply("p", "d").code) == ("peer_login_failed", 454)


def test_a_pipelined_transaction_is_one_write(how: str) -> None:
    """MAIL, every RCPT and DATA go at once where PIPELINING is offered; verdicts are matched in order (RFC 2920 §3.1)."""
    dialogue = ready()
    dialogue.begin(Proposal("a@x", ("b@x", "c@x")))
    assert dialogue.take() == b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nDATA\r\n"
    assert play(dialogue, "S: 250 ok\nS: 550 5.1.1 no\nS: 250 ok\nS: 354 go", how) is Step.CONTENT
    dialogue.content_sent()
    assert play(dialogue, "S: 250-2.0.0 taken\nS: 250 2.0.0 as 17", how) is Step.DONE
    assert [str(reply) for reply in dialogue.replies] == ["550 5.1.1 no", "250 2.0.0 taken as 17"]


def test_a_refused_sender_is_everybodys_verdict(how: str) -> None:
    """When MAIL is refused, what a pipelining peer says to RCPT and DATA does not count."""
    dialogue = begun("b@x", "c@x")
    assert play(dialogue, "S: 450 4.1.8 later\nS: 503 x\nS: 503 x\nS: 503 x", how) is Step.DONE
    assert [str(reply) for reply in dialogue.replies] == ["450 4.1.8 later"] * 2


def test_421_decides_the_rest_and_closes(how: str) -> None:
    """421 in a transaction is the verdict on all who have none, and the session is not used again."""
    dialogue = begun("b@x", "c@x", dialogue=ready(offers="S: 250 next.example"))
    assert play(dialogue, "S: 250 ok\nC: RCPT TO:<b@x>\nS: 550 no\nC: RCPT TO:<c@x>\nS: 421 4.3.2 bye", how) is Step.DONE
    assert [str(reply) for reply in dialogue.replies] == ["550 no", "421 4.3.2 bye"]
    assert dialogue.closing


def test_a_verdict_in_the_middle_of_the_data_closes(how: str) -> None:
    """A 4xx or 5xx before the final dot is a verdict, but the session is over: the rest would be read as commands."""
    dialogue = begun()
    play(dialogue, "S: 250 ok\nS: 250 ok\nS: 354 go", "whole")
    assert play(dialogue, "S: 552 5.3.4 too much", how) is Step.DONE
    assert str(dialogue.replies[0]) == "552 5.3.4 too much"
    assert dialogue.closing


@pytest.mark.parametrize(
    "said",
    [
        b"250 ok\r\n250 ok\r\n250 ok\r\n",  # to DATA
        b"250 ok\r\n354 go\r\n",  # to RCPT
        b"354 go\r\n",  # to MAIL
        b"250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n",  # before the data is sent
        b"250 ok\r\n250-ok\r\n251 ok\r\n",  # one reply with two codes
        b"hello\r\n",
        b"\r\n",
        b"2500 ok\r\n",
        b"199 ok\r\n",
        b"600 ok\r\n",
        b"\x00\xff\r\n",
        b"250-" + b"x" * LONGEST_LINE,
        b"250-x\r\n" * (LINES_LIMIT + 1),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_nonsense_breaks_the_session(said: bytes, size: int) -> None:
    """Replies out of order, malformed or without end break the session, however they are cut; nobody gets a verdict of them."""
    dialogue = begun()
    steps = [dialogue.receive(said[place : place + size]) for place in range(0, len(said), size)]
    assert steps[-1] is Step.BROKEN
    assert dialogue.fault is not None
    assert (dialogue.fault.reason.code, dialogue.replies) == ("peer_broke_protocol", [None])


@pytest.mark.parametrize("said", [b"250 ok\r\n250 ok\r\n354 go\r\n2", b"250 ok\r\n250 ok\r\n354 go\r\n421 bye\r\n"])
def test_an_answer_to_what_was_not_sent_yet_is_a_breach(said: bytes) -> None:
    """What arrives behind 354 cannot be an answer to data that was not sent."""
    assert begun().receive(said) is Step.BROKEN


def test_octets_behind_the_verdict_end_the_session_but_not_the_verdict() -> None:
    """Whatever follows the answer to the final dot, the message was taken; the session is not used again."""
    dialogue = begun()
    play(dialogue, "S: 250 ok\nS: 250 ok\nS: 354 go", "whole")
    dialogue.content_sent()
    assert dialogue.receive(b"250 taken\r\n250 and more\r\n") is Step.DONE
    assert (str(dialogue.replies[0]), dialogue.closing) == ("250 taken", True)


def test_an_idle_session_that_speaks_is_over() -> None:
    """Between transactions a peer has nothing to say but goodbye."""
    for said, reason in ((b"421 bye\r\n", "peer_deferred"), (b"250 ok\r\n", "peer_broke_protocol")):
        dialogue = ready()
        assert dialogue.receive(said) is Step.BROKEN
        assert dialogue.fault is not None
        assert dialogue.fault.reason.code == reason


def test_quit_is_answered_by_anything() -> None:
    """QUIT ends the session whatever the peer answers."""
    for said in (b"221 bye\r\n", b"421 bye\r\n", b"500 what?\r\n"):
        dialogue = ready()
        dialogue.quit()
        assert dialogue.take() == b"QUIT\r\n"
        assert dialogue.receive(said) is Step.CLOSED


def test_credentials_have_no_repr() -> None:
    """A password does not show where its holder is printed."""
    terms = Terms("us.example", credentials=Credentials("ann", "secret"))
    assert "secret" not in f"{terms!r}{terms}{terms.credentials!r}"


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_no_peer_makes_it_raise(pieces: list[bytes]) -> None:
    """Whatever octets come, the dialogue answers with a step, and BROKEN stays BROKEN."""
    dialogue = begun()
    broken = False
    for piece in pieces:
        step = dialogue.receive(piece)
        assert step is Step.BROKEN or not broken
        broken = step is Step.BROKEN
        if step is Step.CONTENT:
            dialogue.content_sent()
        if step is Step.DONE:
            break
