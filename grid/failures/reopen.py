"""A kept failure: what it was, and the call made again in this process.

Reading one runs code that it holds, as with any pickle: so only files of one's own are read.

Lives here: `Failure`. Elsewhere: writing (`keeper`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from grid.errors import FailureFileError
from grid.failures.keeper import FORMAT


class Failure:
    """A failed call from a file. `name`, `error`, `traceback`, `script`, `when`: what the file says about it.

    Raises:
        FailureFileError: No such file, somebody else's, of another Python, or something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import dill

        where = os.fspath(path)
        try:
            if os.stat(where).st_uid != os.getuid():
                raise FailureFileError(f"{where!r} is somebody else's", hint="Its code would run as you; don't")
            told = dill.loads(Path(where).read_bytes())
        except FailureFileError:
            raise
        except Exception as exc:
            raise FailureFileError(
                f"can't read {where!r} ({type(exc).__name__}: {exc})", hint="Name a file that --keep-failures made"
            ) from exc
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise FailureFileError(f"{where!r} is no failed call", hint="Name a file that --keep-failures made")
        if tuple(told["python"]) != sys.version_info[:2]:
            raise FailureFileError(
                f"{where!r} is of Python {told['python'][0]}.{told['python'][1]}", hint="Use grid with that version"
            )
        self.name: str = told["name"]
        self.error: str = told["error"]
        self.traceback: str = told["traceback"]
        self.script: str = told["script"]
        self.when: float = told["when"]
        self._path: list[str] = told["path"]
        self._call: bytes = told["call"]

    def open(self) -> tuple[Any, str | None, tuple[Any, ...], dict[str, Any]]:
        """(target, method or None, args, kwargs), as they were sent; modules are found where the script found them.

        Raises:
            FailureFileError: A module is missing, or has changed so that it can't be rebuilt.
        """
        import dill

        sys.path += [place for place in self._path if place not in sys.path]
        try:
            target, method, args, kwargs = dill.loads(self._call)
        except Exception as exc:
            raise FailureFileError(
                f"the call of {self.name!r} can't be rebuilt ({type(exc).__name__}: {exc})",
                hint="Its modules must be as they were",
            ) from exc
        return target, method, args, kwargs

    def run(self) -> Any:
        """Make the call here; returns or raises what it does."""
        target, method, args, kwargs = self.open()
        function = target if method is None else getattr(target, method)
        return function(*args, **kwargs)
