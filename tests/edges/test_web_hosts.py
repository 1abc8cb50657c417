"""Two job servers on two hosts, over TLS: the workflow of the example, and what is seen of its tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.lab import Lab, LabHost
from tests.lab.host import RunningHost

ROOT = Path(__file__).parents[2]
LIMIT_S = 90.0
PORT = 8440


def with_needs(*names: str) -> tuple[str, ...]:
    """Distributions, and all that they need here."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name.lower() in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # only elsewhere
        found[name.lower()] = None
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(need.name)
    return tuple(sorted(found))


class Served:
    """`grid serve` on a host."""

    def __init__(self, host: RunningHost, *modules: str) -> None:
        self.host = host
        serve = f"python3 -m grid serve {' '.join(modules)} --local 2 --store jobs --json"
        serve += f" --http {host.address}:{PORT} --tls self --fetch-allow {host.address}/16"
        out = self.shell(f"cd /tmp; {serve} >served.json 2>served.log </dev/null & echo $!")
        self.pid = int(out)
        deadline = time.monotonic() + LIMIT_S
        while not (line := self.shell("cat /tmp/served.json")).endswith("}\n"):
            assert time.monotonic() < deadline, self.shell("cat /tmp/served.log")
            time.sleep(0.1)
        about = json.loads(line)
        self.url = f"{about['url']}#{about['fingerprint']}"

    def shell(self, text: str) -> str:
        command = f"export PYTHONPATH=/grid PYTHONDONTWRITEBYTECODE=1; {text}"
        done = self.host.run(["sh", "-c", command], timeout=LIMIT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def token(self, user: str, *scopes: str) -> str:
        chosen = " ".join(f"--scope {scope}" for scope in scopes)
        return self.shell(f"cd /tmp; python3 -m grid token create {user} --store jobs {chosen}").strip()

    def end(self) -> None:
        wait = f"while kill -0 {self.pid} 2>/dev/null; do sleep 0.05; done"
        self.shell(f"kill {self.pid}; {wait}; rm -rf /tmp/jobs /tmp/served*")


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    web = ("fastapi", "uvicorn", "httpx", "httptools", "sqlalchemy", "alembic")
    needs = with_needs("pyzmq", "dill", "cloudpickle", "click", "PyYAML", "rich", "paramiko", *web)
    share = {"/grid": str(ROOT)}
    with Lab([LabHost(name, packages=needs, shares=share) for name in ("data", "computers")]) as lab:
        yield lab


@contextmanager
def served(lab: Lab) -> Iterator[tuple[Served, Served]]:
    first = Served(lab.hosts["data"], "/grid/examples/across_service.py")
    try:
        second = Served(lab.hosts["computers"])
        try:
            yield first, second
        finally:
            second.end()
    finally:
        first.end()


@pytest.mark.lab
@pytest.mark.row("C32", "C34", "C35", "C37", "C36", "P21", "P24", "P25", "D03")
def test_the_workflow_of_the_example_runs_over_two_hosts(pair: Lab, tmp_path: Path) -> None:
    with served(pair) as (data, computers):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRID_NO_KEYRING": "1"}
        environment["GRID_LOGINS"] = str(tmp_path / "logins.json")
        tokens = [data.token("mara"), computers.token("mara", "read", "submit", "upload")]
        for name, site, token in (("data", data, tokens[0]), ("computers", computers, tokens[1])):
            url, _, pin = site.url.partition("#")
            login = ["login", url, "--fingerprint", pin, "--name", name, "--token-file", "-"]
            subprocess.run(
                [sys.executable, "-m", "grid", *login],
                input=token,
                text=True,
                check=True,
                env=environment,
                capture_output=True,
                timeout=LIMIT_S,
            )
        for turn in range(2):
            done = subprocess.run(
                [sys.executable, "examples/across_servers.py", "data", "computers"],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
            )
            assert done.returncode == 0, done.stderr + computers.shell("cat /tmp/served.log")
            assert "centre 80, width 12" in done.stdout, done.stdout
            assert ("remembered" if turn else "was made") in done.stdout
        for site, token in zip((data, computers), tokens, strict=True):
            processes = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null || :"
            seen = site.shell(f"cat /tmp/served.log /tmp/served.json; {processes}")
            stored = site.shell("cat /tmp/jobs/tokens.json; cat /tmp/jobs/jobs.sqlite | tr -cd '[:print:]'")
            assert token[16:] not in seen + stored
            modes = site.shell("stat -c '%a %n' /tmp/jobs /tmp/jobs/tokens.json /tmp/jobs/tls.key").split()[::2]
            assert modes == ["700", "600", "600"]
        left = json.loads(computers.shell("cat /tmp/jobs/credentials.json"))
        assert left and all(each["token"] not in stored for each in left.values())
