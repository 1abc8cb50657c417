"""A host made ready: an interpreter with pyzmq and dill, in a place of our own, and the temp directory.

Lives here: what is missing, and the least that has to be done about it.
Elsewhere:  looking (`probe.py`), wheels for a host without an index (`wheels.py`), what is said of it (`cli/`).

    ~/.grid/env/py3XX/           one environment for each minor version
        bin/python               what a launch looks for: of a venv, or a script that sets PYTHONPATH
        lib/                     only where the host's Python has no venv module: the unpacked packages

Nothing outside ~/.grid and the temp directory is touched. Doing it again does nothing.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid.care.probe import NEEDS, Facts, Interpreter, examine, lacking
from grid.care.wheels import (
    PACKAGES,
    download,
    fits_here,
    normalized,
    pack_installed,
    projects_in,
    requirements,
    with_dependencies,
)
from grid.errors import DiskError, PythonError
from grid.hosts import compose_command
from grid.launch.connection import Completed, Connection
from grid.launch.shell import MINIMUM, remote_path, safe_program

INSTALL_S = 300.0
SEND_S = 120.0
_MINIMUM = ".".join(map(str, MINIMUM))
_MARK = "grid-env "

_ABOUT = r"""
import json, os, platform, sys, sysconfig
def has(name):
    try:
        __import__(name)
        return True
    except Exception:
        return False
print("grid-env " + json.dumps(dict(
    version=list(sys.version_info[:3]), cache_tag=sys.implementation.cache_tag, platform=sysconfig.get_platform(),
    libc=list(platform.libc_ver()), real=os.path.realpath(sys.executable),
    has={n: has(n) for n in ("venv", "ensurepip")},
)))
"""

# An older version of a project goes first: two of one project in one place are a riddle.
_UNPACK = r"""
import importlib.metadata, io, os, re, sys, sysconfig, tarfile, zipfile
place = sys.argv[1] or sysconfig.get_paths()["purelib"]
os.makedirs(place, exist_ok=True)
def plain(name):
    return re.sub(r"[-_.]+", "-", name or "").lower()
def forget(project):
    for old in importlib.metadata.distributions(path=[place]):
        if plain(old.metadata["Name"]) == project:
            for file in old.files or []:
                if ".." not in file.parts:
                    try:
                        os.unlink(str(old.locate_file(file)))
                    except OSError:
                        pass
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as stream:
    for member in stream:
        forget(plain(member.name.split("-")[0]))
        with zipfile.ZipFile(io.BytesIO(stream.extractfile(member).read())) as wheel:
            wheel.extractall(place)
"""

_LOOK = r"""
import json, sys
modules = {}
for name in ("zmq", "dill"):
    try:
        modules[name] = {"version": str(getattr(__import__(name), "__version__", "?"))}
    except BaseException as exc:
        modules[name] = {"error": "%s: %s" % (type(exc).__name__, exc)}
print("grid-env " + json.dumps(dict(executable=sys.executable, modules=modules)))
"""

_VERSIONS = r"""
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print("grid-env " + json.dumps(found))
"""

# Finds its packages from where it stands, because it is moved to its place only once it works.
_WRAPPER = """#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$here/lib${{PYTHONPATH:+:$PYTHONPATH}}" exec {python} "$@"
"""


@dataclass
class Setup:
    """The actions on one host, in order; `actions` is empty if it was ready already."""

    host: str
    python: str = ""
    version: tuple[int, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)  # name -> version
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def setup_host(connection: Connection, *, wheels: Path | None = None, packages: Sequence[str] = ()) -> Setup:
    """Make a host ready for kernels; safe to repeat.

    Args:
        wheels: A directory of wheels to install from, in place of our own packages, the host's index and ours. All
            projects that it has wheels of are installed.
        packages: Projects that the host shall have besides: as they are installed here where that fits, else from an
            index, with what they depend on.
    Raises:
        PythonError: No interpreter that will do, or the packages could not be installed; says what was tried.
        DiskError: The temp directory, or the environment, can't be made.
        ConnectError: The connection broke.
    """
    host = connection.host
    facts = examine(connection)
    result = Setup(host.label)
    best = _choose(facts)
    found = facts.python
    wanted: dict[str, str | None] = {normalized(name): None for name in packages}
    if wheels is not None:
        wanted |= projects_in(wheels)
    runs = False  # what it has can run a kernel
    if found is not None and "modules" in found:
        ready = not lacking(found["modules"]) and tuple(found["version"]) >= MINIMUM
        if ready and (host.python != "python" or best is None or found["version"][1] == best.version[1]):
            runs = True
            absent = _absent(connection, found["executable"], wanted)
            if not absent:
                _make_temp_path(connection, result)
                return _finish(result, found["executable"], found["version"], found["modules"])
            if host.python != "python":
                raise PythonError(
                    f"{found['executable']} lacks {', '.join(absent)}, and is yours: nothing is installed there",
                    host=host.label,
                    hint="Install it there yourself; or leave python: out of the hosts file, then this command makes "
                    "an environment",
                )
    if host.python != "python":
        # A launch takes what the user has named; that interpreter is theirs, and we don't change it.
        raise PythonError(
            f"{host.python!r} can't run a kernel: {_why(facts)}",
            host=host.label,
            hint=f"Install there: `{host.python} -m pip install {' '.join(PACKAGES)}`; or leave python: out of the "
            "hosts file, then this command makes an environment",
        )
    if best is None:
        listed = ", ".join(f"{'.'.join(map(str, one.version))} {one.path}" for one in facts.pythons)
        raise PythonError(
            f"no Python {_MINIMUM} or newer; found: {listed or 'none'}",
            host=host.label,
            hint="Install one, or make one available with init_cmd (`module load python;`)",
        )
    _make_temp_path(connection, result)
    return _Maker(connection, result, best, wheels, wanted, keeps=runs).make()


def _absent(connection: Connection, python: str, wanted: Mapping[str, str | None]) -> list[str]:
    """Which projects an interpreter there lacks, or has in another version than is wanted."""
    if not wanted:
        return []
    words = " ".join(shlex.quote(name) for name in wanted)
    host = connection.host
    text = f"{remote_path(python)} -c {shlex.quote(safe_program(_VERSIONS))} {words}"
    if not host.init_cmd.rstrip().endswith("!"):
        text = compose_command(host.init_cmd, text)
    done = connection.run(text)
    found = _answer(done) or {}
    return [name for name, version in wanted.items() if name not in found or version not in (None, found[name])]


def _answer(done: Completed) -> dict[str, Any] | None:
    """The output of one of our programs, wherever it stands among other output."""
    text = done.text
    at = text.rfind(_MARK)
    if at < 0:
        return None
    try:
        answer, _ = json.JSONDecoder().raw_decode(text, at + len(_MARK))
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _choose(facts: Facts) -> Interpreter | None:
    """The client's minor version if the host has it, else the newest that will do."""
    usable = [one for one in facts.pythons if one.version >= MINIMUM]
    same = [one for one in usable if one.version[:2] == sys.version_info[:2]]
    return max(same or usable, key=lambda one: one.version, default=None)


def _why(facts: Facts) -> str:
    found = facts.python
    if found is None:
        return facts.complaint.splitlines()[-1] if facts.complaint else "it does not run"
    if tuple(found["version"]) < MINIMUM:
        return f"it is Python {'.'.join(map(str, found['version']))}, grid needs {_MINIMUM}"
    return "; ".join(lacking(found["modules"]))


def _finish(result: Setup, python: str, version: Sequence[int], modules: dict[str, Any]) -> Setup:
    result.python, result.version = python, tuple(version)
    result.packages = {name: module["version"] for name, module in modules.items()}
    if result.version[:2] != sys.version_info[:2]:
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        result.warnings.append(
            f"it has Python {'.'.join(map(str, version))} and here is {here}: functions and classes of a script "
            "can't go there, importable modules can"
        )
    return result


def _make_temp_path(connection: Connection, result: Setup) -> None:
    path = connection.host.temp_path
    if path is None:
        return
    place = remote_path(path)
    done = connection.run(f"[ -d {place} ] && exit 0; mkdir -p {place} && echo made")
    if done.returncode:
        raise DiskError(
            f"can't make the temp directory {path}: {_last_line(done)}",
            host=result.host,
            hint="Name another one with temp_path:",
        )
    if "made" in done.text:
        result.actions.append(f"made the temp directory {path}")


class _Maker:
    """Makes one environment: built beside its place, moved there once it works, removed if it doesn't."""

    def __init__(
        self,
        connection: Connection,
        result: Setup,
        base: Interpreter,
        wheels: Path | None,
        wanted: Mapping[str, str | None],
        *,
        keeps: bool,
    ) -> None:
        self._connection = connection
        self._result = result
        self._base = base
        self._wheels = wheels
        self._wanted = wanted  # project -> version, beside what a kernel needs
        self._keeps = keeps  # what the base has is of use, and stays in sight
        self._name = f"py{base.version[0]}{base.version[1]}"

    def make(self) -> Setup:
        place = f'"$HOME"/.grid/env/{self._name}'
        looked = self._ask(f"{place}/bin/python", _LOOK, check=False)
        if looked is not None and not lacking(looked["modules"]):
            if absent := _absent(self._connection, looked["executable"], self._wanted):
                self._add(f"{place}", looked["executable"], absent)
            return _finish(self._result, looked["executable"], self._base.version, looked["modules"])
        about = self._ask(shlex.quote(self._base.path), _ABOUT)
        assert about is not None
        make = 'umask 077; mkdir -p "$HOME"/.grid/env && d=$(mktemp -d "$HOME"/.grid/env/.new-XXXXXX)'
        said = self._shell(f'{make} && printf "grid-made %s\\n" "$d"').text  # start-up files may print around it
        build = said.partition("grid-made ")[2].partition("\n")[0]
        quoted = shlex.quote(build)
        try:
            how = self._build(quoted, about)
            built = self._ask(f"{quoted}/bin/python", _LOOK)
            assert built is not None
            if faults := lacking(built["modules"]):
                raise PythonError(
                    f"its new environment does not work: {'; '.join(faults)}",
                    host=self._result.host,
                    hint="Look at the host's Python, or name another with python:",
                )
            self._shell(f"rm -rf {place} && mv {quoted} {place}")
        except BaseException:
            self._connection.run(f"rm -rf {quoted}")
            raise
        version = ".".join(map(str, self._base.version))
        self._result.actions.append(f"made ~/.grid/env/{self._name} with {self._base.path} ({version})")
        versions = [f"{package} {built['modules'][name]['version']}" for name, (package, _) in NEEDS.items()]
        self._result.actions.append(f"installed {', '.join(versions)} {how}")
        return _finish(self._result, f"~/.grid/env/{self._name}/bin/python", self._base.version, built["modules"])

    def _add(self, place: str, python: str, absent: Sequence[str]) -> None:
        """Install projects into the existing environment."""
        about = self._ask(f"{place}/bin/python", _ABOUT)
        assert about is not None
        tried: list[str] = []
        with tempfile.TemporaryDirectory(prefix="grid-wheels-") as directory:
            files, source = self._collect_more(Path(directory), about, tried, absent)
            where = f"$([ -d {place}/lib/python* ] && echo '' || echo {place}/lib)"
            program = shlex.quote(safe_program(_UNPACK))
            self._shell(f'{place}/bin/python -c {program} "{where}"', SEND_S, stdin=_tar(files))
        if still := _absent(self._connection, python, dict.fromkeys(absent)):
            raise PythonError(
                f"{', '.join(still)} was unpacked and is not found by {python}",
                host=self._result.host,
                hint="Does the wheel fit that interpreter?",
            )
        self._result.actions.append(f"installed {', '.join(absent)} {source}")

    def _build(self, build: str, about: dict[str, Any]) -> str:
        """Fill the directory; says where the packages came from.

        Our own installed packages come first where they fit: both sides then have the same versions, and it takes
        two seconds instead of twenty. Then the host's index, then ours.
        """
        # A venv of a link in /usr/local/bin to an interpreter elsewhere looks for the library beside the link.
        base = shlex.quote(about["real"])
        has = about["has"]
        sight = " --system-site-packages" if self._keeps else ""
        tried: list[str] = []
        if has["venv"]:
            with_pip = has["ensurepip"] and self._wheels is None and not fits_here(about)
            # Debian and others ship an ensurepip that is there and fails: do without it then.
            if with_pip and self._run(f"{base} -m venv{sight} {build}", INSTALL_S).returncode == 0:
                pip = "-m pip install --quiet --disable-pip-version-check --no-input --retries 0 --timeout 10"
                done = self._run(f"{build}/bin/python {pip} {' '.join(requirements())}", INSTALL_S)
                if done.returncode == 0 and not self._wanted:
                    return "from its own index"
                tried.append(f"its own index: {_last_line(done)}")
            else:
                self._shell(f"{base} -m venv --clear{sight} --without-pip {build}", INSTALL_S)
        else:
            wrapper = _WRAPPER.format(python=base)
            self._shell(
                f"mkdir -p {build}/bin {build}/lib && cat >{build}/bin/python && chmod 755 {build}/bin/python",
                stdin=wrapper.encode(),
            )
        with tempfile.TemporaryDirectory(prefix="grid-wheels-") as directory:
            files, source = self._collect(Path(directory), about, tried)
            if more := [name for name in self._wanted if name not in PACKAGES]:
                files += self._collect_more(Path(directory), about, tried, more)[0]
                self._result.actions.append(f"installed {', '.join(more)}")
            place = "''" if has["venv"] else f"{build}/lib"
            program = shlex.quote(safe_program(_UNPACK))
            self._shell(f"{build}/bin/python -c {program} {place}", SEND_S, stdin=_tar(files))
        return source

    def _collect_more(
        self, directory: Path, about: dict[str, Any], tried: list[str], names: Sequence[str]
    ) -> tuple[list[Path], str]:
        """Wheels of what the user wants there."""
        more = directory / "more"
        more.mkdir()
        given = [name for name in names if self._wheels is not None and name in projects_in(self._wheels)]
        files: list[Path] = []
        sources = []
        try:
            if given:
                files += download(more, about, self._wheels, given)
                sources.append(f"from wheels of {self._wheels}")
            if others := [name for name in names if name not in given]:
                files += self._of_ours(more, about, tried, others)
                sources.append("from our own or our index")
        except LookupError as exc:
            tried.append(str(exc))
            raise PythonError(
                f"no {', '.join(names)} for its Python {'.'.join(map(str, about['version']))} ({about['platform']}); "
                f"tried: {'; '.join(tried)}",
                host=self._result.host,
                hint="Fetch wheels for it where there is an index (`pip download --only-binary=:all: "
                f"--python-version {about['version'][0]}.{about['version'][1]} -d wheels {' '.join(names)}`), then "
                f"`grid hosts setup {self._result.host} --wheels wheels`",
            ) from exc
        return files, f"{' and '.join(sources)}, sent by ssh"

    def _of_ours(self, directory: Path, about: dict[str, Any], tried: list[str], names: Sequence[str]) -> list[Path]:
        if fits_here(about):
            try:
                return pack_installed(directory, [name for name in with_dependencies(names) if name not in PACKAGES])
            except LookupError as exc:
                tried.append(str(exc))
        return download(directory, about, None, names, needs=True)

    def _collect(self, directory: Path, about: dict[str, Any], tried: list[str]) -> tuple[list[Path], str]:
        theirs = projects_in(self._wheels) if self._wheels is not None else {}
        others_only = bool(theirs) and not set(theirs) & set(PACKAGES)
        if (self._wheels is None or others_only) and fits_here(about):
            try:
                return pack_installed(directory), "from our own, sent by ssh"
            except LookupError as exc:
                tried.append(str(exc))
        try:
            files = download(directory, about, None if others_only else self._wheels)
        except LookupError as exc:
            tried.append(str(exc))
        else:
            source = "our index" if self._wheels is None else str(self._wheels)
            return files, f"from wheels of {source}, sent by ssh"
        raise PythonError(
            f"no {' and '.join(PACKAGES)} for its Python {'.'.join(map(str, about['version']))} "
            f"({about['platform']}); tried: {'; '.join(tried)}",
            host=self._result.host,
            hint="Fetch wheels where there is an index (`pip download pyzmq dill`) and name their directory",
        )

    def _ask(self, python: str, program: str, check: bool = True) -> dict[str, Any] | None:
        done = self._run(f"{python} -c {shlex.quote(safe_program(program))}")
        if (answer := _answer(done)) is not None:
            return answer
        if not check:
            return None
        raise PythonError(
            f"{self._base.path} does not run: {_last_line(done)}",
            host=self._result.host,
            hint="Name another interpreter with python:",
        )

    def _shell(self, text: str, timeout: float | None = None, stdin: bytes = b"") -> Completed:
        done = self._run(text, timeout, stdin)
        if done.returncode == 0:
            return done
        said = done.stderr.decode("utf-8", "replace")
        kind = DiskError if any(word in said for word in ("space", "Read-only", "denied", "quota")) else PythonError
        raise kind(
            f"can't make the environment ~/.grid/env/{self._name}: {_last_line(done)}",
            host=self._result.host,
            hint="Is there room in the home directory, and may we write there?",
        )

    def _run(self, text: str, timeout: float | None = None, stdin: bytes = b"") -> Completed:
        init = self._connection.host.init_cmd
        if not init.rstrip().endswith("!"):  # a wrapper is for kernels; a `module load` may be what brings Python
            text = compose_command(init, text)
        return self._connection.run(text, stdin=stdin, timeout=timeout)


def _tar(files: Sequence[Path]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for file in files:
            archive.add(file, arcname=file.name)
    return stream.getvalue()


def _last_line(done: Completed) -> str:
    lines = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace").splitlines()
    errors = [line for line in lines if "ERROR" in line or "Error" in line]
    said = [line.strip() for line in errors or lines if line.strip()]
    return said[-1] if said else f"exit status {done.returncode}"
