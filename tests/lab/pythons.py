"""Interpreters for the test hosts: whole, readable, and holding just the packages that a host should have.

Lives here: finding CPython of a wanted minor version on this machine, copying it with packages into the cache.
Elsewhere:  putting a copy in a host's /usr/local/bin (`host.py`, `init.sh`).

A copy and not a venv: a venv points back to its base, which often lies in a home of mode 0700 where another user can't
read it, and a symbolic link to a venv's python forgets the venv. A copy may be mounted and linked anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from tests.lab.ground import MissingPart, MissingPython, call

CLIENT = f"{sys.version_info.major}.{sys.version_info.minor}"  # "3.11", say
KERNEL_PACKAGES = ("pyzmq", "dill")  # all that the kernel needs on a host
UNUSED_DAYS = 14
LAYOUT = 3  # raise when copies of an older making must not be used any more

_UNNEEDED = shutil.ignore_patterns(
    "site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "config-*", "*.a", "lib2to3"
)
_ASK = """
import json, sys, sysconfig
paths = sysconfig.get_paths()
print(json.dumps({
    "executable": sys.executable,
    "version": sys.version,
    "minor": "%d.%d" % sys.version_info[:2],
    "stdlib": paths["stdlib"],
    "platstdlib": paths["platstdlib"],
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """One copy in the cache, to be mounted at /opt/python<minor> of a host."""

    minor: str
    path: Path
    library: str  # where its binary looks for libpython, and finds a link in the host; "" if it has none


def cache_directory() -> Path:
    """Shared between runs; hosts see parts of it through bind mounts, so that its own parents may be private."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "grid-lab"


def interpreter(minor: str, packages: tuple[str, ...]) -> Interpreter:
    """A copy of CPython `minor` with `packages` and no others, made at the first demand.

    Raises:
        MissingPython: There is no such Python on this machine.
        MissingPart: Its packages can't be had.
    """
    facts = _find(minor)
    versions = {name: _installed_version(name) if minor == CLIENT else None for name in packages}
    key = hashlib.sha256(json.dumps([LAYOUT, facts, versions], sort_keys=True).encode()).hexdigest()[:12]
    target = cache_directory() / f"python{minor}-{key}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _forget_unused(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="making-") as scratch:
            made = Path(scratch) / "python"
            _copy(facts, made)
            _add_packages(made / f"lib/python{minor}/site-packages", minor, packages, versions)
            try:
                made.rename(target)  # whoever is first wins; the copies are equal
            except OSError:
                if not target.exists():
                    raise
    os.utime(target)
    return Interpreter(minor, target, facts["library"])


def _forget_unused(cache: Path) -> None:
    for path in cache.iterdir():
        if time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(path, ignore_errors=True)


@cache
def _find(minor: str) -> dict[str, str]:
    for candidate in _candidates(minor):
        try:
            answer = subprocess.run(
                [candidate, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, check=True
            )
            facts: dict[str, str] = json.loads(answer.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            continue  # a shim without a version behind it, a broken installation: the next one
        if facts["minor"] == minor:
            return {**facts, "library": _shared_library(facts["executable"])}
    raise MissingPython(f"no CPython {minor} on this machine")


def _shared_library(executable: str) -> str:
    """Where the binary finds its libpython; "" if it is linked into it. (sysconfig doesn't know: Debian says both.)"""
    found = re.search(r"libpython\S+ => (/\S+)", call("ldd", os.path.realpath(executable), check=False))
    return found[1] if found else ""


def _candidates(minor: str) -> list[str]:
    name = f"python{minor}"
    found = []
    if minor == CLIENT:
        found.append(f"{sys.base_prefix}/bin/{name}")
    home = Path.home()
    for pattern in (
        f".pyenv/versions/{minor}.*/bin/{name}",
        f".local/share/uv/python/cpython-{minor}.*/bin/{name}",
    ):
        found += [str(path) for path in sorted(home.glob(pattern), reverse=True)]
    found += [f"/usr/local/bin/{name}", f"/usr/bin/{name}", f"/opt/{name}/bin/{name}"]
    return [path for path in found if os.path.exists(path)]


def _copy(facts: dict[str, str], target: Path) -> None:
    minor = facts["minor"]
    stdlib = target / f"lib/python{minor}"
    (target / "bin").mkdir(parents=True)
    shutil.copy2(os.path.realpath(facts["executable"]), target / f"bin/python{minor}")
    for name in ("python3", "python"):
        (target / "bin" / name).symlink_to(f"python{minor}")
    # copy2 keeps the times, so that the byte code that lies beside the sources stays valid
    shutil.copytree(facts["stdlib"], stdlib, ignore=_UNNEEDED, ignore_dangling_symlinks=True)
    if facts["platstdlib"] != facts["stdlib"]:
        shutil.copytree(facts["platstdlib"], stdlib, ignore=_UNNEEDED, dirs_exist_ok=True)
    (stdlib / "site-packages").mkdir(exist_ok=True)
    (target / "lib/python3").mkdir()  # under this name Debian's Python looks for packages
    (target / "lib/python3/dist-packages").symlink_to(f"../python{minor}/site-packages")
    if facts["library"]:
        shutil.copy2(facts["library"], target / "lib")
    subprocess.run(["chmod", "-R", "u+rwX,go+rX,go-w", str(target)], check=True)


def is_installed(name: str) -> bool:
    """Whether this interpreter has a package: then a host can have a copy of it."""
    return _installed_version(name) is not None


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _add_packages(
    site: Path, minor: str, packages: tuple[str, ...], versions: dict[str, str | None]
) -> None:
    for name in packages:
        if versions[name] is not None:  # what the client itself uses: no network needed, and equal versions
            for file in metadata.files(name) or ():
                if not file.parts[0].startswith(".."):
                    (site / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file.locate(), site / file)
    wanted = [name for name in packages if versions[name] is None]
    if wanted:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--only-binary=:all:", "--python-version", minor, "--target", str(site), *wanted]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        if done.returncode:
            reason = re.sub(r"\s+", " ", done.stderr).strip()[-300:]
            raise MissingPart(f"pip could not get {', '.join(wanted)} for Python {minor}: {reason}")
    subprocess.run(["chmod", "-R", "u+rwX,go+rX,go-w", str(site)], check=True)
