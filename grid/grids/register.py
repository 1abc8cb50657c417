"""The register of running grids: files in the runtime directory that say which grids this user has on this machine.

Lives here: their names, finding and asking running grids, removing what grids of killed processes left.
Elsewhere:  the grid's own end of the questions (`watch.py`), `grid ps`, `grid status`, `grid stop` (`cli/`).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import zmq

from grid.kernel import remains
from grid.kernel.lease import start_ticks
from grid.launch.spool import own_directory
from grid.wire.places import private_dir, runtime_dir

REGISTRATION = (".json", ".sock", ".logs")
"""What a running grid has in `grids_dir`: its record, its question socket, its servers' logs."""


def grids_dir() -> Path:
    """Where the running grids of this user on this machine are registered: `<id>.json` and `<id>.sock` each."""
    return private_dir(runtime_dir() / "grids")


def running_grids() -> list[dict[str, Any]]:
    """The registered grids of this user on this machine, each with `alive` and the path of its socket."""
    found = []
    for path in sorted(grids_dir().glob("*.json")):
        try:
            record = json.loads(path.read_text())
            record["alive"] = remains.is_alive(record, path)
        except (OSError, ValueError, KeyError):
            continue
        record["socket"] = str(path.with_suffix(".sock"))
        found.append(record)
    return found


def sweep() -> None:
    """Remove what grids of killed processes left on this machine; those with an agent here were cleared by it."""
    for record in running_grids():
        if not record["alive"]:
            base = record["socket"].removesuffix(".sock")
            for end in (".json", ".sock"):
                Path(base + end).unlink(missing_ok=True)
            shutil.rmtree(base + ".logs", ignore_errors=True)
    for left, _ in remains.registrations(grids_dir())[1]:  # of one that was killed while it took itself off
        path = Path(left)
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    for path in runtime_dir().glob("fwd-*-*.sock"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and start_ticks(int(pid)) is None and not remains.answers(path):
            path.unlink(missing_ok=True)


def ask(record: dict[str, Any], question: str, timeout: float = 5.0, **more: Any) -> dict[str, Any]:
    """Ask a running grid something; `more` goes along with the question.

    Raises:
        TimeoutError: No answer.
    """
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = socket.sndtimeo = int(timeout * 1000)
        socket.connect(f"ipc://{record['socket']}")
        try:
            socket.send(json.dumps({**more, "ask": question}).encode())
            answer: dict[str, Any] = json.loads(socket.recv())
        except zmq.Again as exc:
            raise TimeoutError(f"grid {record['name']!r} (process {record['pid']}) gave no answer") from exc
    return answer


def leaving(grid_id: str | None) -> dict[str, Any]:
    """What this process would leave on its machine if it were killed: an agent on the same machine removes it.

    Args:
        grid_id: Of this process's grid; None: the agent is on another machine.
    """
    files = [f"{grids_dir() / grid_id}{end}" for end in REGISTRATION] + [str(own_directory())] if grid_id else []
    return {"pid": os.getpid(), "started": start_ticks(os.getpid()), "leaves": files}
