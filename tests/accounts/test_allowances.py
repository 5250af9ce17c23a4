"""Rates and quotas of users and lists, as the queue gets them."""

from __future__ import annotations

from pathlib import Path

from smtpplus.accounts import lists, store
from smtpplus.accounts.allowances import load_allowances
from smtpplus.accounts.settings import SERVER, Settings
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
        assert load_allowances(connection, SERVER) == ({"one": (60, 100), "two": (0, 7)}, {"news": (60, 0)})
    engine.dispose()
