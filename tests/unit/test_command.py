"""The command that becomes a kernel's interpreter: `env` and `init_cmd` in force, whatever stands in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grid.errors import PythonError
from grid.hosts import Host
from grid.kernel import boot
from grid.launch import command
from grid.launch.command import launch_command, python_of, this_python, variables, why_not_started, with_variables

pytestmark = pytest.mark.row("M04", "M07", "M13", "H06")


def run(text: str, env: dict[str, str], more: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["/bin/sh", "-c", text], input=variables(env) + more, capture_output=True, check=False)


SHOW = "import os, sys; sys.stdout.write(os.environ.get('X', 'none') + '|' + os.environ.get('STEP', ''))"


@pytest.mark.parametrize("value", ["plain", "a'b\"c $HOME `id`", "x;y&z|w", "-n", "ä", "two words"])
@pytest.mark.parametrize("init", ["", "export STEP=set;"])
def test_variables_are_there_before_the_program(value: str, init: str) -> None:
    host = Host("h", init_cmd=init)
    text = with_variables(host, f"PY={sys.executable}; ", f'$PY -c "{SHOW}"')
    done = run(text, {"X": value})
    assert done.stdout.decode() == f"{value}|{'set' if init else ''}", done.stderr


def test_no_value_is_on_the_command_line() -> None:
    host = Host("h", env={"TOKEN": "secret"})
    assert "secret" not in launch_command(host) and b"secret" in variables(host.env)


def test_a_value_with_a_newline_waits_for_the_server() -> None:
    assert variables({"A": "1\n2", "B": "3"}).count(b"\n") == 17 and b"A=" not in variables({"A": "1\n2"})


def test_no_python_is_told_as_a_report(tmp_path: Path) -> None:
    host = Host("h")
    done = subprocess.run(
        ["/bin/sh", "-c", launch_command(host)], input=variables({}), capture_output=True, env={"PATH": str(tmp_path)}
    )
    _, found, words = done.stdout.decode().partition(boot.MARK)
    assert (
        found and json.loads(words)["kind"] == "PythonError" and "'python', nor python3" in json.loads(words)["error"]
    )


@pytest.mark.parametrize(
    ("stderr", "told", "hinted"),
    [
        ("grid-note PYTHONPATH= PYTHONHOME=\nboom\n", "boom", ""),
        ("grid-note PYTHONPATH=/a PYTHONHOME=/b\nboom", "boom", "unset PYTHONPATH PYTHONHOME;"),
        ("boom\ngrid-note PYTHONPATH= PYTHONHOME=/b", "boom", "unset PYTHONHOME;"),
        ("", "", ""),
    ],
)
def test_what_a_kernel_said_that_did_not_start(stderr: str, told: str, hinted: str) -> None:
    said, hint = why_not_started(stderr)
    assert said == told and (hinted in hint if hinted else hint == "")


def test_this_machines_own_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(command.STARTED, raising=False)
    assert this_python() == sys.executable == python_of(Host("localhost", ssh="local"))
    assert python_of(Host("localhost", ssh="local", python="/usr/bin/python3")) == "/usr/bin/python3"
    assert python_of(Host("far")) == "python"
    for change in ("frozen", "embedded", "started"):
        with monkeypatch.context() as patch:
            if change == "frozen":
                patch.setattr(sys, "frozen", True, raising=False)
            elif change == "embedded":
                patch.setattr(sys, "executable", "")
            else:
                patch.setitem(os.environ, command.STARTED, "1")
            with pytest.raises(PythonError, match="Name an interpreter"):
                this_python()
