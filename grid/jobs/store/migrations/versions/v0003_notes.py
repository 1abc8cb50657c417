"""Notes of ends of jobs that are to be mailed; how often users want mails; when a job improved last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Users get a mail a day, unless they ask otherwise."""
    op.create_table(
        "notes",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("address", sa.String(300), nullable=False),
        sa.Column("mails", sa.String(10), nullable=False),
        sa.Column("noted", sa.Float, nullable=False),
        sa.Column("letter", sa.String(40), nullable=False),
        sa.Column("posted", sa.Float, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
    )
    for table in ("users", "jobs"):
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("mails", sa.String(10), nullable=False, server_default=""))
            if table == "jobs":
                batch.add_column(sa.Column("improved", sa.Float))


def downgrade() -> None:
    """Forget them."""
    for table in ("jobs", "users"):
        with op.batch_alter_table(table) as batch:
            batch.drop_column("mails")
            if table == "jobs":
                batch.drop_column("improved")
    op.drop_table("notes")
