"""Writes failed calls into a directory: the object, the method, the arguments, the error.

Files are pickles made by dill, which carry what the script defines by value; they are for the user who wrote them.

Lives here: `Keeper`. Elsewhere: reading (`reopen`).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

from grid import trust
from grid.hooks import Hook, Sent

logger = logging.getLogger(__name__)

FORMAT = 1
MOST = 100
"""Failures that a grid keeps: the first ones."""


class Keeper(Hook):
    """Keeps the failed calls of one grid; from any thread.

    Args:
        directory: Where; it is made if it is not there, for its owner alone.
    Raises:
        ValueError: It can't be made or written, or somebody else could replace what lies there.
    """

    hears_calls = True

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).expanduser().absolute()
        try:
            self.directory = Path(trust.resolved(str(self.directory)))  # what lies there is unpickled when it is opened
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise ValueError(f"failures can't be kept in {str(self.directory)!r} ({exc.strerror})") from exc
        self.kept: list[Path] = []
        self._lock = threading.Lock()

    def sent(self, call: Sent, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep a call of a method if it fails."""
        method = {"@call": "__call__"}.get(call.method, call.method)
        if method.startswith("@") or getattr(instance, "_runs_functions", False):
            return  # maps and functions are told by those who make them

        def look(done: Future[Any]) -> None:
            try:
                error = done.exception(0)
            except CancelledError:
                return
            if error is not None:
                self.failed(instance, method, args, kwargs, error)

        call.add_done_callback(look)

    def hint(self) -> str:
        """Where it is kept."""
        return f"It is kept in {self.directory}: see `grid debug`."

    def failed(
        self,
        target: Any,
        method: str | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        error: BaseException,
    ) -> None:
        """Write a failed call: `target.method(*args, **kwargs)`, or `target(...)` where `method` is None.

        Errors of grid itself, such as a lost server, are kept as well.
        """
        with self._lock:
            if len(self.kept) >= MOST:
                return
            name = method or _name(target)
            path = self._free(f"{name}-{type(error).__name__}")
            try:
                self._write(path, target, method, args, kwargs, error)
            except Exception as exc:
                logger.warning("the failed call of %r can't be kept: %s", name, exc)
                return
            self.kept.append(path)
        logger.warning("the failed call of %r is kept: grid debug %s", name, path)

    def _free(self, title: str) -> Path:
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in title)[:80]
        number = len(self.kept) + 1
        while any(self.directory.glob(f"{number:04d}-*")):
            number += 1
        return self.directory / f"{number:04d}-{safe}.call"

    def _write(
        self,
        path: Path,
        target: Any,
        method: str | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        error: BaseException,
    ) -> None:
        from grid.wire.dilling import the_dill  # here: it is wanted after the first failure

        dill = the_dill()
        cause = error.__cause__
        told = {
            "format": FORMAT,
            "name": method or _name(target),
            "error": f"{type(error).__name__}: {error}",
            "traceback": str(cause).strip() if cause is not None else "",
            "python": sys.version_info[:2],
            "script": os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else "",
            "path": list(sys.path),
            "when": time.time(),
            "call": dill.dumps((target, method, args, dict(kwargs)), protocol=5, recurse=True),
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(dill.dumps(told, protocol=5))


def _name(target: Callable[..., Any]) -> str:
    return str(getattr(target, "__name__", type(target).__name__))


def keeper_of(directory: str | os.PathLike[str] | None) -> Keeper | None:
    """The keeper that an argument or, without one, `$GRID_KEEP_FAILURES` asks for."""
    wanted = directory if directory is not None else os.environ.get("GRID_KEEP_FAILURES")
    return Keeper(wanted) if wanted else None
