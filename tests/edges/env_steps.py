"""Builds an environment again and again, and breaks each step of it once: run by `test_environments.py`.

usage: env_steps.py HOME kill|full|cut WHEEL...

Each attempt is a child of its own. In it the nth operation on files of an environment kills it, finds the disk full, or
is the last before the line is cut. After each: what is there is whole or counts for nothing, and one more attempt makes
it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from grid.kernel import environments

EVENTS = {"open", "os.mkdir", "os.rename", "os.symlink", "os.remove", "os.chmod", "os.utime", "os.rmdir"}
NAME = "0123456789abcdef"


class Client:
    """The other side of the dialog: what the host reads and writes."""

    def __init__(self, wheels: list[Path], cut_at: int = -1) -> None:
        self.wheels = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in wheels}
        listed = [[path.name, sha, path.stat().st_size] for sha, path in self.wheels.items()]
        self.lines = [{"known": None}, {"name": NAME, "word": "test", "wheels": listed}]
        self.data, self.cut_at = b"", cut_at
        self.heard: list[dict[str, Any]] = []

    def readline(self) -> bytes:
        return json.dumps(self.lines.pop(0)).encode() + b"\n"

    def read(self, size: int) -> bytes:
        size = min(size, 200)
        if self.cut_at >= 0:
            size = min(size, self.cut_at)
            self.cut_at -= size
        chunk, self.data = self.data[:size], self.data[size:]
        return chunk

    def write(self, text: str) -> None:
        words = json.loads(text.removeprefix(environments.MARK))
        self.heard.append(words)
        for sha, offset in words.get("lacks", ()):
            self.data += self.wheels[sha].read_bytes()[offset:]

    def flush(self) -> None:
        pass


def attempt(mode: str, step: int, wheels: list[Path]) -> tuple[bool, list[dict[str, Any]]]:
    """Whether the step was reached, and what the host said; -1 breaks nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        client = Client(wheels, step if mode == "cut" else -1)
        reached = False
        left = step

        def watch(event: str, args: tuple[Any, ...]) -> None:
            nonlocal left, reached
            if reached or event not in EVENTS or ".grid/env" not in str(args[0] if event != "os.symlink" else args[1]):
                return
            left -= 1
            if left < 0:
                reached = True
                if mode == "kill":
                    os.write(writing, b"killed")
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

        if mode != "cut" and step >= 0:
            sys.addaudithook(watch)
        try:
            environments.serve(client, client)  # type: ignore[arg-type]
        except SystemExit:
            reached = True  # the line was cut
        finally:
            os.write(writing, json.dumps([reached, client.heard]).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if said == "killed":
        return True, []
    reached, heard = json.loads(said)
    return reached, heard


def tree(root: Path) -> dict[str, str]:
    """What is in it, but for times."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = os.readlink(path)
        elif path.is_file() and path.name != environments.MANIFEST:
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def main(home: str, mode: str, *names: str) -> None:
    os.environ["HOME"] = home
    place = Path(home, ".grid", "env")
    wheels = [Path(name) for name in names]
    attempt(mode, -1, wheels)
    whole = tree(place / NAME)
    assert "bin/tell" in whole, whole
    steps, told = 0, []
    stride = 97 if mode == "cut" else 1
    while True:
        shutil.rmtree(Path(home, ".grid"))
        reached, heard = attempt(mode, steps * stride, wheels)
        if place.joinpath(NAME).exists():
            assert tree(place / NAME) == whole, f"step {steps}: half of it counts"
            assert environments.manifest(place / NAME)
        if not reached:
            break
        if mode == "full" and "error" in heard[-1]:
            told.append(heard[-1])
            left = (
                [path.name for path in place.glob("*") if path.name.startswith(".building")] if place.exists() else []
            )
            assert not left, f"step {steps}: {left}"
        _, again = attempt(mode, -1, wheels)
        assert again[-1].get("python"), (steps, again)
        assert tree(place / NAME) == whole, steps
        left = [str(path) for path in place.rglob("*") if path.name.startswith((".building", ".going"))]
        left += [str(path) for path in place.rglob("*.part")]
        assert not left, (steps, left)
        steps += 1
    print(json.dumps({"steps": steps, "told": told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
