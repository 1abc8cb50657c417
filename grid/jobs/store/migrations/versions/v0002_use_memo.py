"""A job says whether it wants remembered results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Older jobs did not."""
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("use_memo", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Forget it."""
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("use_memo")
