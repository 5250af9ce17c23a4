"""Accounts in a real SQLite file: what is stored is what is read, and every change is seen by those who look for it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine, func, insert, select

from smtpplus.accounts import fields, lists, store
from smtpplus.accounts.fields import AccountError, FieldError
from smtpplus.accounts.settings import Settings
from smtpplus.accounts.store import Changes
from smtpplus.storage import schema
from smtpplus.storage.engine import create_engine, migrate


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database with the schema of the migrations, and with the lists news, odd and even."""
    url = f"sqlite:///{tmp_path}/smtpplus.sqlite"
    migrate(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        for name in ("news", "odd", "even"):
            lists.add_list(connection, name, now=1.0)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction."""
    with engine.begin() as connection:
        yield connection


def add(connection: Connection, name: str = "app", domains: str = "", senders: str = "", **more: Any) -> store.User:
    """Add a user with these fields at time 1."""
    return store.add_user(connection, name, "hash", now=1.0, domains=fields.domains(domains), addresses=fields.addresses(senders), **more)


def entries(user: store.User | None) -> list[tuple[str, bool]]:
    """The user's entries and whether each is verified."""
    assert user is not None
    return [(str(entry), entry.verified) for entry in user.senders]


def test_add_and_load(connection: Connection) -> None:
    """A5, A8, A14, A17: a user is loaded with everything it was added with; new senders are pending."""
    made = add(connection, "App", ".a.com; b.com", "x@c.com", list="News", priority=2, note=" for the shop ", active=False)
    loaded = store.load_user(connection, "app")
    assert loaded == made
    assert (made.name, made.list, made.note, made.active, made.allow_any) == ("app", "news", "for the shop", False, False)
    assert made.settings == Settings(priority=2)
    assert (made.password, made.created_at, made.changed_at) == ("hash", 1.0, 1.0)
    assert entries(made) == [(".a.com", False), ("b.com", False), ("x@c.com", False)]
    assert store.load_user(connection, "other") is None


def test_vouching(connection: Connection) -> None:
    """A10, A12: --vouch marks what is named as verified, with provenance and date; without it the sender is pending."""
    made = add(connection, domains="a.com", vouch=True)
    (entry,) = made.senders
    assert (entry.verified, entry.provenance, entry.verified_at) == (True, "vouched", 1.0)
    (pending,) = add(connection, "other", "a.com").senders
    assert (pending.verified, pending.provenance, pending.verified_at) == (False, "", None)


def test_names_are_unique(connection: Connection) -> None:
    """A5: a name is taken once, however it is written, and nothing of a refused command stays."""
    add(connection, "app")
    with pytest.raises(AccountError, match="exists already"):
        add(connection, "APP", "a.com")
    assert [user.name for user in store.list_users(connection)] == ["app"]
    assert connection.scalar(select(func.count()).select_from(schema.senders)) == 0


@pytest.mark.parametrize("faulty", [{"name": "a b"}, {"list": "a b"}, {"priority": 0}, {"priority": 6}, {"note": "\x1b"}])
def test_faulty_fields(connection: Connection, faulty: dict[str, Any]) -> None:
    """A5: what is not a field's value is refused before anything is written."""
    with pytest.raises(FieldError):
        add(connection, **faulty)
    assert store.list_users(connection) == []


def test_edit_keeps_what_is_not_named(connection: Connection) -> None:
    """A5: an edit changes the fields it names; entries that stay keep their verification, new ones are pending, others go."""
    add(connection, domains="a.com; b.com", senders="x@c.com", vouch=True, note="n", priority=4)
    edited = store.edit_user(connection, "APP", Changes(domains=fields.domains("b.com; d.com"), list="news"), now=2.0)
    assert sorted(entries(edited)) == [("b.com", True), ("d.com", False), ("x@c.com", True)]
    assert (edited.note, edited.settings.priority, edited.list, edited.active) == ("n", 4, "news", True)
    edited = store.edit_user(connection, "app", Changes(settings={"priority": 1}, note="", active=False), now=3.0)
    assert (edited.note, edited.settings.priority, edited.active, edited.changed_at) == ("", 1, False, 3.0)
    assert store.load_user(connection, "app") == edited


@pytest.mark.parametrize(
    ("changes", "verified"),
    [
        (Changes(vouch=True), ["a.com", "x@c.com"]),
        (Changes(vouch=True, domains=fields.domains("a.com")), ["a.com"]),
        (Changes(vouch=True, addresses=fields.addresses("x@c.com")), ["x@c.com"]),
        (Changes(vouch=True, domains=fields.domains("b.com"), addresses=fields.addresses("x@c.com")), ["b.com", "x@c.com"]),
    ],
)
def test_vouching_in_an_edit(connection: Connection, changes: Changes, verified: list[str]) -> None:
    """A12: an edit vouches for the fields it names, and for all entries if it names none."""
    add(connection, domains="a.com", senders="x@c.com")
    edited = store.edit_user(connection, "app", changes, now=2.0)
    assert sorted(entry for entry, is_verified in entries(edited) if is_verified) == verified


def test_account_does_not_open_silently(connection: Connection) -> None:
    """A18: both fields empty from the start means any sender; removing the last entry asks for allow_any and changes nothing without."""
    assert add(connection, "open").allow_any
    add(connection, domains="a.com")
    nothing = Changes(domains=[], addresses=[])
    with pytest.raises(AccountError, match="--allow-any"):
        store.edit_user(connection, "app", nothing, now=2.0)
    assert entries(store.load_user(connection, "app")) == [("a.com", False)]
    opened = store.edit_user(connection, "app", Changes(domains=[], allow_any=True), now=2.0)
    assert (opened.senders, opened.allow_any) == ((), True)
    closed = store.edit_user(connection, "app", Changes(domains=fields.domains("b.com")), now=3.0)
    assert not closed.allow_any
    with pytest.raises(AccountError, match="--allow-any"):
        store.edit_user(connection, "app", nothing, now=4.0)


def test_any_and_some_contradict(connection: Connection) -> None:
    """A18: any sender and a list of senders at a time is refused."""
    with pytest.raises(AccountError, match="contradict"):
        add(connection, domains="a.com", allow_any=True)
    add(connection, domains="a.com")
    with pytest.raises(AccountError, match="contradict"):
        store.edit_user(connection, "app", Changes(allow_any=True), now=2.0)


def test_delete(connection: Connection) -> None:
    """A5: a deleted user leaves no senders behind, and a new one of that name starts from nothing."""
    add(connection, domains="a.com", vouch=True)
    store.delete_user(connection, "App")
    assert store.load_user(connection, "app") is None
    assert entries(add(connection, "app", "b.com")) == [("b.com", False)]
    assert connection.scalar(select(func.count()).select_from(schema.senders)) == 1


def test_deleting_forgets_would_be_refusals(connection: Connection) -> None:
    """D5: what alert mode has counted of a user goes with the user, so that a new one of that name is not held to it; others' stay."""
    add(connection, "app")
    row = {"sender": "x@a.com", "reason": "domain_not_authorized", "reply": "550", "count": 1, "first_at": 1.0, "last_at": 1.0}
    connection.execute(insert(schema.would_refuse), [{"user": name, **row} for name in ("app", "other")])
    store.delete_user(connection, "App")
    assert list(connection.scalars(select(schema.would_refuse.c.user))) == ["other"]


def test_deleting_leaves_queued_mail(connection: Connection) -> None:
    """A5: deleting a user touches nothing of the queue, whose owner decides about it."""
    add(connection, "app")
    row = {"state": schema.QUEUED, "sender": "x@a.com", "user": "app", "level": 3, "size": 1, "received_at": 1.0, "chunks": 1}
    connection.execute(insert(schema.messages).values(id=1, content=b"x", **row))
    store.delete_user(connection, "app")
    assert store.load_user(connection, "app") is None
    assert list(connection.scalars(select(schema.messages.c.user))) == ["app"]


def test_unknown_user(connection: Connection) -> None:
    """A5: every command on a user that does not exist is refused with a sentence that says where the names are."""
    attempts: list[Callable[[], object]] = [
        lambda: store.edit_user(connection, "nobody", Changes(note="x"), now=1.0),
        lambda: store.delete_user(connection, "nobody"),
        lambda: store.set_active(connection, "nobody", True, now=1.0),
        lambda: store.set_password(connection, "nobody", "hash", now=1.0),
        lambda: store.get_user(connection, "nobody\n"),
    ]
    before = store.read_generation(connection)
    for attempt in attempts:
        with pytest.raises(AccountError, match=r'there is no user "nobody"; `smtpplus user list`'):
            attempt()
    assert store.read_generation(connection) == before


def test_every_change_is_seen(connection: Connection) -> None:
    """A6, A7: every change raises the generation and the user's fingerprint, also while the clock stands still or goes back."""
    changes: list[Callable[[], object]] = [
        lambda: add(connection, "app", "a.com"),
        lambda: store.set_password(connection, "app", "other", now=1.0),
        lambda: store.set_active(connection, "app", False, now=1.0),
        lambda: store.edit_user(connection, "app", Changes(domains=fields.domains("b.com")), now=0.5),
        lambda: store.edit_user(connection, "app", Changes(vouch=True), now=0.5),
        lambda: store.delete_user(connection, "app"),
    ]
    generations, prints = [store.read_generation(connection)], [store.fingerprints(connection, ["app"])]
    for change in changes:
        change()
        generations.append(store.read_generation(connection))
        prints.append(store.fingerprints(connection, ["app"]))
    assert len(set(generations)) == len(generations)
    assert all(after != before for before, after in itertools.pairwise(prints))
    assert prints[-1] == {}


def test_refused_change_is_not_seen(engine: Engine) -> None:
    """A command that is refused has changed nothing once its transaction is rolled back, not even the generation."""
    with engine.begin() as connection:
        add(connection, "app", "a.com")
        before = store.read_generation(connection)
    with pytest.raises(AccountError), engine.begin() as connection:
        store.edit_user(connection, "app", Changes(domains=[], settings={"priority": 1}), now=2.0)
    with engine.begin() as connection:
        assert store.read_generation(connection) == before
        assert store.get_user(connection, "app").settings == Settings()


def test_many_users(connection: Connection) -> None:
    """A5: loading and listing give each user their own senders, beyond what one statement asks for, and lists are told apart."""
    names = [f"user{number:04}" for number in range(1201)]
    for name in names:
        add(connection, name, f"{name}.com", list="odd" if int(name[-1]) % 2 else "even")
    loaded = store.load_users(connection, [*names, "nobody"])
    assert sorted(loaded) == names
    assert all(entries(user) == [(f"{name}.com", False)] for name, user in loaded.items())
    assert store.list_users(connection) == [loaded[name] for name in names]
    odd = store.list_users(connection, list="odd")
    assert [user.name for user in odd] == [name for name in names if int(name[-1]) % 2]
    assert all(entries(user) == [(f"{user.name}.com", False)] for user in odd)
    assert len(store.fingerprints(connection, names)) == len(names)
