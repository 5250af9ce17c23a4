"""Every state in which authorization can be, decided alike by the rules written out here, by `check`, and by the session's delivery."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest
from twisted.internet import reactor

from smtpplus.accounts.directory import Directory
from smtpplus.accounts.permission import answer
from smtpplus.accounts.settings import Settings, server_settings
from smtpplus.accounts.user import Secret, Sender, User
from smtpplus.config import Configuration
from smtpplus.events import Event, Events, WouldRefuse
from smtpplus.mail.header import Header
from smtpplus.mail.reasons import Refusal
from smtpplus.storage.database import Database
from smtpplus.submission.checker import Path as Origin
from smtpplus.submission.checker import SubmissionDelivery

HELLO = (b"client.example", b"192.0.2.1")
CONFIGURATION = Configuration(hostname="mail.example.com")
# entry kind: the entry, and an address that it names, one that it does not, and one that misses it narrowly, with the reason
ENTRIES = {
    "address": (Sender("address", "x@a.com"), "x@a.com", ("x@b.com", "address_not_authorized"), ("y@a.com", "address_not_authorized")),
    "domain": (Sender("domain", "www.a.com"), "x@www.a.com", ("x@b.com", "domain_not_authorized"), ("x@a.com", "near_domain")),
    "subtree": (Sender("subtree", "a.com"), "x@m.a.com", ("x@b.com", "domain_not_authorized"), ("x@nota.com", "domain_not_authorized")),
}


class State(NamedTuple):
    """One row of the table."""

    active: bool
    verified: bool
    kind: str  # of the only entry; "none", or "any": none, and the operator agreed
    match: str  # "match" | "other" | "near"
    require_verified: bool
    mode: str
    null: bool  # the envelope sender is the null one; else the address asked about
    place: str  # where that address stands in the header: "from" | "sender" (with an address that matches in From)


STATES = [
    State(*state)
    for state in itertools.product(
        (True, False),
        (True, False),
        (*ENTRIES, "none", "any"),
        ("match", "other", "near"),
        (True, False),
        ("block", "alert"),
        (True, False),
        ("from", "sender"),
    )
]


def user_of(state: State) -> User:
    entries: tuple[Sender, ...] = ()
    if state.kind in ENTRIES:
        entry = ENTRIES[state.kind][0]
        entries = (Sender(entry.kind, entry.value, verified=state.verified),)
    settings = Settings(unauthorized="alert" if state.mode == "alert" else "block", require_verified=state.require_verified)
    return User("app", Secret("hash"), active=state.active, allow_any=state.kind == "any", senders=entries, settings=settings)


def addresses(state: State) -> tuple[str, str]:
    """An address that matches, and the one asked about."""
    if state.kind not in ENTRIES:
        return "x@a.com", "x@a.com"
    _, match, other, near = ENTRIES[state.kind]
    return match, {"match": match, "other": other[0], "near": near[0]}[state.match]


def reason_of(state: State, address: str) -> str:
    """What A9 to A18 say about one address of an active user: a reason, or "" if it may be used."""
    if state.kind not in ENTRIES:
        if state.require_verified:
            return "sender_not_verified"
        return "" if state.kind == "any" else "address_not_authorized"
    _, match, other, near = ENTRIES[state.kind]
    if address == match:
        return "" if state.verified or not state.require_verified else "sender_pending"
    return dict((other, near))[address]


def expected(state: State) -> tuple[str, str]:
    """The outcome and the reason."""
    if not state.active:
        return "refused", "inactive_user" if state.verified or state.kind not in ENTRIES else "inactive_unverified"
    match, asked = addresses(state)
    used = ([] if state.null else [asked]) + ([asked] if state.place == "from" else [match, asked])
    reason = next(filter(None, (reason_of(state, address) for address in used)), "")
    return ("accepted" if not reason else "alerted" if state.mode == "alert" else "refused"), reason


def header_of(state: State) -> bytes:
    match, asked = addresses(state)
    if state.place == "from":
        return f"From: Some One <{asked}>\r\n\r\n".encode()
    return f"From: {match}\r\nSender: {asked}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    """A directory that is not started: it answers for snapshots from elsewhere, and asks no database."""
    path = Path(tmp_path_factory.mktemp("accounts"))
    yield Directory(Database(f"sqlite:///{path}/a.sqlite", reactor), reactor)


def submitted(state: State, directory: Directory) -> tuple[str, str]:
    """Outcome and reason of MAIL and the end of data, in the delivery that the session uses."""
    told: list[Event] = []
    events = Events()
    events.subscribe(told.append)
    user = user_of(state)
    delivery = SubmissionDelivery(user, None, directory=directory, configuration=CONFIGURATION, events=events, now=lambda: 1.0)
    sender = "" if state.null else addresses(state)[1]
    try:
        delivery.validateFrom(HELLO, Origin(sender))
        delivery.validateHeader(sender, Header.parse(header_of(state)))
    except Refusal as refusal:
        assert told == []
        return "refused", refusal.reason
    if not told:
        return "accepted", ""
    (event,) = told  # exactly one alert per message (A19)
    assert isinstance(event, WouldRefuse)
    return "alerted", event.reason


@pytest.mark.parametrize("kind", [*ENTRIES, "none", "any"])
def test_every_state(kind: str, directory: Directory) -> None:
    """A7, A9, A11, A13 to A20, D4: the rules, `check` and the session agree in each of the states, on the outcome and on the reason."""
    of_kind = [state for state in STATES if state.kind == kind]
    assert len(of_kind) == 2 * 2 * 3 * 2 * 2 * 2 * 2
    for state in of_kind:
        user, header = user_of(state), Header.parse(header_of(state))
        in_force = directory.effective(user)
        assert in_force.unauthorized == state.mode
        asked = "" if state.null else addresses(state)[1]
        given = answer(user, in_force, asked, header.values("from"), header.values("sender"))
        assert (given.outcome, given.verdict.reason) == expected(state), state
        assert submitted(state, directory) == expected(state), state


def test_states_differ() -> None:
    """The table is not of one colour: each outcome and each reason of authorization occurs in it."""
    found = [expected(state) for state in STATES]
    assert {outcome for outcome, _ in found} == {"accepted", "alerted", "refused"}
    assert {reason for _, reason in found} == {
        "",
        "address_not_authorized",
        "domain_not_authorized",
        "inactive_unverified",
        "inactive_user",
        "near_domain",
        "sender_not_verified",
        "sender_pending",
    }


def test_defaults(directory: Directory) -> None:
    """A9, A20: what nobody sets is `block` and `require_verified`, by the default configuration."""
    assert directory.effective(User("app", Secret("hash"))).unauthorized == "block"
    assert server_settings(CONFIGURATION).require_verified is True
