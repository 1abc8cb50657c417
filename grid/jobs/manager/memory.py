"""Remembered results: their keys, the files of their jobs, and equal requests at the same moment.

A result is remembered by the request, the contents of the files that it names, the service's version, versions of
software, and by what the job stood on: version, software and result of each job that it waited for. Files that the job
left in its directory belong to the result: they come with it if they are unchanged, else the job runs again.
Names that the request was given from the job's own id or directory do not count.

Lives here: `memo_key`, `Memory`.
Elsewhere:  where results are kept (`store/`), who wants that (`Service.memo`), when a job starts (`running.py`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from grid.jobs.host.errors import RequestError
from grid.jobs.host.names import safe_key
from grid.jobs.host.plain import dumps
from grid.jobs.host.service import Service
from grid.jobs.store.store import Store

FILES = 10_000
"""Files of a job that are remembered with its result; a job that left more is not remembered."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def memo_key(
    service: type[Service],
    plain: dict[str, Any],
    inputs: list[Any] | None = None,
    stood_on: Sequence[Mapping[str, Any]] = (),
    own: Mapping[str, str] | None = None,
) -> str:
    """A key that changes when anything that the result depends on does.

    Args:
        plain: The saved request, all references resolved.
        stood_on: What is known of each job that it waited for; `file`: path of a file that it waited for.
        own: Texts that are this job's alone, such as its directory -> what counts in their place.
    Raises:
        RequestError: A distribution in `requires` is not installed, or a file in `files` can't be read.
    """
    facts = {
        "service": plain["service"],
        "version": plain["version"],
        "data": _replaced(plain["data"], own or {}),
        "inputs": inputs,
        "software": versions(service.requires),
        "files": {name: _contents(plain["data"].get(name), name) for name in service.files},
    }
    if stood_on:
        facts["stood_on"] = [
            {**each, "file": _contents(each["file"], "when")} if "file" in each else dict(each) for each in stood_on
        ]
    return hashlib.sha256(dumps(facts).encode()).hexdigest()


def _replaced(value: Any, own: Mapping[str, str]) -> Any:
    if not own:
        return value
    if isinstance(value, str):
        for text, place in own.items():
            value = re.sub(rf"(?<![A-Za-z0-9_-]){re.escape(text)}(?![A-Za-z0-9_-])", place, value)
        return value
    if isinstance(value, list):
        return [_replaced(item, own) for item in value]
    if isinstance(value, dict):
        return {name: _replaced(item, own) for name, item in value.items()}
    return value


class Memory:
    """See the module. The caller of `claim` and `release` holds the manager's lock; the others may take time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[str, str] = {}  # key -> the job that computes that
        self._waiting: dict[str, list[str]] = {}  # key -> jobs that want the same

    def directory(self, job: str) -> Path:
        """Where the files of a job lie."""
        return self._store.directory / "jobs" / safe_key(job)

    def own(self, job: str) -> dict[str, str]:
        """See `memo_key`."""
        return {str(self.directory(job)): "<directory>", job: "<job>"}

    def made(self, job: str) -> dict[str, str] | None:
        """Files that a job left, by their path in its directory -> sha256; None: too many, or one can't be read."""
        top = self.directory(job)
        found: dict[str, str] = {}
        try:
            for folder, _, names in os.walk(top, onerror=_raise):
                for name in names:
                    path = Path(folder, name)
                    if name.endswith(".part") or path.is_symlink() or not path.is_file():
                        continue
                    found[path.relative_to(top).as_posix()] = _hash(path)
                    if len(found) > FILES:
                        return None
        except FileNotFoundError:
            return found if not top.exists() else None
        except OSError:
            return None
        return found

    def recall(self, key: str, job: str) -> tuple[str, Any] | None:
        """The job that had that result, and the result; its files are brought to `job`. None: it has to be computed."""
        known = self._store.remembered(key)
        if known is None:
            return None
        source, result, files = known
        if files and not self._bring(files, self.directory(source), self.directory(job)):
            self._store.forget_key(key)  # altered, or deleted with its job
            return None
        return source, result

    def _bring(self, files: Mapping[str, str], source: Path, target: Path) -> bool:
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            for name, digest in files.items():
                copy = part / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, copy)
                if _hash(copy) != digest:
                    return False
            shutil.copytree(part, target, dirs_exist_ok=True)
        except OSError:
            return False
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return True

    def claim(self, key: str, job: str) -> str | None:
        """The job computes that now; or the one that does already, behind which this one waits."""
        other = self._running.setdefault(key, job)
        if other == job:
            return None
        self._waiting.setdefault(key, []).append(job)
        return other

    def release(self, job: str) -> list[str]:
        """It computes nothing any more: the jobs that waited for that."""
        keys = [key for key, other in self._running.items() if other == job]
        for key in keys:
            del self._running[key]
        return [waiting for key in keys for waiting in self._waiting.pop(key, [])]


def _raise(error: OSError) -> None:
    raise error


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Versions of these distributions, and of all that they need and that is installed."""
    found: dict[str, str] = {}
    waiting = [(name, True) for name in distributions]
    while waiting:
        name, asked_for = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if asked_for:
                raise RequestError(
                    f"the service requires the distribution {name!r}, which is not installed here", hint="Install it"
                ) from None
            continue
        found[key] = distribution.version
        for line in distribution.requires or ():
            match = _NAME.match(line)
            if match and "extra ==" not in line:
                waiting.append((match.group(), False))
    return found


def _contents(value: Any, name: str) -> Any:
    if isinstance(value, list):
        return [_contents(item, name) for item in value]
    if value is None:
        return None
    try:
        return _hash(Path(value))
    except (OSError, TypeError, ValueError) as exc:
        raise RequestError(f"the file in request.{name} can't be read ({exc})", hint="Give its path") from exc
