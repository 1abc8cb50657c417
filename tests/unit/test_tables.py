"""The tables of the store, and the record that has the same fields."""

from __future__ import annotations

from pathlib import Path

import pytest

sqlalchemy = pytest.importorskip("sqlalchemy")
from grid.jobs.record import FIELDS  # noqa: E402
from grid.jobs.store import tables  # noqa: E402
from grid.jobs.store.store import Store  # noqa: E402

pytestmark = pytest.mark.row("J01", "J02")


def test_each_field_of_a_record_has_its_column_and_no_other() -> None:
    assert {column.name for column in tables.jobs.columns} == set(FIELDS) - {"tags"}
    for name in tables.PLAIN:
        assert isinstance(tables.jobs.c[name].type, sqlalchemy.Text)


def test_migrations_lead_to_these_tables(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path}/jobs.db").close()
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/jobs.db")
    look = sqlalchemy.inspect(engine)
    for table in tables.metadata.sorted_tables:
        made = {column["name"]: column for column in look.get_columns(table.name)}
        assert set(made) == {column.name for column in table.columns}, table.name
        for column in table.columns:
            assert made[column.name]["nullable"] == column.nullable or column.primary_key, (table.name, column.name)
        assert look.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]
    engine.dispose()
