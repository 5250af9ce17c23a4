"""What rules of the past did to a message, read from a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from smtpplus import events
from smtpplus.mail.envelope import queue_id
from smtpplus.observation.record import Life
from smtpplus.operation.holds import holds, told
from smtpplus.queue import rulebook
from smtpplus.queue.rules import Kind
from smtpplus.storage.engine import create_engine, migrate

AT = 1_800_000_000.0
NAME = queue_id(int(AT * 1000) << 20)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """A database without rules."""
    url = f"sqlite:///{tmp_path}/smtpplus.sqlite"
    migrate(url)
    engine = create_engine(url)
    with engine.begin() as opened:
        yield opened
    engine.dispose()


def life(*happened: events.Event) -> Life:
    """A message to two domains, accepted at AT."""
    return Life(NAME, AT, True, list(happened), "app", "news", "x@a.com", ("y@b.com", "z@c.com"), 3)


def delivered(at: float, recipient: str) -> events.Delivered:
    return events.Delivered(at, NAME, recipient, "b.com", "p", "250", 1, 0.1)


def rule(connection: Connection, kind: Kind, value: str, at: float, *, lifted: float = 0.0, lasting: float = 0.0) -> int:
    made = rulebook.add(connection, kind, value, running="finish", reason="why", who="root", now=at, lasting=lasting, lifetime=AT)
    if lifted:
        rulebook.lift(connection, [made.id], who="ann", now=lifted)
    return made.id


def sentences(connection: Connection, message: Life, *, waits: bool, now: float) -> list[tuple[float, str]]:
    spells = holds(connection, message, lambda domain: domain, waits=waits, now=now)
    return [(each.at - AT, each.text) for each in told(spells, str)]


def test_who_held_it_and_how_long_is_told(connection: Connection) -> None:
    """B6, A31: rules made before and after a message came, that were lifted, have expired or last, are told with their time."""
    before = rule(connection, "user", "app", AT - 50, lifted=AT + 90)
    lasting = rule(connection, "destination", "c.com", AT + 100)
    expired = rule(connection, "list", "news", AT + 10, lasting=50.0)
    assert sentences(connection, life(), waits=True, now=AT + 200) == [
        (0.0, f"held by rule {before} (why), made by root"),
        (90.0, f"rule {before} is lifted by ann, after 1m 30s"),
        (10.0, f"held by rule {expired} (why), made by root"),
        (60.0, f"rule {expired} is over, after 50s"),
        (100.0, f"held by rule {lasting} (why), made by root"),
    ]


def test_a_rule_that_was_lifted_is_not_said_to_last(connection: Connection) -> None:
    """B6: the clock was set back to before a rule was lifted, and it is told as lifted all the same."""
    lifted = rule(connection, "user", "app", AT - 50, lifted=AT + 90)
    assert (90.0, f"rule {lifted} is lifted by ann, after 1m 30s") in sentences(connection, life(), waits=True, now=AT + 20)
    assert rulebook.in_force(connection, AT + 20) == []


def test_what_did_not_hold_it_is_not_told(connection: Connection) -> None:
    """Rules for others, those that ended before the message came or were made when its recipients were done, and one whose stop of the
    transfer is told already, are left out."""
    rule(connection, "user", "app", AT - 50, lifted=AT - 1)
    rule(connection, "user", "other", AT)
    rule(connection, "destination", "c.com", AT + 20, lifted=AT + 40)
    rule(connection, "everything", "", AT + 30, lifted=AT + 40)
    rule(connection, "everything", "", AT + 5.5, lifted=AT + 40)  # too late to be known before the message was done
    stops = rule(connection, "level", "3", AT + 1, lifted=AT + 2)
    paused = events.Paused(AT + 1, NAME, "b.com", f"rule {stops} (why)")
    message = life(paused, delivered(AT + 5, "y@b.com"), delivered(AT + 6, "z@c.com"))
    assert sentences(connection, message, waits=False, now=AT + 200) == []
