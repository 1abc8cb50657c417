"""Environments of packages on a host: built from wheels that came over the launch channel, listed, removed.

    ~/.grid/env/
        <16 hex>/           one environment, a venv whose name is the hash of what is in it; never changed once made
            .grid.json      what is in it. Written last but for the move to this place
            .used           touched when a kernel starts in it, and each hour while one runs
        wheels/<sha256>     wheels by content, from which the next one is built, too; .part while one arrives
        .lock               held by the one process that receives and builds
        .building-*         half built. What the holder of the lock finds of this kind was left by a process that died

Everything is built beside its place and moved there by one rename, so nothing half-built counts, whatever ended the
builder. The kernel drops its lock. Who comes second waits for it, and finds the environment there.

The dialog (`serve`; lines of JSON, ours begin with `MARK`): the client names the environment that it used last, the
host says what Python it has and whether that environment is there. If not, the client says what is wanted, the host
which wheels it lacks and how much of each is there already; the client sends the rest, the host builds.

Stands on the standard library alone, of Python 3.10: it is sent as text, and runs where nothing is installed.
Installing is what the wheel format asks for, and no more: unpack, spread `.data`, make scripts. Source: PEP
427, PEP 376.

Lives here: all that happens on the host. Elsewhere: the client's end of the dialog (`environments/travel.py`).
"""

from __future__ import annotations

import configparser
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO

MARK = "grid-env "
NAME = re.compile(r"[0-9a-f]{16}\Z")
MANIFEST, USED = ".grid.json", ".used"
STALL_S = 60
"""So long without a byte, and the client counts as dead: the lock is for the next one."""
IN_USE_S = 7200.0
"""A kernel that runs touches its environment each hour."""
_SPARE_S = 86400.0
"""A wheel that no environment has may just have come for one that is about to be built."""
_TRY_S = 120.0
_CHUNK = 1 << 20
_LOOK_S = 0.05
_SHEBANG = 127
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOADER = re.compile(
    r"cannot open shared object|undefined symbol|wrong ELF class|version `.*' not found|Library not loaded|invalid ELF"
    r"|image not found"
)


def place() -> Path:
    """Where environments are."""
    return Path.home() / ".grid" / "env"


class BuildRefused(Exception):
    """Told to the client: `kind` is the class of its error there."""

    def __init__(self, what: str, hint: str, kind: str = "PythonError", **facts: Any) -> None:
        super().__init__(what)
        self.told = {"error": what, "hint": hint, "kind": kind, **facts}


def about() -> dict[str, Any]:
    """This interpreter, as far as wheels and the environments on it depend on it."""
    base = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    major, minor, micro = sys.version_info[:3]
    implementation = sys.implementation
    return {
        "version": [major, minor, micro],
        "cache_tag": (implementation.cache_tag or "") + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
        "platform": sysconfig.get_platform(),
        "libc": list(platform.libc_ver()),
        "base": f"{major}.{minor}.{micro} {base}",
        "markers": {
            "implementation_name": implementation.name,
            "implementation_version": ".".join(map(str, implementation.version[:3])),
            "os_name": os.name,
            "platform_machine": platform.machine(),
            "platform_release": platform.release(),
            "platform_system": platform.system(),
            "platform_version": platform.version(),
            "python_full_version": platform.python_version(),
            "platform_python_implementation": platform.python_implementation(),
            "python_version": f"{major}.{minor}",
            "sys_platform": sys.platform,
        },
    }


def ready(name: str, base: str) -> str | None:
    """The interpreter of an environment that is there and stands on `base`; it counts as used now."""
    root = place() / name
    if NAME.match(name) and manifest(root).get("base") == base:
        touch(root)
        return str(root / "bin" / "python")
    return None


def manifest(root: Path) -> dict[str, Any]:
    """What an environment says of itself; empty if it is none."""
    try:
        found: dict[str, Any] = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return found


def touch(root: Path) -> None:
    """It is used now."""
    try:
        os.utime(root / USED)
    except OSError:
        pass  # a full or foreign disk: it only looks older than it is


# ---- the dialog ----------------------------------------------------------------------------------------------


def serve(stdin: BinaryIO, stdout: TextIO) -> None:
    """One dialog; see the module."""

    def say(**words: Any) -> None:
        stdout.write(MARK + json.dumps(words) + "\n")
        stdout.flush()

    os.umask(0o077)
    facts = about()
    try:
        known = _hear(stdin)["known"]
        python = ready(known, facts["base"]) if known else None
        say(about=facts, python=python)
        if python is None:
            wish = _hear(stdin)
            say(python=_have(wish, facts["base"], stdin, say))
    except BuildRefused as exc:
        say(**exc.told)
    except OSError as exc:
        say(**_of_disk(exc).told)


def _hear(stdin: BinaryIO) -> dict[str, Any]:
    line = stdin.readline()
    if not line:
        sys.exit(0)  # the client has what it wants, or has ended
    words: dict[str, Any] = json.loads(line)
    return words


def _have(wish: dict[str, Any], base: str, stdin: BinaryIO, say: Any) -> str:
    """The interpreter of the environment that is wished for, built unless it is there."""
    name = wish["name"]
    assert NAME.match(name), name
    store = place() / "wheels"
    store.mkdir(parents=True, exist_ok=True)
    lock = os.open(place() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(lock, say)
        if (python := ready(name, base)) is not None:
            return python
        _clear_building()
        lacking = [(sha, size) for _, sha, size in wish["wheels"] if not (store / sha).exists()]
        try:
            _check_room(sum(size for _, size in lacking))
            say(lacks=[[sha, _arrived(store, sha, size)] for sha, size in lacking])
            for sha, size in lacking:
                _receive(store, sha, size, stdin)
            say(building=True)
            return _build(wish, base, store)
        except OSError as exc:
            _clear_building()
            raise _of_disk(exc, _unpacked(wish, store)) from exc
        except BaseException:
            _clear_building()
            raise
    finally:
        os.close(lock)  # which drops it


def _take(lock: int, say: Any) -> None:
    told = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as exc:
            if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return  # no locks in this file system; a rename decides all the same
        if time.monotonic() - told > 1.0:
            told = time.monotonic()
            say(waits=True)  # fails if the client has ended, which ends us
        time.sleep(_LOOK_S)


def _arrived(store: Path, sha: str, size: int) -> int:
    """How much of a wheel came before the line was cut."""
    try:
        return min(size, (store / f"{sha}.part").stat().st_size)
    except FileNotFoundError:
        return 0


def _receive(store: Path, sha: str, size: int, stdin: BinaryIO) -> None:
    """One wheel, from where it was cut; it counts once its content is what its name says."""
    part = store / f"{sha}.part"
    digest = hashlib.sha256()
    with open(part, "ab+") as file:
        file.seek(0)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        left = size - file.tell()
        try:
            while left > 0:
                signal.alarm(STALL_S)
                chunk = stdin.read(min(_CHUNK, left))
                signal.alarm(0)
                if not chunk:
                    file.flush()
                    sys.exit(1)
                file.write(chunk)
                digest.update(chunk)
                left -= len(chunk)
            file.flush()
        except OSError:
            part.unlink()  # on a full disk it would only be in the way
            raise
    if digest.hexdigest() != sha:
        part.unlink()
        raise BuildRefused(
            f"a wheel arrived with other content than it was sent with ({sha[:12]}...)",
            "Try again: it is sent anew. If that fails as well, look at the disk there",
            "DiskError",
        )
    os.rename(part, store / sha)


def _free() -> int:
    disk = os.statvfs(place())
    return disk.f_bavail * disk.f_frsize


def _check_room(needed: int) -> None:
    if _free() < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place()))


def _unpacked(wish: dict[str, Any], store: Path) -> int:
    """Bytes that the wheels take and unpack to, as far as they are there."""
    needed = 0
    for _, sha, size in wish["wheels"]:
        try:
            with zipfile.ZipFile(store / sha) as wheel:
                needed += sum(info.file_size for info in wheel.infolist())
        except (OSError, zipfile.BadZipFile):
            needed += 4 * size  # it never came: what wheels unpack to on average, and itself
    return needed


def _of_disk(exc: OSError, needed: int = 0) -> BuildRefused:
    where = exc.filename or place()
    if exc.errno not in _FULL:
        return BuildRefused(
            f"can't build the environment: {exc.strerror} ({where})", "May we write there?", "DiskError"
        )
    free = _free()
    told = f"; about {needed >> 20} MB are needed, {free >> 20} MB are free" if needed else ""
    return BuildRefused(
        f"can't build the environment: {exc.strerror} ({where}){told}",
        "Free some space in the home directory there (`grid env prune`), or have the quota raised",
        "DiskError",
        needed=needed,
        free=free,
    )


# ---- building ------------------------------------------------------------------------------------------------


def _clear_building() -> None:
    for old in place().glob(".building-*"):
        shutil.rmtree(old, ignore_errors=True)
    for old in place().glob(".going-*"):
        shutil.rmtree(old, ignore_errors=True)


def _build(wish: dict[str, Any], base: str, store: Path) -> str:
    """Build beside the place, look whether it works, move it there."""
    _check_room(_unpacked(wish, store))
    name = wish["name"]
    fresh, final = place() / f".building-{name}-{os.getpid()}", place() / name
    site = _skeleton(fresh, base)
    compiled = {}
    for filename, sha, _ in wish["wheels"]:
        try:
            modules = install(store / sha, fresh, site, final)
        except (zipfile.BadZipFile, ValueError) as exc:
            (store / sha).unlink()
            raise BuildRefused(f"{filename} can't be installed: {exc}", "Is it a wheel? Fetch it anew") from exc
        if modules:
            compiled[filename] = modules
    doubts = _try(fresh / "bin" / "python", compiled)
    facts = {key: wish.get(key) for key in ("name", "wheels", "word")}
    size = sum(file.lstat().st_size for file in fresh.rglob("*"))
    facts |= {"base": base, "made": time.time(), "bytes": size, "doubts": doubts}
    (fresh / USED).touch()
    (fresh / MANIFEST).write_text(json.dumps(facts))
    if final.exists():  # not one of ours: it has no manifest, or stands on another Python
        os.rename(final, place() / f".going-{name}-{os.getpid()}")
    os.rename(fresh, final)
    _clear_building()
    return str(final / "bin" / "python")


def _skeleton(root: Path, base: str) -> Path:
    """A venv without packages, as the module venv makes it, which some hosts lack. Returns its site-packages."""
    version, _, executable = base.partition(" ")
    major, minor = version.split(".")[:2]
    site = root / "lib" / f"python{major}.{minor}" / "site-packages"
    site.mkdir(parents=True)
    (root / "bin").mkdir()
    for link in ("python", "python3", f"python{major}.{minor}"):
        os.symlink(executable, root / "bin" / link)
    if sys.maxsize > 1 << 32 and sys.platform == "linux":
        os.symlink("lib", root / "lib64")
    (root / "pyvenv.cfg").write_text(
        f"home = {os.path.dirname(executable)}\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    return site


def install(wheel: Path, root: Path, site: Path, final: Path) -> list[str]:
    """Unpack one wheel into a venv that will be at `final`; returns the modules of it that are compiled.

    Raises:
        ValueError: It is not as wheels are.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        infos = {name.split("/")[0] for name in names if name.split("/")[0].endswith(".dist-info")}
        if len(infos) != 1:
            raise ValueError(f"it has {len(infos)} directories of metadata, not one")
        (info,) = infos
        about_it = archive.read(f"{info}/WHEEL").decode()
        if not re.search(r"^Wheel-Version:\s*1\.", about_it, re.M):
            raise ValueError("it is of an unknown version of the format")
        data = info.removesuffix(".dist-info") + ".data/"
        places = _places(root, site, info)
        made: set[Path] = set()
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            path, is_script = _where(entry.filename, data, places)
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            content = archive.read(entry)
            if is_script:
                content = _with_interpreter(content, final)
            path.write_bytes(content)
            if is_script or entry.external_attr >> 16 & 0o111:
                path.chmod(0o700)
        scripts = _make_scripts(site / info / "entry_points.txt", root, final)
        (site / info / "INSTALLER").write_text("grid\n")
        with open(site / info / "RECORD", "a") as record:
            record.writelines(f"../../../bin/{script},,\n" for script in scripts)
            record.write(f"{info}/INSTALLER,,\n")
    return sorted(_compiled(names))


def _places(root: Path, site: Path, info: str) -> dict[str, Path]:
    project = info.split("-")[0]
    headers = root / "include" / "site" / site.parent.name / project
    return {"purelib": site, "platlib": site, "scripts": root / "bin", "headers": headers, "data": root}


def _where(name: str, data: str, places: dict[str, Path]) -> tuple[Path, bool]:
    """Where a file of a wheel goes, and whether it is a script."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name:
        raise ValueError(f"a file of it would be outside of the environment: {name}")
    if not name.startswith(data):
        return places["purelib"] / name, False
    kind, _, rest = name[len(data) :].partition("/")
    if kind not in places:
        raise ValueError(f"it has files of an unknown kind: {kind}")
    return places[kind] / rest, kind == "scripts"


def _with_interpreter(content: bytes, final: Path) -> bytes:
    first, newline, rest = content.partition(b"\n")
    if not re.match(rb"#!pythonw?\b", first):
        return content
    return _shebang(final).encode() + newline + rest


def _shebang(final: Path) -> str:
    """The first line of a script; of a long path, or one with blanks, only a shell can make sense."""
    python = f"{final}/bin/python"
    if len(python) < _SHEBANG - 2 and " " not in python:
        return f"#!{python}"
    return f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''"


def _make_scripts(points: Path, root: Path, final: Path) -> list[str]:
    if not points.exists():
        return []
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    try:
        parser.read_string(points.read_text())
    except configparser.Error as exc:
        raise ValueError(f"its entry points can't be read: {exc}") from exc
    made = []
    for section in ("console_scripts", "gui_scripts"):
        for name, target in parser.items(section) if parser.has_section(section) else ():
            found = re.fullmatch(r"([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?", target.strip())
            if found is None or not re.fullmatch(r"[\w.+-]+", name):
                raise ValueError(f"its script {name!r} has no place to start: {target!r}")
            module, function = found.groups()
            text = f"{_shebang(final)}\nimport sys\nfrom {module} import {function.split('.')[0]}\n"
            (root / "bin" / name).write_text(text + f"if __name__ == '__main__':\n    sys.exit({function}())\n")
            (root / "bin" / name).chmod(0o700)
            made.append(name)
    return made


def _compiled(names: Iterable[str]) -> Iterator[str]:
    known = set(names)
    found = set()
    for name in known:
        if not name.endswith(".so"):
            continue
        top, slash, _ = name.partition("/")
        if not slash:
            found.add(top.split(".")[0])
        elif f"{top}/__init__.py" in known:
            found.add(top)
    yield from (name for name in found if name.isidentifier())


def _try(python: Path, compiled: dict[str, list[str]]) -> list[str]:
    """Import what is compiled, each wheel in a process of its own, as many at once as there are cores.

    Raises Refused if the loader does not find what one of them needs. Other errors may have reasons (no screen, no
    GPU), and are returned in words.
    """
    waiting = list(compiled.items())
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    doubts: list[str] = []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    deadline = time.monotonic() + _TRY_S
    try:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                filename, modules = waiting.pop(0)
                program = f"import {', '.join(modules)}"
                process = subprocess.Popen(
                    [str(python), "-c", program],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=environment,
                    cwd="/",
                )
                running.append((filename, process))
            filename, process = running[0]
            try:
                said = process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1].decode("utf-8", "replace")
            except subprocess.TimeoutExpired:
                return [*doubts, f"importing took longer than {_TRY_S:g} s"]
            running.pop(0)
            if process.returncode:
                last = (said.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
                if _LOADER.search(said):
                    _unfit(filename, said)
                doubts.append(f"{filename}: {last}")
    finally:
        for _, process in running:
            process.kill()
            process.communicate()
    return doubts


def _unfit(filename: str, said: str) -> NoReturn:
    line = next(line for line in reversed(said.splitlines()) if _LOADER.search(line))
    raise BuildRefused(
        f"{filename} was installed and can't be imported there: {line.strip()}",
        "Install that library there, or make it available with init_cmd (`module load gcc;`) or env "
        "(LD_LIBRARY_PATH); or choose another version of the package",
        wheel=filename,
    )


# ---- looking and removing ------------------------------------------------------------------------------------


def look() -> list[dict[str, Any]]:
    """All environments here, the newest use first: `name`, `word`, `base`, `wheels`, `bytes`, `made`, `used`."""
    found = []
    for root in place().glob("*") if place().is_dir() else ():
        facts = manifest(root) if NAME.match(root.name) else {}
        if facts:
            try:
                used = (root / USED).stat().st_mtime
            except OSError:
                used = facts["made"]
            found.append({**facts, "used": used, "path": str(root), "age_s": max(0.0, time.time() - used)})
    return sorted(found, key=lambda each: -each["used"])


def look_around() -> dict[str, Any]:
    """The same in `environments`, and `place`: what tells whether two machines have one home directory."""
    where = place()
    found = look()
    there = where.stat().st_ino if where.is_dir() else 0
    times = [[one["name"], one["made"]] for one in found]
    return {"place": json.dumps([str(where), there, times]), "environments": found}


def prune(names: list[str] | None, unused_s: float) -> dict[str, Any]:
    """Remove environments, and wheels that no environment has any more.

    Args:
        names: Only these; None: all.
        unused_s: Only what nobody has used for so many seconds. What a kernel uses now stays in any case.
    Returns:
        `removed`, `kept`: names; `bytes` that were freed.
    """
    removed: list[str] = []
    kept: list[str] = []
    freed = 0
    if not place().is_dir():
        return {"removed": removed, "kept": kept, "bytes": freed}
    lock = os.open(place() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(lock, lambda **_: None)
        _clear_building()
        for one in look():
            if names is not None and one["name"] not in names:
                continue
            if one["age_s"] < max(unused_s, IN_USE_S):
                kept.append(one["name"])
                continue
            os.rename(one["path"], place() / f".going-{one['name']}-{os.getpid()}")  # half of it must not count
            removed.append(one["name"])
            freed += one["bytes"]
        _clear_building()
        freed += _forget_wheels() + _forget_pythons()
    finally:
        os.close(lock)
    return {"removed": removed, "kept": kept, "bytes": freed}


def _forget_pythons() -> int:
    """Interpreters of archives on which no environment stands."""
    used = [one["base"] for one in look()]
    freed = 0
    for path in place().glob("python-*"):
        stands = any(f" {path}/" in base for base in used)
        if path.is_dir() and not stands and time.time() - path.stat().st_mtime > _SPARE_S:
            freed += sum(file.lstat().st_size for file in path.rglob("*"))
            shutil.rmtree(path, ignore_errors=True)
    return freed


def _forget_wheels() -> int:
    used = {sha for one in look() for _, sha, _ in one["wheels"]}
    freed = 0
    for path in (place() / "wheels").glob("*"):
        if path.name not in used and time.time() - path.stat().st_mtime > _SPARE_S:
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
    return freed
