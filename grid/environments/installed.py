"""What is installed in this process's own environment, as wheels.

A distribution that came as a wheel says so (`WHEEL`, `RECORD`), and becomes one again: the same content gives the same
bytes, so hosts that have it are sent nothing. One that is installed as editable is built from its sources.

Lives here: which there are, what each came from, packing one up.
Elsewhere:  building and fetching (`fetching.py`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

LEFT_HERE = frozenset({"sshgrid", "pip", "uv"})
"""Ours is sent in another way, and nothing is installed by tools on hosts."""
_OF_OTHERS = ("conda", "debian")
"""Installers whose packages stand on libraries outside of themselves."""
_DATE = (1980, 1, 1, 0, 0, 0)
_SKIPPED = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "RECORD.jws", "RECORD.p7s"}
_NOT_SOURCE = {".git", ".hg", ".venv", "venv", "build", "dist", "__pycache__", "node_modules", ".tox", ".mypy_cache"}


@dataclass(frozen=True)
class Installed:
    """One distribution."""

    distribution: importlib.metadata.Distribution

    @property
    def name(self) -> str:
        """As indexes compare it."""
        return str(canonicalize_name(self.distribution.metadata["Name"]))

    @property
    def version(self) -> str:
        return self.distribution.version

    @cached_property
    def source(self) -> str:
        """The directory that it is editable in; empty if it is installed as files."""
        try:
            said = json.loads(self.distribution.read_text("direct_url.json") or "{}")
        except ValueError:
            return ""
        url = urlsplit(said.get("url", ""))
        return unquote(url.path) if said.get("dir_info", {}).get("editable") and url.scheme == "file" else ""

    @property
    def key(self) -> str:
        """The same for the same content."""
        state = tree_state(self.source) if self.source else self.distribution.read_text("RECORD") or ""
        return hashlib.sha256(f"{self.name} {self.version} {state}".encode()).hexdigest()[:24]

    @property
    def filename(self) -> str:
        """Of the wheel that it can be packed into; empty if it did not come as one."""
        installer = (self.distribution.read_text("INSTALLER") or "").strip()
        tags = re.findall(r"^Tag:\s*(\S+)", self.distribution.read_text("WHEEL") or "", re.M)
        if self.source or not tags or not self.distribution.files or installer in _OF_OTHERS:
            return ""
        parts = [list(dict.fromkeys(column)) for column in zip(*(tag.split("-") for tag in tags), strict=True)]
        project = re.sub(r"[-_.]+", "_", self.distribution.metadata["Name"])
        return f"{project}-{self.version}-{'-'.join('.'.join(part) for part in parts)}.whl"


def installed() -> list[Installed]:
    """What is here, each project once: the one that is imported."""
    found: dict[str, Installed] = {}
    for distribution in importlib.metadata.distributions():
        if distribution.metadata["Name"]:  # else what is left of one that was removed
            one = Installed(distribution)
            found.setdefault(one.name, one)
    return [found[name] for name in sorted(found) if name not in LEFT_HERE]


def tree_state(directory: str) -> str:
    """The same until a file of these sources changes. What building leaves beside them does not count."""
    digest = hashlib.sha256()
    for top, folders, files in os.walk(directory):
        folders[:] = sorted(name for name in folders if name not in _NOT_SOURCE and not name.endswith(".egg-info"))
        for name in sorted(files):
            facts = os.lstat(os.path.join(top, name))
            digest.update(f"{top}/{name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def pack(one: Installed, directory: Path) -> Path:
    """The wheel of a distribution that has a `filename`."""
    path = directory / one.filename
    names = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        info = ""
        for name, content, mode in sorted(_entries(one), key=lambda entry: entry[0]):
            if name.endswith(".dist-info/WHEEL"):
                info = name.removesuffix("/WHEEL")
            _write(archive, name, content, mode)
            names.append(name)
        record = "".join(f"{name},,\n" for name in [*names, f"{info}/RECORD"])
        _write(archive, f"{info}/RECORD", record.encode(), 0o644)
    return path


def _write(archive: zipfile.ZipFile, name: str, content: bytes, mode: int) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (0o755 if mode & 0o100 else 0o644) << 16
    archive.writestr(entry, content)


def _entries(one: Installed) -> Iterator[tuple[str, bytes, int]]:
    made = {point.name for point in one.distribution.entry_points if point.group in ("console_scripts", "gui_scripts")}
    info = f"{one.filename.split('-')[0]}-{one.version}"
    scripts = Path(sys.prefix) / ("Scripts" if os.name == "nt" else "bin")
    for file in one.distribution.files or ():
        if "__pycache__" in file.parts or (file.parent.name.endswith(".dist-info") and file.name in _SKIPPED):
            continue
        where = Path(os.path.normpath(str(file.locate())))
        if not where.is_file():
            continue  # somebody removed it; what uses it failed here as well
        content, mode = where.read_bytes(), where.stat().st_mode
        if ".." not in file.parts and not file.is_absolute():
            yield file.as_posix(), content, mode
        elif where.parent == scripts:
            if where.name not in made:
                first, newline, rest = content.partition(b"\n")
                shebang = b"#!python" if re.match(rb"#!.*python", first) else first
                yield f"{info}.data/scripts/{where.name}", shebang + newline + rest, 0o755
        elif where.is_relative_to(sys.prefix):
            yield f"{info}.data/data/{where.relative_to(sys.prefix).as_posix()}", content, mode
