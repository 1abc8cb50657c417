"""Tables of the store, as of the newest migration."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("owner", String(200), nullable=False),
    Column("service", String(300), nullable=False),
    Column("version", String(100), nullable=False),
    Column("request", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("archived", Boolean, nullable=False),
    Column("condition", Text),
    Column("inputs", Text),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("attempt", Integer, nullable=False),
    Column("result", Text),
    Column("best", Text),
    Column("has_best", Boolean, nullable=False),
    Column("improved", Float),
    Column("progress", Text),
    Column("error", Text, nullable=False),
    Column("trace", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("memo", String(80), nullable=False),
    Column("use_memo", Boolean, nullable=False),
    Column("notify", String(300), nullable=False),
    Column("mails", String(10), nullable=False),
    Index("jobs_by_state", "state"),
)
tags = Table(
    "tags",
    metadata,
    Column("job", String(128), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("tag", String(200), nullable=False),
    Index("tags_by_tag", "tag"),
)
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("job", String(128), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("state", LargeBinary, nullable=False),
    Column("time", Float, nullable=False),
)
memory = Table(
    "memory",
    metadata,
    Column("key", String(80), primary_key=True),
    Column("job", String(128), nullable=False),
    Column("result", Text, nullable=False),
    Column("time", Float, nullable=False),
    Column("files", Text, nullable=False),
)
users = Table(
    "users",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("email", String(300), nullable=False),
    Column("token", String(80), nullable=False),
    Column("used", Float, nullable=False),
    Column("used_at", Float, nullable=False),
    Column("mails", String(10), nullable=False),
)
races = Table(
    "races",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("jobs", Text, nullable=False),
    Column("expression", Text, nullable=False),
)
notes = Table(
    "notes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job", String(128), nullable=False),  # no foreign key: a job may be deleted before its mail goes
    Column("owner", String(200), nullable=False),
    Column("address", String(300), nullable=False),
    Column("mails", String(10), nullable=False),
    Column("noted", Float, nullable=False),
    Column("letter", String(40), nullable=False),
    Column("posted", Float, nullable=False),
    Column("facts", Text, nullable=False),
)

PLAIN = frozenset({"request", "condition", "inputs", "result", "best", "progress"})
"""Columns of `jobs` that hold JSON."""
