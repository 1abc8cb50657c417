"""The pages on batch systems: every command on them is run on a stand-in for the system that the page is about."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grid.testing.standins import StandIn, stand_in

DOCS = Path(__file__).parents[2] / "docs"
NIGHTLY = bool(os.environ.get("GRID_NIGHTLY"))
PAGES = {
    "batch.md": "slurm-torque",
    "batch/torque.md": "torque",
    "batch/pbspro.md": "openpbs-off",
    "batch/slurm.md": "slurm-torque",
    "batch/sge.md": "sge",
}
WITH_GRIDS = tuple(PAGES) if NIGHTLY else ("batch/torque.md",)
"""Pages whose script is run as it stands; on others it only says that it ran."""
SHORT = 'import sys\nprint("3.1 from 8 servers", sys.argv[1:])\n'


def commands_of(page: str) -> list[str]:
    """Whole ones: `grid qsub ... -- python pi.py`, `grid run ... pi.py`; in blocks, tables and sentences."""
    text = re.sub(r"\n(?! {4}| *\|| *-|\n)", " ", (DOCS / page).read_text())  # a sentence may break a line
    found = re.findall(r"(?:`|^ {4}(?:\$ )?)(grid (?:qsub|sbatch|run) [^`\n]*\.py[^`\n]*)", text, re.M)
    return list(dict.fromkeys(each.strip() for each in found))


def script_of_the_page() -> str:
    block = re.search(r"    import random\n.*?servers\"\)\n", (DOCS / "batch/torque.md").read_text(), re.S)
    assert block is not None
    return re.sub(r"^ {4}", "", block[0], flags=re.M).replace("1_000_000", "1_000")


def until(done: Callable[[], object], what: object) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def grid(command: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", *shlex.split(command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module", params=list(PAGES))
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, StandIn]]:
    """A page, and a system like the one it is about: four nodes of eight slots."""
    directory = tmp_path_factory.mktemp("docs")
    (directory / "home").mkdir()
    more = {"queue": "long"} if request.param == "batch.md" else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(directory / "home"))
        patch.chdir(directory / "home")
        nodes = {f"node{number}": 8 for number in range(1, 5)}
        with stand_in(PAGES[request.param], directory / "system", nodes, **more) as system:
            for name in ("pi.py", "run.py"):
                text = script_of_the_page() if request.param in WITH_GRIDS else SHORT
                (directory / "home" / name).write_text(text)
            yield request.param, system


@pytest.mark.row("L10", "B08", "M20")
def test_every_command_on_a_page_runs(page: tuple[str, StandIn]) -> None:
    commands = commands_of(page[0])
    assert len(commands) >= 2, commands
    for command in commands:
        if command.startswith("grid run"):
            if page[0] not in WITH_GRIDS:
                continue  # its grid would have to come up
            done = grid(re.sub(r"mara@\w+", ".", command))
            assert done.returncode == 0 and "from 8 servers" in done.stdout, (command, done)
            continue
        done = grid(command)
        assert done.returncode == 0, (command, done)
        job = done.stdout.split()[0]

        def state(job: str = job) -> str:
            (row,) = json.loads(grid(f"grid batch status {job} --json").stdout)
            return str(row["state"])

        until(lambda state=state: state() == "done", command)  # type: ignore[misc]
        if "--wait" in command:
            assert f"job {job}: " in done.stderr, (command, done.stderr)
        output = re.search(r"-o (\S+)", command)
        if output is not None:
            until(lambda path=output[1]: os.path.exists(path) and "from 8 servers" in Path(path).read_text(), command)
            os.unlink(output[1])


WRITTEN = {
    "batch/pbspro.md": {
        "#PBS -l nodes=2:ppn=4": "`#PBS -l nodes=2:ppn=4`",
        "#PBS -l walltime=00:10:00": "`#PBS -l walltime=00:10:00`",
        "#PBS -r n": "`-r n`",
    },
    "batch/sge.md": {"#$ -pe mpi 8": "`-pe mpi 8`", "#$ -l h_rt=00:10:00": "`-l h_rt`", "#$ -notify": "`-notify`"},
    "batch/slurm.md": {"# sbatch --parsable --no-requeue SCRIPT": "`--no-requeue`"},
}
"""Lines of a dry run, and the words of the page about them."""


@pytest.mark.row("L10", "M20")
def test_what_a_page_says_that_is_written_is_written(page: tuple[str, StandIn]) -> None:
    command = next(each for each in commands_of(page[0]) if "-- python" in each)
    dialect = "--dialect slurm " if "slurm" in page[0] else ""
    done = grid(command.replace(" -- ", f" {dialect}--dry-run -- "))
    written, text = (done.stdout + done.stderr).splitlines(), (DOCS / page[0]).read_text()
    for line, words in WRITTEN.get(page[0], {}).items():
        assert line in written and words in text, (line, written)
    if page[0] == "batch/torque.md":  # the whole script, but for what stands behind dots
        block = re.search(r"    #!/bin/sh\n.*?\n    \.\.\.\n", text, re.S)
        assert block is not None
        shown = re.sub(r"^ {4}", "", block[0], flags=re.M)
        shown = shown.replace("/home/mara/venv/bin/python ", f"{sys.executable} ")
        shown = shown.replace("/home/mara/venv/bin", os.path.dirname(sys.executable)).replace("/home/mara", os.getcwd())
        lines = [line for line in shown.splitlines() if line != "..."]
        assert [line for line in lines if line[:1] == "#"] == [
            line for line in written if line[:5] in ("#!/bi", "#PBS ")
        ]
        rest = iter(written)
        for line in lines:
            assert line in rest, f"{line!r} is not in the script, or not in this order"
