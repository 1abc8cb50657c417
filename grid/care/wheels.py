"""Packages as wheels for another machine, collected at this end: the two that a kernel needs, and the user's.

Lives here: packing up what is installed here, or having pip fetch what fits there.
Elsewhere:  sending and unpacking them (`environment.py`).

A wheel is a zip file that only has to be unpacked in the right place, so the host needs neither pip nor an index.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grid.environments.platforms import numbers_of, platform_tags

PACKAGES = ("pyzmq", "dill")
DOWNLOAD_S = 180.0


def fits_here(python: dict[str, Any]) -> bool:
    """Whether what is installed here runs there: same Python, same platform, a C library not older than ours."""
    if python["cache_tag"] != sys.implementation.cache_tag or python["platform"] != sysconfig.get_platform():
        return False
    kind, version = platform.libc_ver()
    return python["libc"][0] == kind and numbers_of(python["libc"][1]) >= numbers_of(version)


def requirements() -> list[str]:
    """What to ask an index for: the dill that we have, as both sides must read what the other writes."""
    try:
        version = importlib.metadata.version("dill")
    except importlib.metadata.PackageNotFoundError:
        return list(PACKAGES)
    released = re.fullmatch(r"[0-9.]+", version) is not None
    return ["pyzmq", f"dill=={version}" if released else "dill"]


def normalized(name: str) -> str:
    """The name of a project as indexes compare it: `scikit_learn` is `scikit-learn`. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def projects_in(wheels: Path) -> dict[str, str]:
    """The projects that a directory has wheels of, each with its newest version there."""
    found: dict[str, str] = {}
    for file in sorted(wheels.glob("*.whl")):
        name, _, rest = file.name.partition("-")
        version = rest.partition("-")[0]
        known = found.get(normalized(name))
        if known is None or numbers_of(version) >= numbers_of(known):
            found[normalized(name)] = version
    return found


def with_dependencies(names: Iterable[str]) -> list[str]:
    """Projects that are installed here, and what they need of what is installed here.

    Raises:
        LookupError: One of `names` is not installed here.
    """
    waiting, found = [normalized(name) for name in names], dict[str, None]()
    wanted = set(waiting)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError as exc:
            if name in wanted:
                raise LookupError(f"{name} is not installed here") from exc
            continue  # it is for another platform, or an extra that nobody asked for
        found[name] = None
        for need in needs:
            match = re.match(r"[A-Za-z0-9._-]+", need)
            if match and not re.search(r"\bextra\b", need.partition(";")[2]):
                waiting.append(normalized(match.group()))
    return list(found)


def pack_installed(directory: Path, names: Iterable[str] = PACKAGES) -> list[Path]:
    """Wheels of our own installed packages, from the lists of files that their installation left.

    Raises:
        LookupError: One of them is not installed in the usual way (editable, or by another packager).
    """
    found = []
    for name in names:
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as exc:
            raise LookupError(f"{name} is not installed here") from exc
        files = [file for file in package.files or [] if ".." not in file.parts and "__pycache__" not in file.parts]
        if not any(file.suffix == ".py" for file in files):
            raise LookupError(f"{name} is not installed here as files")
        path = directory / f"{name}-{package.version}-installed.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in files:
                archive.write(str(file.locate()), file.as_posix())
        found.append(path)
    return found


def download(
    directory: Path, python: dict[str, Any], wheels: Path | None, names: Iterable[str] = (), *, needs: bool = False
) -> list[Path]:
    """Have our pip fetch wheels for the host's Python, from the index or from a directory of wheels.

    Args:
        names: Of which projects; default: those that a kernel needs.
        needs: Also what these depend on.

    Raises:
        LookupError: pip is missing, or found none that fit; the message is its own.
    """
    major, minor = python["version"][:2]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:", *([] if needs else ["--no-deps"]), "--dest", str(directory)]
    command += ["--implementation", "cp", "--python-version", f"{major}.{minor}"]
    for abi in (f"cp{major}{minor}", "abi3", "none"):
        command += ["--abi", abi]
    for tag in platform_tags(python["platform"], python["libc"]):
        command += ["--platform", tag]
    if wheels is not None:
        command += ["--no-index", "--find-links", str(wheels)]
    command += list(names) or requirements()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=DOWNLOAD_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise LookupError(f"pip download did not end within {DOWNLOAD_S:g} s") from exc
    if done.returncode:
        said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if "ERROR" in line]
        raise LookupError(f"pip download failed: {said[-1] if said else 'no reason given'}")
    return sorted(directory.glob("*.whl"))
