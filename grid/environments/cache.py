"""Wheels that are here, by content, with a bound; and what was resolved and built before.

    $XDG_CACHE_HOME/grid (or ~/.cache/grid)
        wheels/<sha256>     one wheel
        plans/<key>.json    the wheels that an environment has on a kind of host, or what one source was built to
        hosts/<key>.json    the environment that a host had last

Several processes may use it at once: each file is moved to its place when it is whole. What is lost is made again.

Lives here: `WheelCache`. Elsewhere: what goes in (`installed.py`, `fetching.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grid.environments.fitting import Wheel

BOUND_BYTES = 8 << 30
"""Wheels together; those used longest ago go first."""
FRESH_S = 3600.0
"""A wheel that was used so shortly ago stays in any case: an environment is being made of it."""


class WheelCache:
    """See the module."""

    def __init__(self, root: Path | None = None, bound: int = BOUND_BYTES) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self.root = root or Path(base) / "grid"
        self._bound = bound

    def path(self, sha256: str) -> Path:
        """Where a wheel is, if it is here."""
        return self.root / "wheels" / sha256

    def has(self, sha256: str) -> bool:
        """Whether a wheel is here; then it counts as used now."""
        with contextlib.suppress(OSError):
            os.utime(self.path(sha256))
            return True
        return False

    def put(self, file: Path) -> Wheel:
        """Take a file in; it is copied."""
        sha256 = _digest(file)
        wheel = Wheel(file.name, sha256, file.stat().st_size)
        if not self.has(sha256):
            with self._fresh("wheels") as scratch:
                shutil.copyfile(file, scratch)
                os.replace(scratch, self.path(sha256))
            self._trim()
        return wheel

    def wheel(self, filename: str, sha256: str) -> Wheel | None:
        """One that is here under that content."""
        return Wheel(filename, sha256, self.path(sha256).stat().st_size) if self.has(sha256) else None

    # -- what was found out ----------------------------------------------------------------------------------------

    def recall(self, kind: str, key: str) -> Any:
        """What was noted under a key; None if nothing was."""
        try:
            return json.loads((self.root / kind / f"{key}.json").read_text())
        except (OSError, ValueError):
            return None

    def note(self, kind: str, key: str, content: Any) -> None:
        """Note it."""
        with self._fresh(kind) as scratch:
            scratch.write_text(json.dumps(content))
            os.replace(scratch, self.root / kind / f"{key}.json")

    def recall_wheels(self, key: str) -> list[Wheel] | None:
        """Wheels that were noted; they may have gone since."""
        found = self.recall("plans", key)
        return None if found is None else [Wheel(*each) for each in found]

    def note_wheels(self, key: str, wheels: Iterable[Wheel]) -> None:
        """Note them."""
        self.note("plans", key, [[wheel.filename, wheel.sha256, wheel.size] for wheel in wheels])

    def forget(self, kind: str, key: str) -> None:
        """What was noted does not hold."""
        (self.root / kind / f"{key}.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _fresh(self, kind: str) -> Any:
        """A file beside those of a kind, removed unless it was moved."""
        (self.root / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=self.root / kind)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _trim(self) -> None:
        ages = []
        for path in (self.root / "wheels").iterdir():
            with contextlib.suppress(OSError):
                found = path.stat()
                ages.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in ages)
        for used, size, path in sorted(ages):
            if total <= self._bound or time.time() - used < FRESH_S:
                break
            path.unlink(missing_ok=True)
            total -= size


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
