"""Rates and quotas of users and lists, as the queue gets them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from smtpplus.accounts import lists, store
from smtpplus.accounts.allowances import Allowances, load_allowances
from smtpplus.accounts.settings import SERVER, Settings
from smtpplus.config.values import Rate
from smtpplus.storage.engine import create_engine, migrate


def test_what_users_and_lists_set(tmp_path: Path) -> None:
    """C7, A32: a user's own word counts, what it leaves open the list says, then the server; who sets nothing is not named."""
    url = f"sqlite:///{tmp_path}/x.sqlite"
    migrate(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        lists.add_list(connection, "news", now=1.0, settings=Settings(rate=60))
        lists.add_list(connection, "plain", now=1.0, settings=Settings(priority=5))
        for name, list_, settings in (("one", "news", {"quota": 100}), ("two", "plain", {"rate": 0, "quota": 7}), ("three", "news", {})):
            store.add_user(connection, name, "hash", now=1.0, list=list_, allow_any=True)
            store.edit_user(connection, name, store.Changes(settings=settings, note="x"), now=2.0)
        minute: Rate = (60, 60.0, "recipients")
        day: Rate = (100, 86_400.0, "recipients")
        assert load_allowances(connection, SERVER) == Allowances(
            {"one": (minute, day), "two": ((7, 86_400.0, "recipients"),)}, {"news": (minute,)}, {"news": ()}, (), ()
        )
    engine.dispose()


def test_octets_and_whole_lists(tmp_path: Path) -> None:
    """C7: limits in octets and of an hour stand beside rate and quota; a list has a sum of its own, by its word or the server's."""
    url = f"sqlite:///{tmp_path}/x.sqlite"
    migrate(url)
    engine = create_engine(url)
    server = msgspec.structs.replace(SERVER, quota=9, per_user="1 KiB/h", per_list="50/m")
    with engine.begin() as connection:
        lists.add_list(connection, "news", now=1.0, settings=Settings(per_list="500/h; 1 MiB/d"))
        lists.add_list(connection, "free", now=1.0, settings=Settings(per_list="", quota=0))
        store.add_user(connection, "one", "hash", now=1.0, list="news", allow_any=True)
        store.edit_user(connection, "one", store.Changes(settings={"per_user": ""}), now=2.0)
        found = load_allowances(connection, server)
    quota, octets = (9, 86_400.0, "recipients"), (1024, 3600.0, "octets")
    assert found.users == {"one": (quota,)}
    assert found.lists == {"news": (quota, octets), "free": (octets,)}
    assert found.sums == {"news": ((500, 3600.0, "recipients"), (1024**2, 86_400.0, "octets")), "free": ()}
    assert (found.everybody, found.every_list) == ((quota, octets), ((50, 60.0, "recipients"),))
    engine.dispose()
