"""Children of a server by `multiprocessing`: they find the definitions of the script, and end by SIGTERM.

One by spawn or forkserver runs the main script again, to find functions by their names. A server has no main script,
only what came of it. So such children are given a file in its place that defines the same.

Lives here: that file, and when it is written; SIGTERM in children by fork.
Elsewhere:  what is in an image of `__main__` (`wire/mainimage.py`).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from multiprocessing import process, spawn  # loaded by the zygote, once for all servers of a host
from pathlib import Path
from typing import Any

from grid.wire.mainimage import MainImage
from grid.wire.places import SOCKET_PATH_BYTES

_PROGRAM = """\
import pickle
import sys

from grid.wire import mainimage

with open(__file__[: -len("py")] + "image", "rb") as file:
    mainimage.install([bytearray(part) for part in pickle.load(file)])
globals().update({name: value for name, value in vars(sys.modules["__main__"]).items() if name[:2] != "__"})
"""


_LISTENER = "listener-xxxxxxxx"
"""The longest name that `multiprocessing` gives a socket there."""


class Stage:
    """The file that children of this process take for the main script: written at a start, if it has changed."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._have: dict[str, Any] = {}
        self._path = ""
        self._count = 0

    def path(self) -> str:
        """The file for a child that starts now.

        Raises:
            SerialisationError: A class of the script can't be sent on.
        """
        names = [name for name in vars(sys.modules["__main__"]) if name[:2] != "__"]
        if not self._path or MainImage().lacking(names, self._have):
            packed = MainImage().pack(names)
            self._count += 1  # another name each time: a forkserver keeps what it has read under a name
            path = self._place / f"main-{os.getpid()}-{self._count}.py"
            path.with_suffix(".image").write_bytes(pickle.dumps([bytes(part) for part in packed.parts], 5))
            path.write_text(_PROGRAM)
            self._have, self._path = packed.entries, str(path)
        return self._path


def end_by_sigterm() -> None:
    """In a server: SIGTERM ends a child by fork, also one that has not run yet, whatever the server does about it.

    Its handler is the server's until we are asked, and Python forgets signals that come to a child before that. A pool
    that was terminated at once waited for such a child for good. So SIGTERM is blocked meanwhile.
    """
    handler, masks = signal.getsignal(signal.SIGTERM), threading.local()

    def before() -> None:
        masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

    def in_child() -> None:
        if signal.getsignal(signal.SIGTERM) is handler:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)


def prepare(place: Path) -> None:
    """In a server: have children by spawn find what the script defines. `place`: a private directory for files."""
    stage, as_it_was = Stage(place), spawn.get_preparation_data

    def with_main(name: str) -> dict[str, Any]:
        return {**as_it_was(name), "init_main_from_path": stage.path()}

    spawn.get_preparation_data = with_main
    sockets = place / f"m{os.getpid()}"
    if len(os.fsencode(sockets / _LISTENER)) <= SOCKET_PATH_BYTES:
        # else it makes a directory of its own in /tmp, which nobody removes: servers run no exit functions
        sockets.mkdir(mode=0o700, exist_ok=True)
        process.current_process()._config["tempdir"] = str(sockets)  # type: ignore[attr-defined]
