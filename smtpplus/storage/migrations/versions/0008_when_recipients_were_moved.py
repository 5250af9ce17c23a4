"""When another process changed a recipient, and for when it was put off: both are told in the message's history."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("changes", sa.Column("at", sa.Float(), nullable=False, server_default=sa.text("0")))
    op.add_column("changes", sa.Column("due", sa.Float(), nullable=False, server_default=sa.text("0")))
