"""`grid serve --http` as a user runs it: by curl as on the page, its mistakes, its end; what the command line loads."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from grid.cli.main import main
from grid.jobs import JobList, Request, remote_service
from tests.lab import MissingPart

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
SQUARES = """
from grid.jobs import Service

def square(x):
    return x * x

class Squares(Service):
    version = "1"

    def run(self, handler):
        return handler.map(square, self.request.values)
"""


def environment(tmp_path: Path) -> dict[str, str]:
    own = {"GRID_LOGINS": str(tmp_path / "logins.json"), "GRID_NO_KEYRING": "1", "HOME": str(tmp_path)}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def grid(tmp_path: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "grid", *arguments]
    return subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=LIMIT_S, **more
    )


@contextmanager
def serving(tmp_path: Path, *options: str) -> Iterator[dict[str, Any]]:
    (tmp_path / "squares.py").write_text(SQUARES)
    arguments = ["serve", "squares.py", "--local", "1", "--store", str(tmp_path / "jobs"), "--json", *options]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "grid", *arguments],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            assert line, (tmp_path / "log").read_text()
            yield json.loads(line)
            server.send_signal(signal.SIGTERM)
            assert server.wait(LIMIT_S) == 0, (tmp_path / "log").read_text()
        finally:
            if server.poll() is None:
                server.kill()
                server.wait(LIMIT_S)
            server.stdout.close()


@pytest.mark.row("P02", "P21", "D04", "R12", "J14")
def test_the_commands_on_the_page_work_as_written(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        raise MissingPart("no curl here (Debian package curl)")
    page = (ROOT / "docs" / "server.md").read_text()
    (commands,) = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    token = grid(tmp_path, "token", "create", "mara", "--store", str(tmp_path / "jobs")).stdout.strip()
    with serving(tmp_path, "--http", "127.0.0.1:0") as about:
        done = subprocess.run(
            ["bash", "-euc", commands.replace("curl -s", "curl -sS")],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**environment(tmp_path), "URL": about["url"], "TOKEN": token, "NO_PROXY": "*"},
        )
        assert done.returncode == 0, done.stderr + done.stdout
    assert '"result":[1,4,9]' in done.stdout and '"user":"mara"' in done.stdout and '"kind":"Jobs"' in done.stdout
    assert '"error"' not in done.stdout.replace('"error":""', "")
    log = (tmp_path / "log").read_text()
    assert "on the network: http://127.0.0.1" in log and "Traceback" not in log and token[16:] not in log


@pytest.mark.row("P25", "P21", "J16")
def test_a_certificate_of_its_own_is_kept_and_open_streams_do_not_keep_it_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_JOBS_PATIENCE", "0.2")
    token = grid(tmp_path, "token", "create", "mara", "--store", str(tmp_path / "jobs")).stdout.strip()
    found = []
    for _ in range(2):
        with serving(tmp_path, "--http", "127.0.0.1:0", "--tls", "self") as about:
            found.append(about["fingerprint"])
            service = remote_service(f"{about['url']}#{about['fingerprint']}", token=token)
            request = Request(values=[2, 3])
            request.service, request.version = "squares.Squares", "1"
            assert service.submit(request).wait(LIMIT_S) == [4, 9]
            following = JobList(service)
        following.close()
        service.close()
    assert len(set(found)) == 1
    assert stat.S_IMODE(os.stat(tmp_path / "jobs" / "tls.key").st_mode) == 0o600


@pytest.mark.row("P25", "D04")
def test_what_can_not_be_served_over_http_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squares.py").write_text(SQUARES)
    monkeypatch.chdir(tmp_path)
    for options, words in (  # before anything is begun
        (["--no-token"], "go with --http"),
        (["--http", "0.0.0.0:0"], "clear text"),
        (["--http", "0.0.0.0:0", "--tls", "self", "--no-token"], "they need tokens"),
        (["--http", "127.0.0.1:x"], "no address to listen at"),
        (["--http", "127.0.0.1:0", "--cert", "squares.py"], "--cert and --key"),
        (["--http", "127.0.0.1:0", "--fetch-allow", "x"], "--fetch-allow"),
    ):
        said = CliRunner().invoke(main, ["serve", "--store", "jobs", *options])
        assert said.exit_code in (1, 2) and words in said.stderr, (options, said.output)
    for command in (
        ["create", "a b"],
        ["create", "x", "--scope", "all"],
        ["revoke", "x"],
        ["list", "--store", "x://y"],
    ):
        store = [] if "--store" in command else ["--store", "jobs"]
        assert CliRunner().invoke(main, ["token", *command, *store]).exit_code in (1, 2), command
    own = ["--cert", "squares.py", "--key", "squares.py"]
    for options, words in (
        (["--http", "127.0.0.1:0", *own], "can't be used"),
        (["--http", "192.0.2.1:0", "--tls", "self"], "can't listen at"),
    ):
        done = grid(tmp_path, "serve", "squares.py", "--local", "1", "--store", "jobs", *options)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, (options, done.stderr)


def test_nothing_of_the_web_is_loaded_before_it_is_used() -> None:
    code = """
import sys
import grid, grid.jobs, grid.cli.main
from grid.jobs import remote_service, local_service, ServerProxy
from click.testing import CliRunner
assert CliRunner().invoke(grid.cli.main.main, ["--help"]).exit_code == 0
found = {"fastapi", "starlette", "uvicorn", "httpx", "pydantic", "grid.web"} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT_S, cwd=ROOT)
