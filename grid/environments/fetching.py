"""Wheels for a kind of host, had here: resolved by uv where it is installed, else by pip; fetched by pip, or from where
a lock file says; built by either from sources.

Which index is asked is the business of their own settings (pip.conf, uv.toml, PIP_*, UV_*): no name of one stands here.

Lives here: `collect`, from what is wanted to wheels in the cache.
Elsewhere:  reading what is wanted (`wanted.py`, `locks.py`), what is installed here (`installed.py`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name

from grid.environments.cache import WheelCache
from grid.environments.fitting import Offered, PinnedPackage, Wheel, choose, no_wheel, rank_of
from grid.environments.installed import Installed, installed, pack
from grid.environments.locks import applies, read_lock
from grid.environments.states import SourceStates
from grid.environments.target import Target
from grid.environments.wanted import Requirements, Wanted, parts_of, read_requirements, requirement_lines
from grid.errors import PackagesError
from grid.staging.imports import CARRIED

KERNEL = ("pyzmq", "dill")
"""What a kernel stands on: every environment has them."""
FACES = CARRIED
"""What a part of grid needs at hosts once it is in use here."""
TOOL_S = 900.0
FETCH_S = 60.0
_AT_ONCE = 8
_LINES = 6
_CHARACTERS = 800
_PYTHONS = ("3.12", "3.10", "3.8", "3.14")
_IS_ERROR = re.compile(r"ERROR\b|error\b|×")
_IS_ADVICE = re.compile(r"WARNING\b|warning\b|hint:|.*\bfor help visit\b")
# uv's words for a release that is there, and has nothing for this host; older ones name the Python that it wants
_WITHOUT_WHEEL = re.compile(r"\b([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+) (?:has no (?:usable )?wheels|depends on Python)")


def source_key(origin: Wanted, states: SourceStates) -> str:
    """The same as long as an environment is made of the same, whatever the host.

    Raises:
        PackagesError: A file that it names can't be read.
    """
    if origin.kind == "here":
        content = [one.key for one in installed()]
    elif origin.kind == "requirements":
        requirements = read_requirements(Path(origin.path))
        content = [requirements.key, *(states.of(source) for source in requirements.sources)]
    elif origin.kind == "lock":
        text = origin.read()
        base = Path(origin.path).parent
        paths = re.findall(r"""(?:editable|directory|path)\s*=\s*["']([^"']+)["']""", text)
        content = [text, *(states.of(str(base / path)) for path in paths)]
    else:
        content = []
    return hashlib.sha256(repr([origin.kind, _extra_names(), content]).encode()).hexdigest()[:24]


def _extra_names() -> list[str]:
    return [*_kernel_lines(), *(name for name in FACES if name in sys.modules)]


def _kernel_lines() -> list[str]:
    """The dill that we have, as both sides must read what the other writes."""
    version = importlib.metadata.version("dill")
    return ["pyzmq", f"dill=={version}" if re.fullmatch(r"[0-9.]+", version) else "dill"]


def collect(origin: Wanted, target: Target, cache: WheelCache, states: SourceStates) -> list[Wheel]:
    """All wheels of an environment for a kind of host; they are in the cache afterwards.

    Raises:
        PackagesError: One of them can't be had; says which, and why.
    """
    with tempfile.TemporaryDirectory(prefix="grid-wheels-") as scratch:
        wheels = Collection(target, cache, states, Path(scratch)).of(origin)
    return sorted(wheels, key=lambda wheel: wheel.filename)


class Collection:
    """See `collect`."""

    def __init__(self, target: Target, cache: WheelCache, states: SourceStates, scratch: Path) -> None:
        self._target, self._cache, self._states, self._scratch = target, cache, states, scratch

    def of(self, origin: Wanted) -> list[Wheel]:
        """All that is wanted, and what every environment has."""
        wheels: list[Wheel] = []
        if origin.kind == "here":
            wheels = self._of_here(installed())
        elif origin.kind == "requirements":
            wheels = self._of_requirements(read_requirements(Path(origin.path)))
        elif origin.kind == "lock":
            wheels = self._of_pins(read_lock(origin.read(), origin.path, self._target))
        return [*wheels, *self._of_ours({wheel.project for wheel in wheels})]

    def _of_ours(self, known: set[str]) -> list[Wheel]:
        """What grid needs there, unless it is wanted anyhow: as it is here where that fits."""
        lacking = [name for name in (*KERNEL, *FACES) if name not in known]
        lacking = [name for name in lacking if name in KERNEL or name in sys.modules]
        here = {one.name: one for one in installed()}
        fitting = [here[name] for name in lacking if name in here and self._fits(here[name])]
        others = [line for line in _extra_names() if line.partition("==")[0] in lacking]
        others = [line for line in others if line.partition("==")[0] not in {one.name for one in fitting}]
        wheels = [self._packed(one) for one in fitting]
        if others:
            key = f"ours-{hashlib.sha256(repr([others, self._target.key]).encode()).hexdigest()[:24]}"
            fetched = self._cache.recall_wheels(key)
            if fetched is None or not all(self._cache.has(wheel.sha256) for wheel in fetched):
                fetched = self._resolve(others)
                self._cache.note_wheels(key, fetched)
            wheels += fetched
        return wheels

    # -- what is installed here ------------------------------------------------------------------------------------

    def _of_here(self, found: list[Installed]) -> list[Wheel]:
        wheels = [self._built(one.source, one.key) for one in found if one.source]
        files = [one for one in found if not one.source]
        wheels += [self._packed(one) for one in files if self._fits(one)]
        if others := [one for one in files if not self._fits(one)]:
            # All are named, so that what others need of them is what is here; what only that Python needs comes too.
            pins = requirement_lines((one.name, one.version) for one in files)
            known = {wheel.project for wheel in wheels}
            named = requirement_lines((one.name, one.version) for one in others)
            wheels += [wheel for wheel in self._resolve(named, pins) if wheel.project not in known]
        return wheels

    def _fits(self, one: Installed) -> bool:
        return bool(one.filename) and rank_of(one.filename, self._target) is not None

    def _packed(self, one: Installed) -> Wheel:
        key = f"packed-{one.key}"
        return self._once(key, lambda: pack(one, self._scratch))

    def _once(self, key: str, make: Callable[[], Path]) -> Wheel:
        """What was made before under this key, or made now."""
        known = self._cache.recall_wheels(key)
        if known is not None and self._cache.has(known[0].sha256):
            return known[0]
        wheel = self._cache.put(make())
        self._cache.note_wheels(key, [wheel])
        return wheel

    def _built(self, source: str, key: str = "") -> Wheel:
        """A wheel made here from sources: a directory, or what pip takes as a requirement; `key` tells their state."""
        key = key or hashlib.sha256(f"{source} {self._states.of(source)}".encode()).hexdigest()[:24]
        wheel = self._once(f"built-{key}", lambda: self._build(self._states.pinned(source)))
        if rank_of(wheel.filename, self._target) is None:
            raise no_wheel(wheel.project, wheel.version, self._target, [wheel.filename])
        return wheel

    def _build(self, source: str) -> Path:
        if source.endswith(".whl") and os.path.isfile(source):
            return Path(source)
        place = self._scratch / hashlib.sha256(source.encode()).hexdigest()[:8]
        said = ""
        if _has_pip():
            address = re.sub(r"^[A-Za-z0-9._-]+\s*(\[[^\]]*\])?\s*@\s*", "", source)  # pip reads no `x @ git+file:`
            command = [*_PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), address]
            for more in (["--no-build-isolation"], []):  # first with the tools that are here, which asks no index
                done = _run([*command, *more])
                if done.returncode == 0 and (made := list(place.glob("*.whl"))):
                    return made[0]
                said = _errors(done)
        uv = uv_program()
        if uv is not None and os.path.isdir(source):
            done = _run([uv, "build", "--quiet", "--wheel", "--out-dir", str(place), source])
            if done.returncode == 0 and (made := list(place.glob("*.whl"))):
                return made[0]
            said = _errors(done)
        raise PackagesError(
            f"no wheel can be built from {source}: {said or 'there is neither pip nor uv here'}",
            hint=f"Try `pip wheel --no-deps {source}` by hand",
            package=source,
        )

    # -- requirements ----------------------------------------------------------------------------------------------

    def _of_requirements(self, asked: Requirements) -> list[Wheel]:
        built = {}
        for source in asked.sources:
            place, extras, marker = parts_of(source)
            if applies(marker or None, self._target):
                built[self._built(place)] = extras
        return self._resolve(asked.lines, asked.constraints, built)

    def _resolve(
        self, lines: Sequence[str], constraints: Sequence[str] = (), built: Mapping[Wheel, str] = {}
    ) -> list[Wheel]:
        """What an index has for these lines, with what that needs.

        Args:
            built: Wheels that are here for it, with the extras of each that are wanted.
        """
        scratch = Path(tempfile.mkdtemp(dir=self._scratch))  # of this call alone
        place = scratch / "built"
        place.mkdir()
        named = []
        for wheel, extras in built.items():
            shutil.copyfile(self._cache.path(wheel.sha256), place / wheel.filename)
            # by its path: a version of the same number that an index has is another
            named.append(f"{wheel.project}{extras} @ {(place / wheel.filename).as_uri()}")
        asked = scratch / "asked.txt"
        asked.write_text("\n".join([*lines, *named]) + "\n")
        bounds = scratch / "bounds.txt"
        bounds.write_text("\n".join(constraints) + "\n")
        tried = []
        if uv := uv_program():
            lock = scratch / "pylock.toml"
            done = _run(self._by_uv(uv, asked, bounds, lock))
            if done.returncode == 0:
                pins = read_lock(lock.read_text(), str(lock), self._target)
                known = {wheel.project for wheel in built}
                others = [pin for pin in pins if str(canonicalize_name(pin.name)) not in known]
                return [*built, *self._of_pins(others)]
            tried.append(f"uv: {_errors(done)}")
            if found := _WITHOUT_WHEEL.search(tried[0]):
                name, version = found.groups()
                raise no_wheel(name, version, self._target, self._offered(uv, name, version, scratch))
        if _has_pip():
            fetched = scratch / "fetched"
            fetched.mkdir()
            done = _run([*self._by_pip(fetched), "--find-links", str(place), "-r", str(asked), "-c", str(bounds)])
            if done.returncode == 0:
                return [self._cache.put(file) for file in sorted(fetched.glob("*.whl"))]
            tried.append(f"pip: {_errors(done)}")
        raise _not_found(tried, self._target)

    def _offered(self, uv: str, name: str, version: str, scratch: Path) -> list[str]:
        """Names of all wheels that an index has of a release, whatever they fit; none if that can't be had."""
        asked, lock = scratch / "one.txt", scratch / "pylock.one.toml"
        asked.write_text(f"{name}=={version}\n")
        options = ("--quiet", "--no-deps", "--universal", "--format", "pylock.toml", "--output-file", str(lock))
        for python in _PYTHONS:  # uv names the wheels of a release to a Python that the release is for
            done = _run([uv, "pip", "compile", *options, "--python-version", python, str(asked)])
            found = re.findall(r'[A-Za-z0-9_.!+-]+\.whl(?=")', lock.read_text()) if done.returncode == 0 else []
            if found:
                return found
        return []

    def _by_uv(self, uv: str, asked: Path, bounds: Path, lock: Path) -> list[str]:
        version = self._target.markers["python_full_version"]
        platform = _uv_platform(self._target)
        command = [uv, "pip", "compile", "--quiet", "--no-header", "--format", "pylock.toml", "--only-binary", ":all:"]
        command += ["--python-version", version, *(["--python-platform", platform] if platform else [])]
        return [*command, "--constraint", str(bounds), "--output-file", str(lock), str(asked)]

    def _by_pip(self, place: Path) -> list[str]:
        target = self._target
        command = [*_PIP, "download", "--quiet", "--only-binary=:all:", "--dest", str(place)]
        command += ["--implementation", "cp", "--python-version", target.python]
        for abi in (f"cp{target.version[0]}{target.version[1]}", "abi3", "none"):
            command += ["--abi", abi]
        for tag in target.platforms:
            command += ["--platform", tag]
        return command

    # -- one by one ------------------------------------------------------------------------------------------------

    def _of_pins(self, pins: list[PinnedPackage]) -> list[Wheel]:
        """The wheel of each that fits; built here where there is a source and none of them is a wheel."""
        wheels, lacking = [], []
        for pin in pins:
            if pin.source and not pin.wheels:
                wheels.append(self._built(pin.source))
                continue
            chosen = choose(pin, self._target)
            known = self._cache.wheel(chosen.filename, chosen.sha256) if chosen.sha256 else None
            if known is not None:
                wheels.append(known)
            else:
                lacking.append((pin, chosen))
        return [*wheels, *self._fetch(lacking)] if lacking else wheels

    def _fetch(self, lacking: list[tuple[PinnedPackage, Offered]]) -> list[Wheel]:
        """By pip, which knows the index of this place; what it can't have comes from where the lock file says."""
        scratch = Path(tempfile.mkdtemp(dir=self._scratch))
        fetched = scratch / "pins"
        fetched.mkdir()
        named = [(pin, one) for pin, one in lacking if one.sha256 and urlsplit(one.url).scheme in ("http", "https", "")]
        named = [(pin, one) for pin, one in named if not os.path.isabs(one.url)]
        said = ""
        if named and _has_pip():
            asked = scratch / "pins.txt"
            lines = [f"{pin.name}=={pin.version} --hash=sha256:{one.sha256}" for pin, one in named]
            asked.write_text("\n".join(lines) + "\n")
            done = _run([*self._by_pip(fetched), "--no-deps", "--require-hashes", "-r", str(asked)])
            said = _errors(done) if done.returncode else ""
        here = {wheel.sha256: wheel for wheel in (self._cache.put(file) for file in fetched.glob("*.whl"))}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(
                pool.map(lambda each: here.get(each[1].sha256) or self._fetch_one(each[0], each[1], said), lacking)
            )

    def _fetch_one(self, pin: PinnedPackage, one: Offered, said: str) -> Wheel:
        place = self._scratch / f"{hashlib.sha256(one.url.encode()).hexdigest()[:8]}"
        place.mkdir(exist_ok=True)
        file = place / one.filename
        try:
            if not one.url:
                raise OSError("the lock file does not say where it is")
            source = one.url if "://" in one.url else Path(one.url).absolute().as_uri()
            with urllib.request.urlopen(source, timeout=FETCH_S) as stream, open(file, "wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
        except (OSError, ValueError, urllib.error.URLError) as exc:
            tried = f"; pip: {said}" if said else ""
            raise PackagesError(
                f"can't fetch {one.filename}: {exc}{tried}",
                hint="Is the index reachable from here? pip and uv ask the one that their own settings name",
                package=pin.name,
                version=pin.version,
            ) from exc
        wheel = self._cache.put(file)
        if one.sha256 and wheel.sha256 != one.sha256:
            raise PackagesError(
                f"{one.filename} has another content than was locked: sha256 {wheel.sha256} and not {one.sha256}",
                hint="Somebody replaced the file, or the lock file is wrong: lock anew, and look at what has changed",
                package=pin.name,
                version=pin.version,
            )
        return wheel


def _not_found(tried: Iterable[str], target: Target) -> PackagesError:
    said = "; ".join(tried)
    found = re.search(r"(?:No matching distribution found for|satisfies the requirement) ([A-Za-z0-9._-]+)(\S*)", said)
    facts = {"package": found[1], "version": found[2].lstrip("=")} if found else {}
    unreachable = re.search(
        r"[Ff]ailed to fetch|Could not fetch|Connection|[Nn]etwork|resolve host|Retry|timed out", said
    )
    hint = "Choose versions that have wheels for it, or name another interpreter for that host with python:"
    if unreachable:
        hint = "Is the index reachable from here? pip and uv ask the one that their own settings name"
    if not said:
        said, hint = "there is neither pip nor uv here", "Run: pip install 'sshgrid[env]'"
    return PackagesError(f"the packages for {target} can't be had: {said}", hint=hint, **facts)


# ---- tools ---------------------------------------------------------------------------------------------------

_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _has_pip() -> bool:
    return importlib.util.find_spec("pip") is not None


def uv_program() -> str | None:
    """uv, of the package or on the path."""
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else shutil.which("uv")


def _uv_platform(target: Target) -> str:
    """How uv calls it; empty if it has no word for it. Its oldest glibc is 2.17, its newest 2.40."""
    system, _, machine = target.platform.partition("-")
    if system != "linux":
        found = re.fullmatch(r"macosx-\d+\.\d+-(arm64|x86_64)", target.platform)
        return f"{found[1].replace('arm64', 'aarch64')}-apple-darwin" if found else ""
    if target.libc[0] != "glibc":
        return f"{machine}-unknown-linux-musl"
    minor = int((re.findall(r"\d+", target.libc[1]) or ["2", "17"])[1])
    known = [17, 28, *range(31, 41)]
    best = max((each for each in known if each <= minor), default=17)
    return f"{machine}-manylinux_2_{best}"


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise PackagesError(
            f"{Path(command[0]).name} did not end within {TOOL_S:g} s", hint="Is the index reachable from here?"
        ) from exc


def _errors(done: subprocess.CompletedProcess[str]) -> str:
    return errors_of(done.stderr) or f"exit status {done.returncode}"


def errors_of(said: str) -> str:
    """What pip or uv say of an error, in one line: from their word for it on, without warnings and advice."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if _IS_ERROR.match(line)), 0)
    told = [line for line in lines[first:] if not _IS_ADVICE.match(line)]
    return " ".join(told[:_LINES])[:_CHARACTERS]
