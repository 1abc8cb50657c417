"""A Python for a host that has none, from those that uv installs on this machine: `python_archive: uv` or `uv:3.12`.

uv's builds are relocatable, and uv has them for other platforms than its own. Where it can't ask for one (no internet),
one that it installed before will do.

    $XDG_CACHE_HOME/grid/pythons/<uv's name of it>.tar.gz      packed once, sent as any archive

Lives here: `uv_archive`. Elsewhere: sending it and unpacking it there (`archive.py`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from grid.environments.fetching import TOOL_S, errors_of, uv_program
from grid.errors import PackagesError
from grid.hosts import Host
from grid.launch import Connection

ASK_S = 60.0
WORD = re.compile(r"uv(?::(3\.\d+(?:\.\d+)?))?")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "i386": "x86", "i686": "x86"}
_QUESTION = "uname -sm; for f in /lib/ld-musl-*; do [ -e $f ] && echo musl; done; true"


def uv_archive(word: str, connection: Connection, host: Host, cache: Path) -> Path:
    """An archive of the Python that `word` names, for the platform of a host.

    Args:
        word: `uv`: of the same minor version as this one; or `uv:3.12`, `uv:3.12.4`.
        cache: The directory in which it is kept.
    Raises:
        PackagesError: There is no uv here, or it has no such Python.
        ConnectError: The host does not answer.
    """
    found = WORD.fullmatch(word)
    assert found is not None, word
    version = found[1] or f"{sys.version_info[0]}.{sys.version_info[1]}"
    platform = _platform(connection.run(_QUESTION, timeout=ASK_S).stdout.decode("utf-8", "replace"), host)
    uv = uv_program()
    if uv is None:
        raise PackagesError(
            f"python_archive: {word}: there is no uv on this machine",
            hint="Run: pip install 'sshgrid[env]', or name an archive that you have",
        )
    said = _run(uv, "python", "install", "--no-config", f"cpython-{version}-{platform}")
    home = Path(_run(uv, "python", "dir").stdout.strip())
    newest = newest_of(os.listdir(home) if home.is_dir() else [], version, platform)
    if newest is None:
        raise PackagesError(
            f"python_archive: {word}: uv has no Python {version} for {platform}: {errors_of(said.stderr)}",
            hint="Is the internet reachable from here? Or name an archive that you have",
        )
    return _packed(home / newest, cache / "pythons")


def newest_of(names: list[str], version: str, platform: str) -> str | None:
    """Of the directories that uv made the one of the newest release of a version; None if there is none."""
    fitting = []
    for name in names:
        found = re.fullmatch(rf"cpython-(3\.\d+\.\d+)-{re.escape(platform)}", name)
        if found and (found[1] == version or found[1].startswith(f"{version}.")):
            fitting.append((tuple(map(int, found[1].split("."))), name))
    return max(fitting)[1] if fitting else None


def _platform(said: str, host: Host) -> str:
    """uv's word for it, such as `linux-x86_64-gnu`."""
    words = said.split()
    for at, system in enumerate(words[:-1]):
        if system in ("Linux", "Darwin"):
            machine = _MACHINES.get(words[at + 1], words[at + 1])
            libc = "none" if system == "Darwin" else "musl" if "musl" in words else "gnu"
            return f"{'macos' if system == 'Darwin' else 'linux'}-{machine}-{libc}"
    raise PackagesError(
        f"host {host.label!r} does not say what platform it is: {said.strip()[:200]!r}", hint="Name an archive"
    )


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise PackagesError(f"uv did not end within {TOOL_S:g} s", hint="Is the internet reachable from here?") from exc


def _packed(directory: Path, place: Path) -> Path:
    """Its archive, which is made once: its content names the place on hosts."""
    archive = place / f"{directory.name}.tar.gz"
    if archive.exists():
        return archive
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".new-", dir=place)
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as packed:
            packed.add(directory, "python", filter=_without_byte_code)
        os.replace(name, archive)
    finally:
        Path(name).unlink(missing_ok=True)
    return archive


def _without_byte_code(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return None if "__pycache__" in member.name.split("/") else member
