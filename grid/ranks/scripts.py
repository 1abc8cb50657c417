"""A script as the program of ranks: each runs it as its `__main__`, with `mpi4py` as the shim gives it.

What the script registers with `atexit` is called at its end and not at the process's, because the pools of some
libraries tell their workers to end there.

Lives here: `ScriptMain`. Elsewhere: `mpi4py` (`shim`), the command (`cli/run.py`), the client's side (`launched`).
"""

from __future__ import annotations

import atexit
import linecache
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from grid.errors import RankError
from grid.ranks import shim
from grid.ranks.comm import Comm


class ScriptMain:
    """The program: call it with a communicator. Its value is the script's exit status.

    Raises:
        RankError: The script ended with a status other than 0, which ends all ranks. What the script raised.
    """

    __name__ = "script"

    def __init__(self, source: str, path: str, args: Sequence[str]) -> None:
        self._source, self._path, self._args = source, path, list(args)

    def __call__(self, comm: Comm) -> int:
        module = types.ModuleType("__main__")
        module.__file__ = self._path
        lines = self._source.splitlines(keepends=True)
        linecache.cache[self._path] = (len(self._source), None, lines, self._path)
        sys.modules["__main__"] = module
        sys.argv = [self._path, *self._args]
        try:
            with shim.in_place(comm), _own_atexit():
                exec(compile(self._source, self._path, "exec", dont_inherit=True), module.__dict__)
        except SystemExit as exc:
            if exc.code in (None, 0):
                return 0
            if not isinstance(exc.code, int):
                print(exc.code, file=sys.stderr)
            status = exc.code if isinstance(exc.code, int) else 1
            raise RankError(f"the script ended with status {status}", status=status, hint="It said so itself") from None
        return 0


@contextmanager
def _own_atexit() -> Iterator[None]:
    """Within the block functions are registered for its end."""
    registered: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    theirs = atexit.register

    def register(function: Any, /, *args: Any, **kw: Any) -> Any:
        registered.append((function, args, kw))
        return function

    atexit.register = register
    failed = False
    try:
        try:
            yield
        except SystemExit as exc:
            failed = exc.code not in (None, 0)
            raise
        except BaseException:
            failed = True
            raise
        finally:
            while registered and not failed:
                function, args, kw = registered.pop()
                function(*args, **kw)
    finally:
        atexit.register = theirs
