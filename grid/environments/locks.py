"""Lock files: pylock.toml (PEP 751) and uv.lock, as what a host needs of them.

Lives here: both readers, from text to `PinnedPackage`; which entries a host's markers choose.
Elsewhere:  the choice of a wheel (`fitting.py`), requirements, which some tool has to resolve (`wanted.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import InvalidMarker, Marker
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from grid.environments.fitting import Offered, PinnedPackage
from grid.environments.target import Target
from grid.errors import PackagesError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the extra `env` brings it

_MAKE_ANEW = "Make it anew, or name a requirements.txt"


def read_toml(text: str, file: str) -> dict[str, Any]:
    """Raises PackagesError if it is none."""
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise PackagesError(f"{file} is not TOML: {exc}", hint=_MAKE_ANEW, file=file) from exc
    return content


def read_lock(text: str, file: str, target: Target) -> list[PinnedPackage]:
    """The distributions that a lock file has for such a host.

    Args:
        text: Of the file.
        file: Its path; relative paths in it begin in its directory. Its name tells which kind it is.
    Raises:
        PackagesError: It is of an unknown version, can't be read, or excludes the host's Python.
    """
    content = read_toml(text, file)
    reader = _read_uv if Path(file).name == "uv.lock" else _read_pylock
    try:
        return reader(content, file, target)
    except (KeyError, TypeError, AttributeError, InvalidMarker, InvalidSpecifier) as exc:
        what = f"lacks {exc}" if isinstance(exc, KeyError) else str(exc)
        raise PackagesError(f"{file} is not as its format says: {what}", hint=_MAKE_ANEW, file=file) from exc


def _check_python(said: str, file: str, target: Target) -> None:
    if said and not SpecifierSet(said).contains(target.markers["python_full_version"], prereleases=True):
        raise PackagesError(
            f"{file} is for Python {said}, and the host has {target.markers['python_full_version']}",
            hint="Name another interpreter for that host with python:, or lock for both versions",
            file=file,
        )


def applies(marker: str | None, target: Target, extra: str = "") -> bool:
    """Whether a marker holds on a host; None holds everywhere."""
    # PEP 751 adds two sets that packaging of before 2025 does not know; whoever uses them names extras, which we don't.
    environment: dict[str, Any] = {**target.markers, "extra": extra, "extras": frozenset(), "dependency_groups": ()}
    return marker is None or Marker(marker).evaluate(environment)


def _unknown_version(file: str, said: object, known: str) -> PackagesError:
    return PackagesError(
        f"{file} is a lock file of version {said}, and {known} is known here",
        hint="A newer grid may know it; or export one that is known (`uv export --format pylock.toml`)",
        file=file,
    )


# ---- pylock.toml ---------------------------------------------------------------------------------------------


def _read_pylock(content: dict[str, Any], file: str, target: Target) -> list[PinnedPackage]:
    said = content.get("lock-version")
    if not isinstance(said, str) or said.partition(".")[0] != "1":
        raise _unknown_version(file, said, "1.x")
    _check_python(content.get("requires-python", ""), file, target)
    found = []
    for package in content.get("packages", []):
        if applies(package.get("marker"), target):
            _check_python(package.get("requires-python", ""), f"{file}: {package['name']}", target)
            found.append(_of_pylock(package, file))
    return found


def _of_pylock(package: Mapping[str, Any], file: str) -> PinnedPackage:
    name, version = package["name"], package.get("version", "")
    base = Path(file).absolute().parent
    wheels = tuple(
        Offered(_filename(wheel), _sha256(wheel), _place(wheel, base)) for wheel in package.get("wheels", [])
    )
    source = ""
    if "directory" in package:
        source = str(base / package["directory"]["path"] / package["directory"].get("subdirectory", ""))
    elif "vcs" in package:
        vcs = package["vcs"]
        where = vcs["url"] if "url" in vcs else (base / vcs["path"]).as_uri()
        source = f"{name} @ {vcs['type']}+{where}@{vcs['commit-id']}"
        source += f"#subdirectory={vcs['subdirectory']}" if "subdirectory" in vcs else ""
    elif "archive" in package:
        archive = package["archive"]
        place = _place(archive, base)
        if _filename(archive).endswith(".whl"):
            wheels = (Offered(_filename(archive), _sha256(archive), place),)
        else:
            source = f"{name} @ {place}" if "://" in place else place
    return PinnedPackage(name, version, wheels, source)


def _sha256(entry: Mapping[str, Any]) -> str:
    """Raises KeyError if it has no such hash: nothing is fetched that can't be checked."""
    return str(entry["hashes"]["sha256"])


def _filename(entry: Mapping[str, Any]) -> str:
    said = entry.get("name") or entry.get("filename") or entry.get("url") or entry["path"]
    return unquote(Path(urlsplit(said).path).name)


def _place(entry: Mapping[str, Any], base: Path) -> str:
    return str(base / entry["path"]) if "path" in entry else str(entry.get("url", ""))


# ---- uv.lock -------------------------------------------------------------------------------------------------


def _read_uv(content: dict[str, Any], file: str, target: Target) -> list[PinnedPackage]:
    if content.get("version") != 1:
        raise _unknown_version(file, content.get("version"), "1")
    _check_python(content.get("requires-python", ""), file, target)
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in content.get("package", []):
        packages.setdefault(package["name"], []).append(package)
    roots = [one for each in packages.values() for one in each if _is_root(one, content)]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    seen: set[tuple[str, str, str]] = set()
    waiting = [(root, "") for root in roots]
    while waiting:
        package, extra = waiting.pop()
        key = (package["name"], str(package.get("version", "")), extra)
        if key in seen:
            continue
        seen.add(key)
        found[key[:2]] = package
        needs = package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
        for need in needs:
            if not applies(need.get("marker"), target, extra):
                continue
            chosen = _one_of(packages[need["name"]], need, target)
            waiting += [(chosen, ""), *((chosen, more) for more in need.get("extra", []))]
    return [_of_uv(package, file) for package in found.values() if "virtual" not in package["source"]]


def _is_root(package: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    members = content.get("manifest", {}).get("members")
    if members is not None:
        return package["name"] in members
    source = package["source"]
    return "." in (source.get("virtual"), source.get("editable"))


def _one_of(named: list[dict[str, Any]], need: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The entry that a dependency means: of two versions of a project it names one, or their markers tell."""
    fitting = [one for one in named if need.get("version") in (None, one.get("version"))]
    for one in fitting:
        markers = one.get("resolution-markers")
        if markers is None or any(applies(marker, target) for marker in markers):
            return one
    raise KeyError(f"{need['name']} {need.get('version', '')}".strip())


def _of_uv(package: Mapping[str, Any], file: str) -> PinnedPackage:
    base = Path(file).absolute().parent
    origin = package["source"]
    wheels = tuple(
        Offered(_filename(wheel), wheel.get("hash", "").removeprefix("sha256:"), _place(wheel, base))
        for wheel in package.get("wheels", [])
    )
    name, source = package["name"], ""
    if local := origin.get("editable") or origin.get("directory"):
        source = str(base / local)
    elif "git" in origin:
        url, _, commit = origin["git"].partition("#")
        source = f"{name} @ git+{url.partition('?')[0]}@{commit}"
    elif not wheels and ("path" in origin or "url" in origin):
        source = str(base / origin["path"]) if "path" in origin else f"{name} @ {origin['url']}"
    return PinnedPackage(name, str(package.get("version", "")), wheels, source)
