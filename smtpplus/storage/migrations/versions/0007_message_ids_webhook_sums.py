"""Where a Message-ID is found, what the webhook is owed, and sums of days whose history is gone."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

IDENTITY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "message_ids",
        sa.Column("first", IDENTITY, autoincrement=False, nullable=False),
        sa.Column("last", IDENTITY, nullable=False),
        sa.Column("marks", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("first"),
    )
    op.create_table(
        "webhook_posts",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("tried", sa.Integer(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    sums = ("messages", "recipients", "octets", "delivered", "deferred", "failed", "cancelled", "refused")
    op.create_table(
        "sums",
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("list", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        *(sa.Column(name, IDENTITY, nullable=False) for name in sums),
        sa.PrimaryKeyConstraint("day", "list", "user", "level"),
    )
