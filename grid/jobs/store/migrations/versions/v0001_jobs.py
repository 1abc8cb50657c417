"""Jobs, tags, checkpoints, remembered results, users, races."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False, unique=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("service", sa.String(300), nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("archived", sa.Boolean, nullable=False),
        sa.Column("condition", sa.Text),
        sa.Column("inputs", sa.Text),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("started", sa.Float),
        sa.Column("ended", sa.Float),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("best", sa.Text),
        sa.Column("has_best", sa.Boolean, nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("trace", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("memo", sa.String(80), nullable=False),
        sa.Column("notify", sa.String(300), nullable=False),
    )
    op.create_index("jobs_by_state", "jobs", ["state"])
    job = sa.ForeignKey("jobs.id", ondelete="CASCADE")
    op.create_table(
        "tags",
        sa.Column("job", sa.String(128), job, primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True),
        sa.Column("tag", sa.String(200), nullable=False),
    )
    op.create_index("tags_by_tag", "tags", ["tag"])
    op.create_table(
        "checkpoints",
        sa.Column("job", sa.String(128), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
    )
    op.create_table(
        "memory",
        sa.Column("key", sa.String(80), primary_key=True),
        sa.Column("job", sa.String(128), nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
    )
    op.create_table(
        "users",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("email", sa.String(300), nullable=False),
        sa.Column("token", sa.String(80), nullable=False),
        sa.Column("used", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float, nullable=False),
    )
    op.create_table(
        "races",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("jobs", sa.Text, nullable=False),
        sa.Column("expression", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """To nothing."""
    for name in ("races", "users", "memory", "checkpoints", "tags", "jobs"):
        op.drop_table(name)
