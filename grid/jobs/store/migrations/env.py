"""Alembic's way in: runs the migrations over the connection that the store hands over."""

from __future__ import annotations

from alembic import context

from grid.jobs.store.tables import metadata

if hasattr(context, "config"):  # false when somebody only imports it
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        render_as_batch=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
