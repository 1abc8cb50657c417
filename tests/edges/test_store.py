"""The store, on SQLite and on a real PostgreSQL: schemas, locks, full disks, kills."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from grid.jobs import JobState, StoreError, StoreFull, StoreLocked, StoreTooNew
from grid.jobs.record import FIELDS, JobRecord
from grid.jobs.rules.post import Note
from grid.jobs.store.store import HEAD, Store
from tests.lab.postgres import Postgres, postgres  # noqa: F401 - a fixture


def record(number: int, **kw: Any) -> JobRecord:
    values: dict[str, Any] = {
        "owner": "mara",
        "service": "x.Y",
        "version": "1",
        "request": {"grid_request": 1, "service": "x.Y", "version": "1", "data": {"ä": [1, None, "\u2603"]}},
        "created": 1e9 + number,
        "tags": ["mara", f"n={number}"],
        **kw,
    }
    return JobRecord(f"job-{number}", number, **values)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "store")
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def store(place: str, tmp_path: Path) -> Iterator[Store]:
    store = Store(place, tmp_path / "folders")
    yield store
    store.close()


@pytest.mark.row("J01", "J02", "J03")
def test_jobs_come_back_as_they_were_in_order(store: Store, place: str, tmp_path: Path) -> None:
    made = [
        record(1, state=JobState.ACTIVE, condition={"atom": "completed", "id": "a1", "job": "j"}, inputs=[1, None]),
        record(2, tags=[], result={"x": [1.5]}, best=3, has_best=True, progress=[1, 2, "cycles"], use_memo=True),
    ]
    store.insert(made)
    store.insert([record(n) for n in range(3, 50)])
    store.close()
    again = Store(place, tmp_path / "folders")
    try:
        found = again.load()
        assert found[:2] == made and [job.number for job in found] == list(range(1, 50))
    finally:
        again.close()


@pytest.mark.row("J01")
def test_changes_are_all_or_nothing(store: Store) -> None:
    store.insert([record(1), record(2)])
    with pytest.raises(StoreError):
        store.insert([record(3), record(1)])
    assert [job.number for job in store.load()] == [1, 2]
    store.update({"job-1": {"state": JobState.PENDING}, "job-2": {"state": JobState.ACTIVE, "reason": "x"}})
    one, two = store.load()
    assert (one.state, two.state, two.reason) == (JobState.PENDING, JobState.ACTIVE, "x")


@pytest.mark.row("V15", "J25", "C27")
def test_a_job_is_completed_once_and_its_result_remembered(store: Store) -> None:
    store.insert([record(1, state=JobState.ACTIVE)])
    store.keep_checkpoint("job-1", b"\0one")
    store.keep_checkpoint("job-1", b"\0two")
    assert store.checkpoint("job-1") == b"\0two" and store.checkpoint("job-2") is None
    change = {"state": JobState.COMPLETE, "result": {"a": 1}, "ended": 5.0}
    assert store.complete("job-1", change, remember="key")
    assert not store.complete("job-1", change)
    assert store.checkpoint("job-1") is None
    assert store.remembered("key") == ("job-1", {"a": 1}, {}) and store.remembered("other") is None
    assert store.forget("job-1") == 1 and store.remembered("key") is None


@pytest.mark.row("J20", "P06", "J08", "C38")
def test_deleting_users_and_races(store: Store) -> None:
    store.insert([record(1), record(2)])
    store.keep_checkpoint("job-1", b"x")
    store.delete(["job-1"])
    assert [job.id for job in store.load()] == ["job-2"] and store.checkpoint("job-1") is None
    store.keep_users({"mara": {"email": "m@x"}})
    store.keep_users({"mara": {"used": 3.5, "used_at": 7.0}, "ole": {"token": "t"}})
    users = store.users()
    assert users["mara"] == {"email": "m@x", "mails": "", "token": "", "used": 3.5, "used_at": 7.0}
    assert users["ole"]["token"] == "t"
    store.keep_race("race-1", ["a", "b"], "x < 1")
    assert store.races() == {"race-1": (["a", "b"], "x < 1")}
    store.end_race("race-1")
    assert store.races() == {}


@pytest.mark.row("J13", "J12")
def test_a_note_is_stored_with_the_end_that_it_tells_of(store: Store) -> None:
    store.insert([record(1, state=JobState.ACTIVE, mails="hourly"), record(2, state=JobState.ACTIVE)])
    note = Note(job="job-1", owner="mara", address="m@x", mails="hourly", noted=7.5, facts={"ä": "\u2603"})
    end = {"state": JobState.COMPLETE, "result": 1, "ended": 5.0}
    assert not store.count_notes() and store.load()[0].mails == "hourly"
    assert store.complete("job-1", end, note=note) and not store.complete("job-1", end, note=note)
    assert store.complete("job-2", end)
    (kept,) = store.notes()
    assert kept == replace(note, number=kept.number) and store.count_notes()
    store.post_notes([kept.number], "l1", 9.0)
    store.delete(["job-1"])  # its mail goes all the same
    assert store.notes() == [replace(kept, letter="l1", posted=9.0)]
    store.drop_notes([kept.number])
    assert not store.count_notes()


@pytest.mark.row("J01")
def test_a_store_that_another_manager_has_is_refused(store: Store, place: str, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked, match="in use by another job manager"):
        Store(place, tmp_path / "elsewhere")
    store.close()
    Store(place, tmp_path / "elsewhere").close()


@pytest.mark.row("J01")
def test_a_store_of_a_newer_version_is_refused_and_an_older_one_updated(
    store: Store, place: str, tmp_path: Path
) -> None:
    from alembic import command
    from alembic.config import Config

    store.insert([record(1, use_memo=True)])
    assert store._engine is not None
    config = Config()
    migrations = Path(sys.modules[Store.__module__].__file__ or "").parent / "migrations"
    config.set_main_option("script_location", str(migrations))
    with store._engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    store.close()
    again = Store(place, tmp_path / "folders")
    assert again.load()[0].use_memo is False  # the column is there again
    assert again._engine is not None
    with again._engine.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    again.close()
    with pytest.raises(StoreTooNew, match="schema 9999"):
        Store(place, tmp_path / "folders")


@pytest.mark.row("J01")
def test_the_tables_are_those_of_the_migrations(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from grid.jobs.store.tables import metadata

    assert store._engine is not None
    with store._engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
        assert MigrationContext.configure(connection).get_current_revision() == HEAD
    assert not differences
    versions = Path(sys.modules[Store.__module__].__file__ or "").parent / "migrations" / "versions"
    assert max(path.name for path in versions.glob("v*.py")).startswith(f"v{HEAD}_")
    assert {column.name for column in metadata.tables["jobs"].columns} == set(FIELDS) - {"tags"}


@pytest.mark.row("J01")
def test_a_full_disk_is_named_and_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(place)], stderr=subprocess.DEVNULL
    )
    if not mounted:
        pytest.skip("only root can mount a small file system")
    try:
        store = Store(place)
        kept = 0
        with pytest.raises(StoreFull, match="is full"):
            for number in range(1, 10_000):
                store.insert([record(number, trace="x" * 2000)])
                kept += 1
        store.close()
        filler = sorted(place.glob("*-wal"))
        assert kept > 10 and not any(path.stat().st_size > 2**20 for path in filler)
        connection = sqlite3.connect(f"file:{place}/jobs.sqlite?mode=ro", uri=True)
        assert connection.execute("select count(*) from jobs").fetchone() == (kept,)
        connection.close()
    finally:
        subprocess.check_call(["umount", str(place)])


@pytest.mark.row("J01")
def test_what_can_not_be_opened_says_why(tmp_path: Path) -> None:
    for wrong in ("nosuch://x/y", f"postgresql://tester@/x?host={tmp_path}"):
        with pytest.raises(StoreError):
            Store(wrong, tmp_path / "folders")
    (tmp_path / "bad").mkdir(mode=0o700)
    (tmp_path / "bad" / "jobs.sqlite").write_bytes(b"no database at all, but some text" * 100)
    with pytest.raises(StoreError, match="could not open"):
        Store(tmp_path / "bad")


@pytest.mark.row("J01")
def test_a_writer_that_is_killed_leaves_whole_transactions_and_no_lock(place: str, tmp_path: Path) -> None:
    program = f"""
import sys
from tests.edges.test_store import record
from grid.jobs.store.store import Store
store = Store({place!r}, {str(tmp_path / "folders")!r})
for n in range(0, 10**6, 2):
    store.insert([record(n), record(n + 1)])
    print(n, flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    for _ in range(20):
        last = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    last = max([last, *map(int, child.stdout.read().split())])
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 20
    while True:
        try:
            store = Store(place, tmp_path / "folders")
            break
        except StoreLocked:  # a PostgreSQL needs a moment to see that its client is gone
            assert time.monotonic() < deadline
            time.sleep(0.05)
    try:
        numbers = [job.number for job in store.load()]
        assert numbers == list(range(len(numbers))) and len(numbers) % 2 == 0 and len(numbers) >= last + 2
    finally:
        store.close()
