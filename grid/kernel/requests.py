"""The requests of a client to its agent. Each `do_` method is one; the rest of its name travels.

It gets the number of the call first. What it returns is the answer, unless that is `LATER`: then the answer comes from
a thread of its own (unpacking, copying between hosts), when a server has told (`cancel`), or at the end (`shutdown`).

Lives here: the requests, work in the background.
Elsewhere:  servers (`children`), directories (`ground`), answers as they travel (`answers`).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import logging
import os
import queue
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from grid.errors import GridError
from grid.kernel import produce, sampler
from grid.kernel.answers import Answers
from grid.kernel.children import Children
from grid.kernel.filestore import FileStore
from grid.kernel.ground import Ground, cant_write
from grid.kernel.slots import Slots
from grid.kernel.stacks import StackReader
from grid.limits import Limits
from grid.wire import bulk, codec
from grid.wire.frames import BULK, Frame
from grid.wire.keys import Keys

LATER = object()
"""In place of an answer: it comes later."""


class Background:
    """Work that takes long, each piece in a thread of its own; the agent's thread takes the outcomes.

    `reader` is readable when there are some.
    """

    def __init__(self) -> None:
        self._done: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def start(self, call: int, work: Callable[[], Any]) -> None:
        """Have `work()` done; its outcome will be that of `call`."""

        def run() -> None:
            try:
                outcome: tuple[int, Any, BaseException | None] = (call, work(), None)
            except BaseException as exc:
                outcome = (call, None, exc)
            self._done.put(outcome)
            os.write(self._writer, b".")

        threading.Thread(target=run, name="grid-background", daemon=True).start()

    def finish(self, answers: Answers) -> None:
        """Answer the calls whose work is done; `reader` is readable."""
        os.read(self.reader, 4096)
        while not self._done.empty():
            call, value, error = self._done.get()
            if error is not None:
                answers.fail(call, error)
            else:
                answers.answer(call, value)


class AgentRequests:
    """See the module.

    Args:
        keys: Of the grid; None on the client's own machine.
        path: Directories besides `sys.path` where servers find modules.
        shut_down: Called with the number of the call that asks the agent to end.
    """

    def __init__(
        self,
        children: Children,
        ground: Ground,
        answers: Answers,
        limits: Limits,
        slots: Slots,
        *,
        keys: Keys | None,
        path: list[str],
        zygote: int,
        shut_down: Callable[[int], None],
    ) -> None:
        self._children, self._ground, self._answers, self._limits = children, ground, answers, limits
        self._slots = slots
        self._keys, self._path, self._zygote, self._shut_down = keys, path, zygote, shut_down
        self.background = Background()
        self._stacks = StackReader()
        self._profiled: set[str] = set()  # servers that are sampling

    def answer(self, frame: Frame) -> None:
        """Do what a call asks for, and answer it now or later."""
        try:
            words, buffers = frame.pickle, frame.buffers
            if frame.flags & BULK:
                words, buffers = bulk.bring_together(self._ground.store, words, frame.flags)
            method, args, kwargs = codec.loads(words, buffers)
            outcome = getattr(self, f"do_{method}")(frame.call, *args, **kwargs)
        except Exception as exc:
            self._answers.fail(frame.call, exc)
            return
        if outcome is not LATER:
            self._answers.answer(frame.call, outcome)

    # -- servers ---------------------------------------------------------------------------------------------------

    def do_start(self, call: int, wishes: list[dict[str, Any]], published: dict[str, Any]) -> None:
        """Start servers. Each wish: name, service_id, peer, niceness; `published`: blob, sizes, image."""
        self._children.wish(wishes, published)

    def do_resources(self, call: int) -> Any:
        """What the host has for servers with needs; the first look at it may take seconds."""
        self.background.start(call, self._slots.look)
        return LATER

    def do_reserve(self, call: int, names: list[str], needs: dict[str, Any]) -> dict[str, Any]:
        """Slots for servers that are to be started; comes after `resources`. See `Reservations.reserve`."""
        return self._slots.reserve(names, needs)

    def do_stop(self, call: int, names: list[str], force: bool) -> None:
        """End servers: at once if `force`, else after a polite word (they were said BYE) and some patience."""
        self._children.stop(names, force)

    def do_cancel(self, call: int, name: str, which: int) -> Any:
        """Withdraw a call of a server if it has not begun; answers whether it was."""
        return LATER if self._children.cancel(name, which, call) else False

    def do_set_debug(self, call: int, debug: bool) -> None:
        """Change the log level here, of all servers, and of those started later."""
        logging.getLogger().setLevel(logging.DEBUG if debug else logging.INFO)
        self._children.set_debug(debug)

    def do_tail(self, call: int, name: str, lines: int) -> str:
        """Last lines that a server printed."""
        return self._children.tail(name, lines)

    def do_stacks(self, call: int, names: list[str] | None) -> Any:
        """Stacks of these servers (None: of all) and of the agent; see `StackReader.read`."""
        servers = self._children.to_be_looked_at(names)
        self.background.start(call, lambda: self._stacks.read(servers))
        return LATER

    def do_profile(self, call: int, names: list[str], seconds: float, interval_s: float) -> Any:
        """Have servers sample their stacks; see `sampler.wait_for`. One profile of a server at a time."""
        busy = self._profiled.intersection(names)
        if busy:
            raise GridError(f"a profile of {', '.join(sorted(busy))} is under way", hint="Wait for its end")
        self._profiled.update(names)
        chosen = self._children.sample(names, seconds, interval_s)

        def work() -> list[dict[str, Any]]:
            try:
                return sampler.wait_for(chosen, sampler.lasts(seconds), self._children.has_ended)
            finally:
                self._profiled.difference_update(names)

        self.background.start(call, work)
        return LATER

    def do_status(self, call: int) -> dict[str, Any]:
        """The servers that run here."""
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        ours = {"pid": os.getpid(), "zygote": self._zygote, "load": load, "root": str(self._ground.root)}
        return {**ours, "servers": self._children.status()}

    def do_shutdown(self, call: int, force: bool) -> Any:
        """End all servers, then this process. Answered when the servers have ended."""
        self._children.stop_all(force)
        self._shut_down(call)
        return LATER

    # -- blobs and files -------------------------------------------------------------------------------------------

    def do_drop(self, call: int, blob: str) -> None:
        """Remove a blob."""
        self._ground.store.drop(blob)

    def do_fetch(self, call: int, blob: str, address: str, port: int) -> Any:
        """Copy a blob of the agent on another host here; answers with its name. ConnectError: no way leads there."""
        store = self._ground.store

        def work() -> str:
            lane = self._lane(address, port)
            try:
                return lane.bring(blob, store)
            finally:
                lane.close()

        self.background.start(call, work)
        return LATER

    def _lane(self, address: str, port: int) -> bulk.Lane:
        assert self._keys is not None, "only other machines have a lane"
        return bulk.Lane(
            lambda: socket.create_connection((address, port), self._limits.probe_s),
            self._keys.tls(server=False),
            address,
            self._limits.control_s,
        )

    def do_missing_modules(self, call: int, names: list[str]) -> list[str]:
        """Those of some top-level modules that servers here could not import."""
        importlib.invalidate_caches()
        path = [str(self._ground.root), *sys.path, *self._path]
        return [name for name in names if not _can_import(name, path)]

    def do_which(self, call: int, program: str) -> bool:
        """Whether servers here find a program of that name."""
        return shutil.which(program) is not None

    def do_versions(self, call: int, projects: list[str]) -> dict[str, str]:
        """The versions of those packages that are installed here."""
        from importlib import metadata  # asked for once per grid at most, and slow to load

        found = {}
        for project in projects:
            try:
                found[project] = metadata.version(project)
            except (metadata.PackageNotFoundError, ValueError):
                pass
        return found

    def do_unpack(self, call: int, blob: str, subroot: str) -> Any:
        """Unpack staged files from a blob below the root; answers with the list of names."""
        from grid.kernel.unpack import unpack

        root, store = self._ground.below_root(subroot), self._ground.store

        def work() -> list[str]:
            try:
                with open(store.path(blob), "rb") as file:
                    return list(unpack(file, str(root)))
            except OSError as exc:
                raise cant_write(exc.filename or str(root), exc) from exc
            finally:
                store.drop(blob)

        self.background.start(call, work)
        return LATER

    def do_make_directory(self, call: int, subroot: str) -> str:
        """Make a directory below the root."""
        path = self._ground.below_root(subroot)
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def do_list_files(self, call: int) -> list[str]:
        """Names of files below the root, relative to it; not byte code, not hidden ones; about 5,000 at most."""
        return self._ground.files()

    def do_find_files(self, call: int, directory: str | None, patterns: list[str]) -> Any:
        """Files below the directory in which servers work that match; see `produce.find`."""
        base = directory or str(self._ground.root)
        self.background.start(call, lambda: produce.find(base, patterns))
        return LATER

    def do_read_file(self, call: int, directory: str | None, name: str, offset: int, size: int, changed_ns: int) -> Any:
        """A piece of one of them; see `produce.read`."""
        base = directory or str(self._ground.root)
        self.background.start(call, lambda: produce.read(base, name, offset, size, changed_ns))
        return LATER

    def do_keep_file(self, call: int, directory: str, name: str, changed_ns: int) -> Any:
        """Copy a file of servers into the store; None: it has changed, or leads out of the directory."""
        store = FileStore(self._ground.root)
        self.background.start(call, lambda: produce.keep(store, directory, name, changed_ns))
        return LATER

    def do_place_file(self, call: int, name: str, shown: str, mode: int) -> str:
        """The path of a file in the store, under the name that people gave it; see `FileStore.place`."""
        try:
            return str(FileStore(self._ground.root).place(name, shown, mode))
        except OSError as exc:
            raise cant_write(shown, exc) from exc

    def do_has_file(self, call: int, name: str) -> bool:
        """Whether a file is in the store."""
        return FileStore(self._ground.root).path(name).exists()

    def do_fetch_file(self, call: int, name: str, address: str, port: int, sha256: str) -> Any:
        """Copy a file from the store of another host here. ConnectError: No way leads there."""
        store = FileStore(self._ground.root)

        def work() -> None:
            lane = self._lane(address, port)
            try:
                lane.bring_file(name, store.new(name))
            finally:
                lane.close()
            store.check(name, sha256)

        self.background.start(call, work)
        return LATER

    def do_drop_files(self, call: int, names: list[str]) -> None:
        """Remove files that wait; see `FileStore`."""
        FileStore(self._ground.root).drop(names)

    def do_probe(self, call: int, token: str, write: bool) -> bool:
        """Write, or look for, a file that proves that a directory is shared."""
        path = self._ground.root / f".probe-{token}"
        if write:
            path.write_text(token)
            return True
        os.listdir(self._ground.root)  # makes NFS look anew
        return path.exists() and path.read_text() == token

    def do_unprobe(self, call: int, token: str) -> None:
        """Remove that file."""
        (self._ground.root / f".probe-{token}").unlink(missing_ok=True)


def _can_import(name: str, path: list[str]) -> bool:
    if name in sys.builtin_module_names or importlib.machinery.FrozenImporter.find_spec(name):
        return True
    try:
        return importlib.machinery.PathFinder.find_spec(name, path) is not None
    except (ImportError, ValueError):
        return False
