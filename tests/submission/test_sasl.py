"""AUTH exchanges, pure."""

from __future__ import annotations

import base64

import pytest

from smtpplus.mail.reasons import Refusal
from smtpplus.submission import sasl
from smtpplus.submission.sasl import Login, Plain, UserThenPassword


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def test_plain_with_its_initial_response() -> None:
    """RFC 4616 §2: identity, user, password in one response; the identity may repeat the user."""
    for message in (b"\0app\0secret", b"app\0app\0secret"):
        exchange, response = sasl.begin(b"plain " + b64(message))
        login = exchange.step(response)
        assert isinstance(login, Login)
        assert (login.username, login.password, login.mechanism) == (b"app", b"secret", "PLAIN")


def test_plain_without_initial_response_is_asked_for_it() -> None:
    """RFC 4954 §4: an empty challenge, then the response."""
    exchange, response = sasl.begin(b"PLAIN")
    assert response is None
    assert exchange.step(response) == b""
    assert sasl.encode(b"") == b"334 \r\n"
    assert isinstance(exchange.step(b"\0app\0secret"), Login)


@pytest.mark.parametrize("message", [b"", b"app", b"\0app", b"\0app\0", b"\0\0secret", b"\0app\0se\0cret"])
def test_plain_wants_its_three_parts(message: bytes) -> None:
    """RFC 4616 §2: user and password are there and hold no NUL."""
    with pytest.raises(Refusal) as refused:
        Plain().step(message)
    assert str(refused.value.reply).startswith("501 5.5.2")


def test_whom_a_client_wants_to_be_goes_with_its_login() -> None:
    """RFC 4616 §2: an authorization identity is for whoever checks the login, so that a wrong one is refused as any failed login."""
    login = Plain().step(b"boss\0app\0secret")
    assert isinstance(login, Login)
    assert (login.identity, login.username) == (b"boss", b"app")


def test_login_asks_for_user_and_password() -> None:
    """LOGIN: two questions; an initial response answers the first."""
    exchange, response = sasl.begin(b"LOGIN")
    assert exchange.step(response) == b"Username:"
    assert exchange.step(b"app") == b"Password:"
    login = exchange.step(b"secret")
    assert isinstance(login, Login)
    assert (login.username, login.password) == (b"app", b"secret")
    exchange, response = sasl.begin(b"LOGIN " + b64(b"app"))
    assert exchange.step(response) == b"Password:"


def test_login_with_nothing_is_malformed() -> None:
    """An empty user or password is no login."""
    exchange = UserThenPassword()
    exchange.step(b"")
    with pytest.raises(Refusal):
        exchange.step(b"secret")


def test_an_equals_sign_is_an_empty_initial_response() -> None:
    """RFC 4954 §4: "=" stands for a response of no octets, which is not the same as none."""
    assert sasl.begin(b"PLAIN =")[1] == b""


@pytest.mark.parametrize(
    ("argument", "reply"),
    [(b"", "501 5.5.4"), (b" ", "501 5.5.4"), (b"MAGIC", "504 5.5.4"), (b"PLAIN ?", "501 5.5.2"), (b"PLAIN *", "501 5.7.0")],
)
def test_a_bad_beginning_is_refused(argument: bytes, reply: str) -> None:
    """RFC 4954 §4: no mechanism, an unknown one, no base64, cancelled."""
    with pytest.raises(Refusal) as refused:
        sasl.begin(argument)
    assert str(refused.value.reply).startswith(reply)


def test_a_password_has_no_repr() -> None:
    """A6: whatever prints a login, the password is not in it."""
    assert "secret" not in repr(Login(b"app", b"secret", "PLAIN"))
