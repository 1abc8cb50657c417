"""A PostgreSQL server for tests: of Debian's package, as an ordinary user, on a UNIX socket in a directory of its own.

Lives here: the fixture `postgres`, to be imported by the tests that use it.
Elsewhere:  what happens where the package is missing (`tests/conftest.py`).
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import MissingPart


class Postgres:
    """A server with an empty database for whoever asks."""

    def __init__(self) -> None:
        places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin")]
        found = next((place for place in places if (place / "initdb").exists()), None)
        if found is None:
            raise MissingPart("no PostgreSQL server here (Debian package postgresql)")
        self._bin = found
        self.directory = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
        self._user = pwd.getpwnam(_user()) if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
        self._numbers = iter(range(1, 1000))

    def start(self) -> None:
        """Make a cluster and start it; data need not survive a power cut here."""
        self._run("initdb", "-D", "data", "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-k {self.directory} -c listen_addresses= -c fsync=off -c autovacuum=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", "60", "-o", options, "start")

    def stop(self) -> None:
        """End it and remove its files."""
        try:
            self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def database(self) -> str:
        """The URL of a fresh one."""
        name = f"jobs{next(self._numbers)}"
        self._run("createdb", "-h", str(self.directory), "-U", "tester", name)
        return f"postgresql://tester@/{name}?host={self.directory}"

    def _run(self, program: str, *arguments: str) -> None:
        # a daemon that is not of the test's family, and does not look like it (`tests/tidiness.py`)
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self.directory)}
        ids = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if program != "pg_ctl" else subprocess.DEVNULL,
            text=True,
            timeout=120,
            **ids,  # type: ignore[arg-type]
        )
        if done.returncode:
            log = self.directory / "log"
            said = done.stdout or (log.read_text()[-2000:] if log.exists() else "")
            raise RuntimeError(f"{program} failed: {said}")


def _user() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()
