"""An environment brought to a host: the client's end of the dialog that `kernel/environments.py` describes.

Lives here: `Environments` of one grid: what is wanted, resolved once for each kind of host, sent where it lacks.
Elsewhere:  wheels (`fetching.py`), building (`kernel/environments.py`), ways into a host (`launch/`).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import shlex
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid import errors
from grid.environments.archive import PythonArchive
from grid.environments.cache import WheelCache
from grid.environments.fetching import collect, source_key
from grid.environments.fitting import Wheel, name_of
from grid.environments.states import SourceStates
from grid.environments.target import Target
from grid.environments.uvpython import WORD, uv_archive
from grid.environments.wanted import Wanted, wanted
from grid.errors import ConnectError, HostError, PackagesError, PythonError
from grid.hosts import Host
from grid.kernel import boot, environments
from grid.launch import Connection, connect
from grid.launch.command import python_of, variables, with_variables
from grid.launch.shell import find_python_script

logger = logging.getLogger(__name__)

ANSWER_S = 60.0
"""A host says something at least so often: while it waits for another builder, too."""
BUILD_S = 900.0
SEND_S = 600.0
"""For `_CHUNK` bytes."""
_CHUNK = 1 << 18
_OF_ENVIRONMENTS = ("PYTHONHOME", "PYTHONPLATLIBDIR")

_PROGRAM = r"""
import json, sys
if sys.version_info < (3, 10):
    sys.stdout.write("grid-env " + json.dumps({"error": "Python %d.%d (%s) is too old; 3.10 is needed" % (
        sys.version_info[0], sys.version_info[1], sys.executable), "kind": "PythonError",
        "hint": "Name a newer one with python:, or an archive of one with python_archive:; on the host, "
        "`module avail python`, conda or uv may have one"}) + "\n")
    sys.exit(0)
text = i.read(int(i.readline())).decode()
module = type(sys)("grid_environments")
sys.modules[module.__name__] = module
exec(compile(text, module.__name__, "exec"), module.__dict__)
module.serve(i, sys.stdout)
"""


@dataclass
class Brought:
    """What came of it on one host."""

    python: str  # the interpreter's path there
    name: str  # of the environment
    sent: list[str] = field(default_factory=list)  # file names of the wheels that it lacked
    sent_bytes: int = 0
    built: bool = False


class Environments:
    """See the module. Any thread; hosts of one kind are resolved by the first of them."""

    def __init__(self, cache: WheelCache | None = None) -> None:
        self.cache = cache or WheelCache()
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._plans: dict[str, list[Wheel]] = {}
        self._keys: dict[Wanted, str] = {}
        self._states = SourceStates()
        self._archives: dict[str, PythonArchive] = {}

    def bring(self, connection: Connection, word: str, host: Host | None = None) -> Brought:
        """Have the environment on a host that `word` names, and say which interpreter that is.

        Args:
            connection: To the host, or to a machine with the same home directory. Of one that is reached by a batch
                system's launcher only that directory is used, which this machine shares.
            host: Whose interpreter and variables count; default: that of the connection.
        Raises:
            PythonError, DiskError: It can't be built there; the message says what lacks.
            ConnectError: The connection broke; what had arrived stays for the next attempt.
        """
        host = host or connection.host
        try:
            _check_variables(host)
            origin = wanted(word)
            if connection.in_job:
                with connect(Host("localhost", ssh="local")) as here:
                    return self._bring(here, host, origin)
            return self._bring(connection, host, origin)
        except PackagesError as exc:
            told = {**exc.facts, "hint": exc.facts.get("hint", "")}
            raise PythonError(exc.what, host=host.label, **told) from exc

    def _bring(self, connection: Connection, host: Host, origin: Wanted) -> Brought:
        source = self._key_of(origin)
        python = python_of(host)
        if host.python_archive is not None:
            python = self._archive(host.python_archive, connection, host).bring(connection, host.label)
        words = [connection.host.label, python, host.init_cmd, source]
        memory = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:24]
        known = self.cache.recall("hosts", memory)
        with _Dialog(connection, host, python) as dialog:
            answer = dialog.ask(ANSWER_S, known=known)
            if answer["python"]:
                return Brought(answer["python"], known)
            target, base = Target.of(answer["about"]), answer["about"]["base"]
            wheels = self._plan(origin, source, target)
            name = name_of(wheels, base)
            brought = self._send(dialog, wheels, name, origin.word)
        self.cache.note("hosts", memory, name)
        return brought

    def examine(self, connection: Connection, word: str) -> tuple[bool, list[Wheel]]:
        """Whether a host has the environment, and its wheels; nothing is changed there.

        Raises:
            PackagesError: It can't be had.
            HostError: The host has no Python, or does not answer.
        """
        origin, host = wanted(word), connection.host
        with _Dialog(connection, host, python_of(host)) as dialog:
            about = dialog.ask(ANSWER_S, known=None)["about"]
            wheels = self._plan(origin, self._key_of(origin), Target.of(about))
        with _Dialog(connection, host, python_of(host)) as dialog:
            there = dialog.ask(ANSWER_S, known=name_of(wheels, about["base"]))["python"]
        return there is not None, wheels

    def _send(self, dialog: _Dialog, wheels: list[Wheel], name: str, word: str) -> Brought:
        listed = [[wheel.filename, wheel.sha256, wheel.size] for wheel in wheels]
        answer = dialog.ask(BUILD_S, name=name, word=word, wheels=listed)
        brought = Brought("", name)
        if "lacks" in answer:
            by_content = {wheel.sha256: wheel for wheel in wheels}
            for sha256, offset in answer["lacks"]:
                wheel = by_content[sha256]
                brought.sent.append(wheel.filename)
                brought.sent_bytes += wheel.size - offset
            if brought.sent:
                said = (dialog.host.label, len(brought.sent), len(wheels), brought.sent_bytes / 1e6)
                logger.info("host %s: sending %d of %d packages (%.0f MB)", *said)
            for sha256, offset in answer["lacks"]:
                dialog.send_file(self.cache.path(sha256), offset)
            brought.built = True
            answer = dialog.hear(BUILD_S)
            while "python" not in answer:
                answer = dialog.hear(BUILD_S)
        brought.python = answer["python"]
        return brought

    def _archive(self, path: str, connection: Connection, host: Host) -> PythonArchive:
        if WORD.fullmatch(path):
            with self._lock:
                lock = self._locks.setdefault(path, threading.Lock())
            with lock:  # packing one takes seconds
                path = str(uv_archive(path, connection, host, self.cache.root))
        with self._lock:
            if path not in self._archives:
                self._archives[path] = PythonArchive(path)
            return self._archives[path]

    # -- what is wanted --------------------------------------------------------------------------------------------

    def _key_of(self, origin: Wanted) -> str:
        with self._lock:
            if origin not in self._keys:
                self._keys[origin] = source_key(origin, self._states)
            return self._keys[origin]

    def _plan(self, origin: Wanted, source: str, target: Target) -> list[Wheel]:
        """The wheels for a kind of host; resolved unless that was done before, by any process."""
        key = f"{source}-{target.key}"
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            found = self._plans.get(key) or self.cache.recall_wheels(key)
            if found is None or not all(self.cache.has(wheel.sha256) for wheel in found):
                began = time.monotonic()
                found = collect(origin, target, self.cache, self._states)
                self.cache.note_wheels(key, found)
                logger.info("environment %s for %s: %.1f s", origin.word, target, time.monotonic() - began)
            self._plans[key] = found
            return found


def _check_variables(host: Host) -> None:
    both = [name for name in _OF_ENVIRONMENTS if name in host.env]
    if both:
        raise PackagesError(
            f"its env: sets {' and '.join(both)}, and so does its environment:",
            hint="Variables in env: say where Python finds packages, and environment: brings its own: leave one out",
        )


class _Dialog:
    """The process on the host, and what it says."""

    def __init__(self, connection: Connection, host: Host, python: str) -> None:
        self.host = host
        lacks = json.dumps(
            {
                "error": "no Python was found on it",
                "hint": "Name an interpreter with python:, or an archive of one with python_archive:; on the host, "
                "`module avail python`, conda or uv may have one",
                "kind": "PythonError",
            }
        )
        find = f"{find_python_script(python, sys.version_info[1], base=True)}; "
        find += f'[ -n "$PY" ] || {{ printf "%s\\n" {shlex.quote(environments.MARK + lacks)}; exit 1; }}; '
        self._process = connection.start(with_variables(host, find, f"$PY -c {shlex.quote(boot.SCOUT)}"))

    def __enter__(self) -> _Dialog:
        program, module = _PROGRAM.encode(), inspect.getsource(environments).encode()
        self._write(variables(self.host.env) + b"%d\n%s%d\n%s" % (len(program), program, len(module), module))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.close()

    def ask(self, timeout: float, **words: Any) -> dict[str, Any]:
        """Say it, and wait for an answer other than that it waits."""
        self._write(json.dumps(words).encode() + b"\n")
        deadline = time.monotonic() + timeout
        answer = self.hear(ANSWER_S)
        while answer.get("waits") and time.monotonic() < deadline:
            answer = self.hear(ANSWER_S)
        if answer.get("waits"):
            raise PythonError(
                f"another process builds an environment there, and has not ended within {timeout:g} s",
                host=self.host.label,
                hint="Its client may send over a slow line; `ls -l ~/.grid/env` there shows what grows",
            )
        return answer

    def hear(self, timeout: float) -> dict[str, Any]:
        """The next that it says. Raises what it reports."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._process.read_line(max(0.1, deadline - time.monotonic())).decode("utf-8", "replace")
            except (TimeoutError, ValueError) as exc:
                raise self._cut(f"no answer about its environment within {timeout:g} s") from exc
            if not line:
                raise self._cut("its Python ended before the environment was built")
            _, found, said = line.partition(environments.MARK)
            if found:
                answer: dict[str, Any] = json.JSONDecoder().raw_decode(said)[0]
                if "error" in answer:
                    facts = {key: value for key, value in answer.items() if key not in ("error", "kind")}
                    kind = getattr(errors, answer["kind"], HostError)
                    raise kind(answer["error"], host=self.host.label, **facts)
                return answer

    def send_file(self, path: Path, offset: int) -> None:
        """Its bytes from there on."""
        with open(path, "rb") as file:
            file.seek(offset)
            while chunk := file.read(_CHUNK):
                self._write(chunk)

    def _write(self, data: bytes) -> None:
        try:
            self._process.write(data, SEND_S)
        except BrokenPipeError:
            pass  # it ended; what it said of that is read next
        except (TimeoutError, OSError) as exc:
            raise self._cut(f"it took no data for {SEND_S:g} s") from exc

    def _cut(self, what: str) -> HostError:
        said = self._process.stderr_tail(1.0)[-1000:]
        status = self._process.wait(1.0)
        told = f"{what}{': ' + said if said else ''}"
        hint = "What had arrived stays there: another attempt goes on from it"
        if status is not None and status > 0 and said:
            return PythonError(told, host=self.host.label, hint=f"Try `grid doctor {self.host.label}`")
        return ConnectError(told, host=self.host.label, hint=hint)
