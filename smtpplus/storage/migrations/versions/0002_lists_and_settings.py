"""Lists, settings that users inherit from them, SCRAM verifiers, and what alert mode let through.

A user's priority becomes a setting: 3 was the default and is inherited from now on. A list that users name is made.
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "lists",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("settings", sa.Text(), server_default="{}", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "would_refuse",
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("user", "sender", "reason"),
    )
    op.create_index(op.f("ix_senders_value"), "senders", ["value"])
    # Plain ALTER TABLE, not alembic's batch mode: that would drop and remake `users`, and its senders with it.
    op.add_column("users", sa.Column("scram", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("settings", sa.Text(), server_default="{}", nullable=False))
    users = sa.table("users", sa.column("settings", sa.Text), sa.column("priority", sa.Integer), sa.column("list", sa.Text))
    for level in (1, 2, 4, 5):
        op.execute(users.update().where(users.c.priority == level).values(settings=f'{{"priority":{level}}}'))
    op.drop_column("users", "priority")
    now = sa.literal(time.time(), sa.Float)
    lists = sa.table("lists", *(sa.column(name) for name in ("name", "created_at", "changed_at")))
    named = sa.union(sa.select(sa.literal("default").label("name")), sa.select(users.c.list)).subquery()
    op.execute(lists.insert().from_select(["name", "created_at", "changed_at"], sa.select(named.c.name, now, now)))
