"""A remembered result knows the files that belong to it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Older results are remembered without files."""
    with op.batch_alter_table("memory") as batch:
        batch.add_column(sa.Column("files", sa.Text, nullable=False, server_default="{}"))


def downgrade() -> None:
    """Forget them."""
    with op.batch_alter_table("memory") as batch:
        batch.drop_column("files")
