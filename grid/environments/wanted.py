"""What an environment is to have, from the word that names it: `here`, requirements, or a lock file.

Lives here: `Wanted`, reading files of requirements, which of their lines an index can't answer.
Elsewhere:  lock files (`locks.py`), what is installed here (`installed.py`), resolving and fetching (`fetching.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grid.errors import PackagesError

Kind = Literal["here", "requirements", "lock", "kernel"]

HERE = "here"
_DEEPEST = 10
"""Files of requirements may name others, so often."""

_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=|(?<=-[rc]))(.+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s+|=)(.+)")
_BY_URL = re.compile(r"(?:[A-Za-z0-9._-]+(?:\[[^\]]*\])?\s*@\s*)?((?:git|hg|svn|bzr)\+\S+|file:\S+)")


@dataclass(frozen=True)
class Wanted:
    """An environment as somebody asked for it. `word` is what was said, `path` the file that it names."""

    kind: Kind
    word: str
    path: str = ""

    def read(self) -> str:
        """The text of the file.

        Raises:
            PackagesError: It can't be read.
        """
        return _read(Path(self.path))


def wanted(word: str, base: Path | None = None) -> Wanted:
    """What a word means: `here`, the path of a file, or nothing but what a kernel needs (an empty word).

    Args:
        word: As somebody said it.
        base: Where relative paths begin; default: the working directory.
    Raises:
        PackagesError: No such file, or of a kind that is not known.
    """
    if word in ("", HERE):
        return Wanted("here" if word else "kernel", word)
    path = (base or Path()) / Path(word).expanduser()
    if path.is_dir() or not path.exists():
        near = [name for name in ("uv.lock", "pylock.toml", "requirements.txt") if (path / name).exists()]
        raise PackagesError(
            f"environment: {word!r} is {'a directory' if path.is_dir() else 'no file here'}",
            hint=f"It has {near[0]}: name that" if near else "Say here, or name requirements.txt, pylock.toml, uv.lock",
            file=word,
        )
    name = path.name
    if name == "uv.lock" or re.fullmatch(r"pylock(\.[^.]+)?\.toml", name):
        return Wanted("lock", word, str(path.absolute()))
    if path.suffix in (".txt", ".in"):
        return Wanted("requirements", word, str(path.absolute()))
    hint = "Name requirements.txt, pylock.toml or uv.lock"
    if name == "pyproject.toml":
        hint = "Lock it first: `uv lock` makes uv.lock, `uv export --format pylock.toml` makes pylock.toml"
    raise PackagesError(f"environment: {word!r} is of no kind that is known", hint=hint, file=word)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "it is not UTF-8 text"
        raise PackagesError(f"can't read {path}: {reason}", hint="Name another file", file=str(path)) from exc


@dataclass(frozen=True)
class Requirements:
    """Lines of requirements, with those of the files that they name."""

    lines: tuple[str, ...]  # for an index, and options of pip
    constraints: tuple[str, ...]
    sources: tuple[str, ...]  # paths and addresses that a wheel has to be made from here

    @property
    def key(self) -> str:
        """The same for the same lines."""
        return hashlib.sha256(repr((self.lines, self.constraints, self.sources)).encode()).hexdigest()[:16]


def read_requirements(path: Path) -> Requirements:
    """A file of requirements, with those that it names by -r and -c.

    Raises:
        PackagesError: One of them can't be read, or they name each other in a circle.
    """
    lines: list[str] = []
    constraints: list[str] = []
    sources: list[str] = []
    for line, base, constrains in _lines(path, False, 0):
        source = _source(line, base)
        if source is not None:
            sources.append(source)
        else:
            (constraints if constrains else lines).append(line)
    return Requirements(tuple(lines), tuple(constraints), tuple(sources))


def _lines(path: Path, constrains: bool, depth: int) -> Iterator[tuple[str, Path, bool]]:
    if depth > _DEEPEST:
        raise PackagesError(f"{path}: files of requirements name each other", hint="See its -r lines", file=str(path))
    for line in logical_lines(_read(path)):
        found = _INCLUDE.fullmatch(line)
        if found is None:
            yield line, path.parent, constrains
        else:
            named = path.parent / found[1].strip().strip("'\"")
            yield from _lines(named, constrains or line.startswith(("-c", "--constraint")), depth + 1)


def logical_lines(text: str) -> Iterator[str]:
    """Lines of a file of requirements: joined where they end in a backslash, without comments and blanks."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line:
            yield line


def _source(line: str, base: Path) -> str | None:
    """What a line names that no index has: a path or an address, absolute; None if an index has it."""
    editable = _EDITABLE.fullmatch(line)
    text = editable[1].strip() if editable else line
    if _BY_URL.match(text):
        return re.sub(r"\s+;", " ;", text)
    if line.startswith("-") and not editable:
        return None
    plain, _, marker = text.partition(";")
    place, bracket, extras = plain.strip().partition("[")
    is_path = editable or place.startswith((".", "/", "~")) or place.endswith((".whl", ".tar.gz", ".zip"))
    if not is_path or "://" in place:
        return None
    return f"{(base / Path(place).expanduser()).resolve()}{bracket}{extras}{';' if marker else ''}{marker}".strip()


def parts_of(source: str) -> tuple[str, str, str]:
    """A source of `Requirements`: what to build, the extras of it that are wanted (`[a,b]`), and its marker."""
    if source.startswith("/"):
        found = re.fullmatch(r"([^\[;]+)(\[[^\]]*\])?\s*(?:;(.*))?", source)
        assert found is not None, source
        return found[1].strip(), found[2] or "", (found[3] or "").strip()
    address, _, marker = source.partition(" ;")
    extras = re.match(r"[A-Za-z0-9._-]+\s*(\[[^\]]*\])\s*@", address)
    return address.strip(), extras[1] if extras else "", marker.strip()


def requirement_lines(pins: Iterable[tuple[str, str]]) -> list[str]:
    """Such as `numpy==2.1.0`."""
    return [f"{name}=={version}" for name, version in pins]
