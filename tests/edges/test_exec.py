"""`grid exec`, beside GNU parallel: outputs, results, joblog, status, going on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from grid.commands.joblog import LogLine, read

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.row("A07")


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ask = [sys.executable, "-m", "grid", "exec", "--local", "2", *words]
    return subprocess.run(ask, capture_output=True, text=True, input=stdin, env=environment, timeout=120)


def log(name: str) -> list[LogLine]:
    with open(name, newline="\n") as file:
        return read(file)


COMMAND = "sh -c 'echo out {} {#}; echo err >&2; test {} != a || exit 3; test {} != b || kill -9 $$'"
SOURCES = (":::", "a", "b", "c", "e")


def test_it_does_what_the_witness_does(tmp_path: Path) -> None:
    done = run("-k", "--joblog", "ours", "--results", "r", "--", COMMAND, *SOURCES)
    assert done.stderr.count("err") == 4 and done.returncode == 2, done.stderr
    if shutil.which("parallel") is None:
        pytest.skip("GNU parallel is not installed: apt-get install parallel")
    ask = ["parallel", "-k", "--joblog", "theirs", COMMAND, *SOURCES]
    witness = subprocess.run(ask, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.stdout, done.returncode) == (witness.stdout, witness.returncode)
    subprocess.run(["parallel", "--results", "s", COMMAND, *SOURCES], capture_output=True, stdin=subprocess.DEVNULL)

    def facts(name: str) -> list[tuple[object, ...]]:
        return sorted((line.seq, line.host, line.status, line.signal, line.command) for line in log(name))

    def files(name: str) -> dict[str, str]:
        return {str(path.relative_to(name)): path.read_text() for path in Path(name).rglob("*") if path.is_file()}

    assert facts("ours") == facts("theirs") and files("r") == files("s")
    # each goes on from the other's joblog
    again = subprocess.run(
        ["parallel", "--resume", "--joblog", "ours", COMMAND, *SOURCES, "f"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert again.stdout == "out f 5\n" and len(log("ours")) == 5
    ours = run("--resume", "--joblog", "theirs", "--", COMMAND, *SOURCES, "f")
    assert ours.stdout == "out f 5\n" and ours.returncode == 0 and len(log("theirs")) == 5


def test_files_go_along_and_come_back(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a b", "-c"):
        (tmp_path / "in" / f"{name}.txt").write_text(name)
    done = run("--return", "**/*.up", "--to", "out", "--", "tr a-z A-Z < {} > {.}.up", ":::", "in/a b.txt", "in/-c.txt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/in/a b.up").read_text() == "A B" and (tmp_path / "out/in/-c.up").read_text() == "-C"


def test_what_failed_is_run_again(tmp_path: Path) -> None:
    counted = f"echo x >> {tmp_path}/n{{}}; test $(wc -l < {tmp_path}/n{{}}) -ge {{}}"
    assert run("--joblog", "log", "--", counted, ":::", "1", "2", "4").returncode == 2
    assert (
        run(
            "--joblog", "log", "--resume-failed", "--retries", "2", "--", counted, "::::", "-", stdin="1\n2\n4\n"
        ).returncode
        == 1
    )
    assert [len((tmp_path / f"n{n}").read_text().split()) for n in (1, 2, 4)] == [1, 2, 3]
    assert sorted(line.seq for line in log("log")) == [1, 2, 2, 3, 3]


def test_mistakes_are_named(tmp_path: Path) -> None:
    assert "::: ARGUMENTS" in run("true").stderr
    assert "source 3" in run("--", "echo {3}", ":::", "a").stderr
    assert "--joblog" in run("--resume", "true", ":::", "a").stderr
    assert "nowhere" in run("true", "::::", "nowhere").stderr
    absent = run("no-such-program", ":::", "a")
    assert absent.returncode == 1 and "there is no program 'no-such-program'" in absent.stderr
    (tmp_path / "text").write_text("hello\n")
    spoilt = run("--joblog", "text", "--resume", "true", ":::", "a")
    assert spoilt.returncode == 255 and "no joblog" in spoilt.stderr and (tmp_path / "text").read_text() == "hello\n"
    shown = run("--dry-run", "--", "echo {} > {/.}", ":::", "a b.c")
    assert shown.stdout == "echo 'a b.c' > 'a b'\n" and shown.returncode == 0
