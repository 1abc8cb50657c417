"""Jobs on disk. Each method is one transaction: after a kill at any point either all of it happened or nothing.

    Store("~/.local/share/grid/jobs")                 # SQLite in that directory, which also has a folder per job
    Store("postgresql://user@host/name", directory)   # the jobs there, the folders here

One manager at a time has a store open: SQLite by a locked file beside the database, PostgreSQL by an advisory lock.
Both locks end with their process, however it ends.

Lives here: `Store`.
Elsewhere:  tables (`tables.py`), schema versions (`migrations/`), what a job is (`grid/jobs/record.py`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, OperationalError, SQLAlchemyError

from grid.errors import DiskError
from grid.jobs.host.errors import RequestError, StoreError, StoreFull, StoreLocked, StoreTooNew
from grid.jobs.host.plain import dumps, loads
from grid.jobs.record import FIELDS, JobRecord
from grid.jobs.rules.post import Note
from grid.jobs.rules.states import JobState
from grid.jobs.store import tables
from grid.text import clean
from grid.wire.places import store_dir

BUSY_S = 10.0
"""How long SQLite waits for others that read the file."""

HEAD = "0004"
"""Revision of the newest migration; a test holds it against them."""

RESERVE = 4 << 20
"""Bytes set aside in a file, a quarter of the free ones at most; given up when there is no other room to delete in."""

logger = logging.getLogger(__name__)

_ADVISORY = 0x6772696400  # "grid", in PostgreSQL's space of advisory locks
_NOTE = tuple(each.name for each in fields(Note))
_FULL = ("disk is full", "no space left", "disk full", "could not extend file", "disk i/o error")


class Store:
    """See the module. Opening it brings an older schema up to date.

    Args:
        where: A directory, or a URL of SQLAlchemy.
        directory: Where folders of jobs lie, if `where` is a URL.
    Raises:
        StoreLocked: Another manager has it.
        StoreTooNew: A newer version of grid made it.
        StoreFull, StoreError: It can't be opened; the message says why.
    """

    def __init__(self, where: str | os.PathLike[str], directory: str | os.PathLike[str] | None = None) -> None:
        text = os.fspath(where)
        if "://" in text:
            self.url = sa.make_url(text)
            if self.url.drivername == "postgresql":
                self.url = self.url.set(drivername="postgresql+psycopg")
            base = Path(directory or "~/.local/share/grid/jobs").expanduser()
        else:
            base = _directory(Path(text))
            self.url = sa.URL.create("sqlite", database=str(base / "jobs.sqlite"))
        self.directory = _directory(base)
        self._is_sqlite = self.url.get_backend_name() == "sqlite"
        self._lock_file: int | None = None
        self._lock_line: Connection | None = None
        self._engine: Engine | None = None
        self._writing = threading.RLock()
        self._reserve = self.directory / "reserve"
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """For messages; no password."""
        return str(self.url.render_as_string(hide_password=True))

    def _open(self) -> None:
        if self._is_sqlite:
            self._lock_sqlite()
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_S}} if self._is_sqlite else {"pool_pre_ping": True}
        with self._translated("open"):
            try:
                self._engine = sa.create_engine(self.url, **options)
            except ImportError as exc:
                raise StoreError(
                    f"the store {self.name} needs the module {exc.name}", hint="Run: pip install 'sshgrid[postgresql]'"
                ) from exc
        if self._is_sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        with self._translated("open"):
            if not self._is_sqlite:
                self._lock_postgresql()
            self._migrate()
        self.set_aside()

    def set_aside(self) -> None:
        """Keep some room for the day when the disk is full: deletions need some, and so do the ends of jobs at work."""
        try:
            room = os.statvfs(self.directory)
            size = min(RESERVE, room.f_bavail * room.f_frsize // 4)
            if self._reserve.exists() or size < RESERVE // 8:
                return
            part = self._reserve.with_suffix(".part")
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            os.replace(part, self._reserve)
        except OSError as exc:
            logger.warning("no room is set aside in %s (%s)", self.directory, exc.strerror)

    def give_room(self) -> bool:
        """Give up what was set aside; whether there was something."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        logger.warning("the disk of %s is full: what was set aside for deletions is used", self.directory)
        return True

    def _lock_sqlite(self) -> None:
        path = Path(f"{self.url.database}.lock")
        try:
            self._lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StoreError(
                f"the store {self.directory} can't be written to ({exc.strerror})",
                hint="Make it writable for you, or name another directory: --store",
            ) from exc
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock_file, 100, 0).decode(errors="replace").strip()
            raise StoreLocked(
                f"the store {self.directory} is in use by another job manager ({holder or 'unknown'})",
                hint="Use that one (`grid jobs list`), or name another store",
            ) from None
        os.ftruncate(self._lock_file, 0)
        os.pwrite(self._lock_file, f"process {os.getpid()}\n".encode(), 0)

    def _lock_postgresql(self) -> None:
        assert self._engine is not None
        self._lock_line = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        got = self._lock_line.execute(sa.text("select pg_try_advisory_lock(:key)"), {"key": _ADVISORY}).scalar()
        if not got:
            raise StoreLocked(
                f"the store {self.name} is in use by another job manager",
                hint="Use that one, or another database",
            )

    def _migrate(self) -> None:
        assert self._engine is not None
        with self._engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        if current == HEAD:
            return
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if current is not None and current not in known:
            raise StoreTooNew(
                f"the store {self.name} has schema {current}, and this grid knows {', '.join(sorted(known))}",
                hint="A newer grid made it: use that one",
            )
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Give the store free."""
        if self._lock_line is not None:
            self._lock_line.close()
            self._lock_line = None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OperationalError as exc:
            text = str(exc.orig)
            if any(sign in text.lower() for sign in _FULL):
                raise StoreFull(
                    f"the store {self.name} is full ({text})",
                    hint="Make room, or delete jobs (`grid jobs delete`); what was acknowledged is safe",
                ) from exc
            if "locked" in text:
                raise StoreLocked(f"the store {self.name} is locked ({text})", hint="End who reads it") from exc
            raise StoreError(f"could not {doing} the store {self.name} ({text})", hint="Is it there, ours?") from exc
        except (DataError, OverflowError, TypeError, UnicodeError) as exc:  # asking again would not help
            said = clean(getattr(exc, "orig", exc), 300)
            raise RequestError(f"a value can't be stored ({said})", hint="It is too large, or no valid text") from exc
        except DBAPIError as exc:
            raise StoreError(f"could not {doing} the store {self.name} ({exc.orig})", hint="See its log") from exc
        except SQLAlchemyError as exc:
            raise StoreError(f"could not {doing} the store {self.name} ({exc})", hint="Is the URL right?") from exc

    @contextmanager
    def _transaction(self, doing: str = "write to") -> Iterator[Connection]:
        if self._engine is None:
            raise StoreError(f"the store {self.name} is closed", hint="The job manager has stopped")
        with self._translated(doing), self._writing, self._engine.begin() as connection:
            yield connection

    # -- jobs ------------------------------------------------------------------------------------------------------

    def load(self) -> list[JobRecord]:
        """All jobs, in the order of their submission."""
        with self._transaction("read") as connection:
            found = {
                row.id: _record(row._mapping)
                for row in connection.execute(sa.select(tables.jobs).order_by(tables.jobs.c.number))
            }
            for job, tag in connection.execute(
                sa.select(tables.tags.c.job, tables.tags.c.tag).order_by(tables.tags.c.job, tables.tags.c.place)
            ):
                found[job].tags.append(tag)
        return list(found.values())

    def insert(self, records: Sequence[JobRecord]) -> None:
        """New jobs, all or none."""
        rows = [_row({name: getattr(record, name) for name in FIELDS}) for record in records]
        labels = [
            {"job": record.id, "place": place, "tag": tag}
            for record in records
            for place, tag in enumerate(record.tags)
        ]
        with self._transaction() as connection:
            connection.execute(tables.jobs.insert(), rows)
            if labels:
                connection.execute(tables.tags.insert(), labels)

    def update(self, changes: Mapping[str, Mapping[str, Any]], forget_checkpoints: Sequence[str] = ()) -> None:
        """Columns of jobs: id -> name -> value. All in one transaction."""
        with self._transaction() as connection:
            groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
            for job, values in changes.items():
                row = _row(values)
                groups.setdefault(tuple(row), []).append({**row, "b_id": job})
            for rows in groups.values():  # those that change the same columns go together
                statement = tables.jobs.update().where(tables.jobs.c.id == sa.bindparam("b_id"))
                connection.execute(statement, rows)
            if forget_checkpoints:
                _delete(connection, tables.checkpoints, "job", forget_checkpoints)

    def complete(
        self,
        job: str,
        changes: Mapping[str, Any],
        remember: str = "",
        note: Note | None = None,
        files: Mapping[str, str] | None = None,
    ) -> bool:
        """The end of an active job, with what its result is remembered by and its files, and a note for the mail; False
        if it is not active any more.
        """
        with self._transaction() as connection:
            done = connection.execute(
                tables.jobs.update()
                .where(tables.jobs.c.id == job, tables.jobs.c.state == JobState.ACTIVE.value)
                .values(_row(changes))
            )
            if done.rowcount != 1:
                return False
            connection.execute(tables.checkpoints.delete().where(tables.checkpoints.c.job == job))
            if remember:
                connection.execute(tables.memory.delete().where(tables.memory.c.key == remember))
                row = {"key": remember, "job": job, "result": dumps(changes["result"]), "time": time.time()}
                row["files"] = dumps(dict(files or {}))
                connection.execute(tables.memory.insert(), row)
            if note is not None:
                row = {name: getattr(note, name) for name in _NOTE if name not in ("number", "facts")}
                connection.execute(tables.notes.insert(), {**row, "facts": dumps(dict(note.facts))})
        return True

    def delete(self, jobs: Sequence[str]) -> None:
        """Jobs and all that belongs to them. On a full disk, with the room that was set aside for it."""
        try:
            self._remove(jobs)
        except StoreFull:
            if not self.give_room():
                raise
            self._remove(jobs)

    def _remove(self, jobs: Sequence[str]) -> None:
        with self._transaction() as connection:
            for table, column in ((tables.tags, "job"), (tables.checkpoints, "job"), (tables.jobs, "id")):
                _delete(connection, table, column, jobs)

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def keep_checkpoint(self, job: str, state: bytes) -> None:
        """Replaces the last one."""
        with self._transaction() as connection:
            connection.execute(tables.checkpoints.delete().where(tables.checkpoints.c.job == job))
            connection.execute(tables.checkpoints.insert(), {"job": job, "state": state, "time": time.time()})

    def checkpoint(self, job: str) -> bytes | None:
        """The last one."""
        with self._transaction("read") as connection:
            column = tables.checkpoints.c.state
            found = connection.execute(sa.select(column).where(tables.checkpoints.c.job == job)).scalar()
        return None if found is None else bytes(found)

    # -- remembered results ----------------------------------------------------------------------------------------

    def remembered(self, key: str) -> tuple[str, Any, dict[str, str]] | None:
        """The job that had that result, the result, and the job's files (path -> sha256)."""
        with self._transaction("read") as connection:
            row = connection.execute(sa.select(tables.memory).where(tables.memory.c.key == key)).first()
        return None if row is None else (row.job, loads(row.result), loads(row.files))

    def forget(self, job: str | None = None) -> int:
        """Forget what a job is remembered for, or all; returns how many."""
        statement = tables.memory.delete()
        if job is not None:
            statement = statement.where(tables.memory.c.job == job)
        with self._transaction() as connection:
            return connection.execute(statement).rowcount

    def forget_key(self, key: str) -> None:
        """What is remembered under a key holds no more."""
        with self._transaction() as connection:
            connection.execute(tables.memory.delete().where(tables.memory.c.key == key))

    # -- notes for the mail ----------------------------------------------------------------------------------------

    def count_notes(self) -> int:
        """How many are not sent."""
        with self._transaction("read") as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(tables.notes)).scalar() or 0)

    def notes(self) -> list[Note]:
        """All that are not sent, in the order of their making."""
        with self._transaction("read") as connection:
            rows = connection.execute(sa.select(tables.notes).order_by(tables.notes.c.number)).mappings().all()
        return [Note(**{**{name: row[name] for name in _NOTE}, "facts": loads(row["facts"])}) for row in rows]

    def post_notes(self, numbers: Sequence[int], letter: str, posted: float) -> None:
        """They go in that letter, and in no other."""
        statement = tables.notes.update().where(tables.notes.c.number == sa.bindparam("b_number"))
        with self._transaction() as connection:
            connection.execute(
                statement, [{"b_number": number, "letter": letter, "posted": posted} for number in numbers]
            )

    def drop_notes(self, numbers: Sequence[int]) -> None:
        """Sent, or not wanted."""
        statement = tables.notes.delete().where(tables.notes.c.number == sa.bindparam("b_number"))
        with self._transaction() as connection:
            connection.execute(statement, [{"b_number": number} for number in numbers])

    # -- users, races ----------------------------------------------------------------------------------------------

    def users(self) -> dict[str, dict[str, Any]]:
        """Name -> email, mails (how often; empty: daily), token (its hash), used, used_at."""
        with self._transaction("read") as connection:
            rows = connection.execute(sa.select(tables.users)).mappings().all()
        return {row["name"]: {key: value for key, value in row.items() if key != "name"} for row in rows}

    def keep_users(self, users: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the rows of these."""
        blank = {"email": "", "token": "", "used": 0.0, "used_at": 0.0, "mails": ""}
        with self._transaction() as connection:
            for name, values in users.items():
                query = sa.select(tables.users).where(tables.users.c.name == name)
                known = connection.execute(query).mappings().first()
                row = {**blank, **(known or {}), **values, "name": name}
                connection.execute(tables.users.delete().where(tables.users.c.name == name))
                connection.execute(tables.users.insert(), row)

    def races(self) -> dict[str, tuple[list[str], str]]:
        """Races under way: id -> jobs, expression."""
        with self._transaction("read") as connection:
            rows = connection.execute(sa.select(tables.races)).all()
        return {row.id: (loads(row.jobs), row.expression) for row in rows}

    def keep_race(self, race: str, jobs: Sequence[str], expression: str) -> None:
        """One that begins."""
        with self._transaction() as connection:
            row = {"id": race, "jobs": dumps(list(jobs)), "expression": expression}
            connection.execute(tables.races.insert(), row)

    def end_race(self, race: str) -> None:
        """One that is decided."""
        with self._transaction() as connection:
            connection.execute(tables.races.delete().where(tables.races.c.id == race))


def _directory(path: Path) -> Path:
    """The directory of a store, made if it is not there.

    Raises:
        StoreError: It can't be one; the message says why.
    """
    path = path.expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise StoreError(f"the store {path} is a file", hint="Name a directory; the database lies in it: jobs.sqlite")
    try:
        found = store_dir(path)
    except (DiskError, OSError) as exc:
        why = exc.what if isinstance(exc, DiskError) else exc.strerror
        hint = getattr(exc, "hint", "") or "Name a directory of yours: --store"
        raise StoreError(f"the store {path} can't be used: {why}", hint=hint) from exc
    if not os.access(found, os.W_OK | os.X_OK):
        raise StoreError(f"the store {found} can't be written to", hint=f"chmod u+wx {found}, or name another: --store")
    return found


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # Python's sqlite3 leaves CREATE TABLE outside of transactions: a kill in a migration would leave half a schema.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged job survives a power cut, too
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _delete(connection: Connection, table: sa.Table, column: str, jobs: Sequence[str]) -> None:
    connection.execute(table.delete().where(table.c[column] == sa.bindparam("b_id")), [{"b_id": job} for job in jobs])


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    row = {}
    for name, value in values.items():
        if name in tables.PLAIN:
            row[name] = None if value is None else dumps(value)
        elif name == "state":
            row[name] = value.value
        elif name != "tags":
            row[name] = str(value) if isinstance(value, str) else value  # drivers know the very type only
    return row


def _record(row: Mapping[Any, Any]) -> JobRecord:
    values = dict(row)
    for name in tables.PLAIN:
        values[name] = None if values[name] is None else loads(values[name])
    return JobRecord(**{**values, "state": JobState(values["state"])})
