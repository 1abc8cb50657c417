"""Scripts that run on without their shell: `grid run --detach`, `grid follow`, `grid runs`, `grid end`.

    ~/.local/state/grid/runs/fit/run.json       what runs: script, process, since when; 0600, in directories of 0700
                                 .lock          held by the one who watches the script, until the script has ended
                                 output.000001  what it prints, in parts, of which the last ones are kept
                                 end.json       how it ended

`$GRID_RUNS` names another directory. A run that has ended stays until `grid end` removes it, or newer ones need room.

Lives here: names, records, the parts of the output, starting, ending.
Elsewhere:  who watches the script (`watchman.py`), commands (`cli/runs.py`), grids that wait (`keeping/`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grid.errors import SessionError
from grid.keeping.places import check_name
from grid.kernel import held
from grid.kernel.lease import start_ticks
from grid.launch.shell import safe_program
from grid.wire.places import private_dir

PART_BYTES = 8 << 20
PARTS = 8
"""So many parts of the output of a run are kept: the last 64 MB."""
ENDED = 50
"""Runs that have ended and are kept, at most: the oldest make room."""
START_S = 20.0
SIGNALS = ((signal.SIGTERM, 10.0), (signal.SIGTERM, 5.0), (signal.SIGTERM, 5.0))
"""To the one who watches: each makes him end the script more firmly (Ctrl-C, SIGTERM, SIGKILL); seconds to wait."""
_LOOK_S = 0.05


def runs_dir() -> Path:
    """Where the runs of this user lie."""
    named = os.environ.get("GRID_RUNS")
    base = Path(named) if named else Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state", "grid", "runs")
    return private_dir(base.expanduser(), "Name another directory with GRID_RUNS")


class DetachedRun:
    """One run, which may have ended.

    Raises:
        ValueError: It can't have that name.
    """

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        self.path = runs_dir() / name

    @classmethod
    def all(cls) -> list[DetachedRun]:
        """Of this user on this machine, the oldest first."""
        found = [cls(path.name) for path in runs_dir().iterdir() if (path / "run.json").exists()]
        return sorted(found, key=lambda run: run.facts().get("began", 0.0))

    @classmethod
    def called(cls, name: str) -> DetachedRun:
        """The one of that name. SessionError: There is none."""
        known = [run.name for run in cls.all()]
        if name not in known:
            raise SessionError(
                f"there is no run {name!r}", hint=f"There is {', '.join(known) or 'none'}: see grid runs"
            )
        return cls(name)

    def facts(self) -> dict[str, Any]:
        """What runs: `script`, `args`, `pid`, `began`, `host`; empty if nobody can read it."""
        return _read(self.path / "run.json")

    def is_running(self) -> bool:
        """Whether somebody watches it, and so the script lives."""
        return bool(held.is_held(self.path))

    def end(self) -> dict[str, Any] | None:
        """How it ended: `status` (as a shell counts it), `ended` (wall clock); None while it runs."""
        told = _read(self.path / "end.json")
        if told or self.is_running():
            return told or None
        return {"status": None, "ended": (self.path / "run.json").stat().st_mtime}  # killed with its machine

    def parts(self) -> list[int]:
        """Numbers of the parts of its output that are there."""
        return sorted(int(path.suffix[1:]) for path in self.path.glob("output.*") if path.suffix[1:].isdigit())

    def part(self, number: int) -> Path:
        """One part of its output."""
        return self.path / f"output.{number:06}"

    def remove(self) -> None:
        """Nothing of it stays."""
        shutil.rmtree(self.path, ignore_errors=True)

    def stop(self) -> bool:
        """End the script: as Ctrl-C would, then more firmly. False: it lives on."""
        for number, patience_s in SIGNALS:
            facts = self.facts()
            if not self.is_running():
                return True
            if facts.get("namespace") != held.namespace() or start_ticks(facts["pid"]) != facts["started"]:
                return False
            os.kill(facts["pid"], number)
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline:
                if not self.is_running():
                    return True
                time.sleep(_LOOK_S)
        return not self.is_running()


def free_name(script: str) -> str:
    """A name for a run of that script that no other one has: fit, fit-2, fit-3."""
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in Path(script).stem).strip("._-")
    stem = stem[:50] or "run"
    taken = {path.name for path in runs_dir().iterdir()}
    return next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, 1 << 20))) if name not in taken)


def detach(name: str, script: str, words: Sequence[str], environment: Mapping[str, str]) -> DetachedRun:
    """Start a Python script that runs on without us.

    Args:
        words: For this interpreter: the script and its arguments, or what stands before them.
    Raises:
        SessionError: A run of that name lives, or the script did not start.
    """
    run = DetachedRun(name)
    if run.path.exists():
        if run.is_running():
            raise SessionError(f"a run {name!r} lives", hint=f"Look at it with `grid follow {name}`, or name another")
        run.remove()
    _make_room()
    private_dir(run.path)
    facts = {"name": name, "script": script, "words": list(words), "host": socket.gethostname(), "cwd": os.getcwd()}
    program = safe_program("from grid.runs.watchman import main\nmain()")
    watchman = [sys.executable, "-c", program, os.fspath(run.path), json.dumps(facts)]
    with (run.path / "watchman.log").open("wb") as log:
        child = subprocess.Popen(
            watchman, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(environment), start_new_session=True
        )
    threading.Thread(target=child.wait, daemon=True).start()  # it ends after us, or is nobody's afterwards
    deadline = time.monotonic() + START_S
    while not (run.path / "run.json").exists():
        if child.returncode is not None or time.monotonic() > deadline:
            child.kill()
            said = (run.path / "watchman.log").read_text(errors="replace").strip().splitlines()
            run.remove()
            raise SessionError(f"{script} did not start ({said[-1] if said else 'no word of it'})", hint="Try it here")
        time.sleep(_LOOK_S)
    return run


def _make_room() -> None:
    ended = [run for run in DetachedRun.all() if not run.is_running()]
    for run in ended[: max(0, len(ended) + 1 - ENDED)]:
        run.remove()


def output_of(run: DetachedRun, *, now: bool = False) -> Iterator[bytes]:
    """What it prints, from the first part that is kept on (or from the last lines), until it has ended.

    An empty piece: nothing new just now.
    """
    number, place = 1, 0
    if now and (parts := run.parts()):
        number = parts[-1]
        data = run.part(number).read_bytes()
        place = data.rfind(b"\n", 0, max(0, len(data) - 2000)) + 1
    while True:
        over = not run.is_running()  # first: what it printed last is there by then
        if place >= PART_BYTES:
            number, place = number + 1, 0
        first = next(iter(run.parts()), number)
        if number < first:
            yield b"[grid: %d bytes are not kept]\n" % ((first - number) * PART_BYTES - place)
            number, place = first, 0
        try:
            with run.part(number).open("rb") as file:
                file.seek(place)
                data = file.read(1 << 16)
        except FileNotFoundError:
            data = b""
        place += len(data)
        if data:
            yield data
        elif over and number >= max(run.parts(), default=0):
            return
        else:
            yield b""


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
