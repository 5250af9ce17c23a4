"""An older database keeps its users when lists and settings come (migration 0002)."""

from __future__ import annotations

import json
from pathlib import Path

from alembic import command
from alembic.config import Config

from smtpplus.storage import engine


def test_users_and_senders_stay(tmp_path: Path) -> None:
    """A32, A23: users keep senders, list and priority; the priority 3 is inherited from now on, and each list that was named is there."""
    url = f"sqlite:///{tmp_path}/a.sqlite"
    opened = engine.create_engine(url)
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(engine.__file__).parent / "migrations"))
    with opened.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "0001")
        for name, group, level in (("a", "default", 3), ("b", "news", 5), ("c", "news", 1)):
            connection.exec_driver_sql(
                "INSERT INTO users (name, list, password, priority, created_at, changed_at) "
                f"VALUES ('{name}', '{group}', 'h', {level}, 1, 1)"
            )
            connection.exec_driver_sql(
                "INSERT INTO senders (user_id, kind, value, verified, created_at) "
                f"SELECT id, 'domain', '{name}.com', true, 1 FROM users WHERE name = '{name}'"
            )
    engine.migrate(url)
    with opened.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT name, list, settings, scram, value FROM users JOIN senders ON user_id = users.id ORDER BY name"
        ).all()
        lists = connection.exec_driver_sql("SELECT name, settings FROM lists ORDER BY name").all()
    opened.dispose()
    assert [(row.name, row.list, json.loads(row.settings), row.scram, row.value) for row in rows] == [
        ("a", "default", {}, None, "a.com"),
        ("b", "news", {"priority": 5}, None, "b.com"),
        ("c", "news", {"priority": 1}, None, "c.com"),
    ]
    assert [tuple(row) for row in lists] == [("default", "{}"), ("news", "{}")]
