"""Runs that are done: a file for each in a folder of the user's, named by what the run is known by.

    memo/3f/3f9a...c2.json      command, status, times, output, and name, size and hash of each file that it wrote

A run is done if its entry is there, and each file that it wrote is still where it was written, with the same contents.
As `make` does, this keeps no copy of them. Only runs that ended well are entered.

Lives here: `Memo`. Elsewhere: the key (`identity`), the runs (`many`).
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from grid.commands.outcome import CommandRun
from grid.errors import StagingError

if TYPE_CHECKING:
    from grid.staging.manifest import Entry

_BYTES = ("stdout", "stderr")


class Hashing(Protocol):
    """What tells the contents of files here."""

    def contents(self, path: Path) -> Entry:
        """Hash, size and mode. StagingError: There is no such file."""


class Memo:
    """See the module. Safe to use from any thread, and by several processes at once.

    Raises:
        StagingError: The folder can't be made.
    """

    def __init__(self, directory: str | os.PathLike[str], files: Hashing) -> None:
        self._directory, self._files = Path(directory).absolute(), files
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise self._refused(exc) from exc

    def find(self, key: str, to: Path) -> CommandRun | None:
        """The run of that key, if it is done and its files are below `to`."""
        try:
            entry: dict[str, Any] = json.loads(self._path(key).read_text(encoding="utf-8"))
            names: dict[str, str] = entry.pop("files")
            for name, digest in names.items():
                if self._files.contents(to / name).sha256 != digest:
                    return None
            facts = {**entry, **{name: base64.b64decode(entry[name]) for name in _BYTES}}
            return CommandRun(**facts, outputs=[to / name for name in names], kept=[], key=key, memo=True)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, StagingError):
            return None  # not there, cut by a crash, of another version, or a file is not there any more

    def keep(self, run: CommandRun, to: Path) -> None:
        """It is done. StagingError: The entry can't be written."""
        facts = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
        for name in ("outputs", "kept", "key", "memo", "contents"):
            del facts[name]
        facts.update({name: base64.b64encode(facts[name]).decode() for name in _BYTES})
        facts["files"] = {str(path.relative_to(to)): self._files.contents(path).sha256 for path in run.outputs}
        path = self._path(run.key)
        half = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(exist_ok=True)
            half.write_text(json.dumps(facts), encoding="utf-8")
            half.replace(path)
        except OSError as exc:
            with contextlib.suppress(OSError):
                half.unlink()
            raise self._refused(exc) from exc

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.json"

    def _refused(self, exc: OSError) -> StagingError:
        return StagingError(
            f"the memo {os.fspath(self._directory)!r} can't be written ({exc.strerror or exc})",
            hint="Make room there, or name another folder: memo=...",
        )
