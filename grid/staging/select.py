"""Which files a list of patterns takes.

Lives here: the rules of `copy_files` patterns, as one walk over a folder. It reads the file system, sends
            nothing, and leaves the client's working directory alone.
Elsewhere:  hashes and the archive that is sent (`staging/manifest.py`), which modules an object needs
            (`staging/imports.py`), whether an empty match is an error (the caller).

The rules, with `root` as the folder that the call names:

    *.py            every .py file of the whole tree: a pattern without folder starts at root and descends
    Isd/foo.txt     the folder part is a *starting folder*: Isd/foo.txt, Isd/a/foo.txt, Isd/a/b/c/foo.txt,
                    but not other/Isd/foo.txt
    data/           everything under data
    run*/out.txt    wildcards in the folder part match one folder name each; `**` any number of folders
    /root/a/b.txt   an absolute name inside root: that very file (with wildcards: the pattern a/b*.txt)

- `*`, `?` and `[abc]` match as in the shell, hidden files and capitals included. A name that exists literally
  is also taken: `a[1].txt` takes the file of that name as well as a1.txt.
- A file is skipped if its path relative to root contains any of the strings in `exclude`, wherever it does.
- A symbolic link to a file is taken as the contents of the file, wherever it points: the host may not have
  the target. A link to a folder is searched like a folder, unless it leads back to one that we are inside of.
- Compiled files (.pyc) are skipped with a warning: they bind the host to the client's version of Python.
- `..` never leads out of root, and an absolute name outside of root is an error.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from grid.errors import StagingError

DEFAULT_EXCLUDE = ("cns/", ".svn/", ".git/", "__pycache__/")
MAX_ENTRIES = 2_000_000  # files and folders looked at in one call; links that fan out would go on for ever
_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One file to stage: where it is, and its place below the host's directory (posix separators)."""

    relative: str
    source: Path
    size: int
    mode: int  # permission bits alone


@dataclass(frozen=True)
class Selection:
    """What a pattern list takes: `files` sorted by `relative`, each once.

    `empty` holds the patterns that matched nothing, as they were given; `warnings` one sentence each.
    """

    files: list[StagedFile] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[StagedFile]:
        return iter(self.files)


def select(
    rootdir: str | os.PathLike[str],
    filelist: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    exclude: Sequence[str] = DEFAULT_EXCLUDE,
    recursive: bool = True,
) -> Selection:
    """Find the files under `rootdir` that the patterns of `filelist` take; the rules are in the header.

    Args:
        rootdir: The folder that relative paths start from.
        filelist: Patterns; a single one may be given as it is.
        exclude: Strings; a file whose relative path contains one of them is skipped.
        recursive: False searches only the starting folder of each pattern, not what lies below.
    Raises:
        StagingError: No such folder, a pattern that leads out of it, or files that we may not read.
    """
    root = os.path.abspath(os.path.expanduser(os.fspath(rootdir)))
    if not os.path.isdir(root):
        raise StagingError(f"{root!r} is not a folder", hint="copy_files starts from an existing folder")
    given = [filelist] if isinstance(filelist, str | os.PathLike) else list(filelist)
    patterns = [_parse(os.fspath(text), root, recursive) for text in given]
    return _Walk(root, patterns, tuple(exclude)).run()


def misfits(files: Iterable[StagedFile], platform_tag: str) -> list[str]:
    """Which compiled extensions (.so) can't be imported by a Python whose tag is `platform_tag`.

    A file without a tag in its name (`libfoo.so`, `foo.abi3.so`) may fit anywhere and is not in the list.

    Args:
        platform_tag: The host's `EXT_SUFFIX` without dots: `cpython-311-x86_64-linux-gnu`.
    """
    return [file.relative for file in files if not _fits(posixpath.basename(file.relative), platform_tag)]


def _fits(name: str, platform_tag: str) -> bool:
    if not name.endswith(".so"):
        return True
    tag = name.removesuffix(".so").rpartition(".")[2]
    return not re.match(r"(cpython|pypy\d*|graalpy\d*)-", tag) or tag == platform_tag


class _Pattern(NamedTuple):
    text: str  # as the caller wrote it
    folders: tuple[str, ...]
    takes: Callable[[str], bool]  # a file name
    descends: bool
    literal: bool


class _State(NamedTuple):
    """One pattern on its way down: the folder names that must still come before files count."""

    pattern: int  # its number
    folders: tuple[str, ...]


class _Folder(NamedTuple):
    path: str
    relative: str  # "" or with a slash at the end
    states: tuple[_State, ...]
    identity: tuple[int, int]
    parent: _Folder | None


def _parse(text: str, root: str, recursive: bool) -> _Pattern:
    """A pattern, split into folders and file part; refuses whatever leads out of `root`."""
    if not text:
        raise StagingError("an empty pattern takes no files", hint="Leave it out, or write './' for all")
    if "\0" in text:
        raise StagingError(f"{text!r} holds a zero byte", hint="No file name can")
    inner, exact = text, False
    if os.path.isabs(text):
        exact = os.path.isfile(text)
        inner = _inside(text, root)
    inner = inner.replace(os.sep, "/")
    head, _, name = inner.rpartition("/")
    if name in ("", ".", ".."):
        head, name = inner, "*"
    head = posixpath.normpath(head) if head else "."
    if head == ".." or head.startswith("../"):
        raise StagingError(
            f"{text!r} leads out of {root!r}", hint="Name a rootdir that holds all files, and paths below it"
        )
    folders = () if head == "." else tuple(head.split("/"))
    return _Pattern(text, folders, _matcher(name, exact), recursive and not exact, exact)


def _inside(text: str, root: str) -> str:
    """The part of an absolute name that lies below `root`, by its spelling or by where its links lead."""
    ending = "/" if text.endswith((os.sep, "/")) else ""
    plain = os.path.normpath(text)
    head, tail = os.path.split(plain)
    for name, base in ((plain, root), (os.path.join(os.path.realpath(head), tail), os.path.realpath(root))):
        if name == base:
            return "./"
        prefix = base.rstrip(os.sep) + os.sep
        if name.startswith(prefix):
            return name[len(prefix) :] + ending
    raise StagingError(
        f"{text!r} lies outside of {root!r}",
        hint="Call copy_files once more with a rootdir that holds it, or link it into this one",
    )


def _matcher(text: str, exact: bool) -> Callable[[str], bool]:
    if exact or not re.search(r"[*?\[]", text):
        return text.__eq__
    match = re.compile(fnmatch.translate(text)).match
    return lambda name: name == text or match(name) is not None


class _Walk:
    """One pass over the tree for all patterns; folders that no pattern can reach are not opened."""

    def __init__(self, root: str, patterns: list[_Pattern], exclude: tuple[str, ...]) -> None:
        self._root = root
        self._patterns = patterns
        self._exclude = exclude
        self._folder_matchers = {name: _matcher(name, exact=False) for pattern in patterns for name in pattern.folders}
        self._files: list[StagedFile] = []
        self._matched: set[int] = set()
        self._named_folders: dict[int, str] = {}
        self._unreadable: list[str] = []
        self._compiled: list[str] = []
        self._not_files: list[str] = []
        self._looked_at = 0

    def run(self) -> Selection:
        states = self._open(_State(i, pattern.folders) for i, pattern in enumerate(self._patterns))
        waiting = [_Folder(self._root, "", states, _identity(self._root), self._above_root())]
        while waiting:
            waiting.extend(self._visit(waiting.pop()))
        if self._unreadable:
            raise StagingError(
                f"no permission to read {_listed(sorted(self._unreadable))}",
                hint="Change their permissions, or leave them out with exclude=",
            )
        empty = [p.text for i, p in enumerate(self._patterns) if i not in self._matched]
        return Selection(sorted(self._files, key=lambda file: file.relative), empty, self._warnings())

    def _visit(self, folder: _Folder) -> list[_Folder]:
        """Take the files of one folder; answer the folders below it that a pattern can reach."""
        try:
            with os.scandir(folder.path) as entries:
                found = list(entries)
        except PermissionError:
            self._unreadable.append(folder.relative or self._root)
            return []
        except FileNotFoundError:  # removed while we walked
            return []
        self._looked_at += len(found)
        if self._looked_at > MAX_ENTRIES:
            raise StagingError(
                f"more than {MAX_ENTRIES:,} files and folders under {self._root!r}",
                hint="Start deeper, or leave folders out with exclude=; links to folders may multiply them",
            )
        searching = [state.pattern for state in folder.states if not state.folders]
        below = []
        for entry in found:
            relative = folder.relative + entry.name
            if _is_dir(entry):
                self._note_named_folder(searching, entry.name, relative)
                deeper = self._enter(folder, entry, relative + "/")
                if deeper:
                    below.append(deeper)
            elif not self._is_excluded(relative):
                takers = [i for i in searching if self._patterns[i].takes(entry.name)]
                if takers:
                    self._matched.update(takers)
                    self._take(entry, relative)
        return below

    def _take(self, entry: os.DirEntry[str], relative: str) -> None:
        if relative.endswith((".pyc", ".pyo")):
            self._compiled.append(relative)
            return
        try:
            status = entry.stat()
        except PermissionError:  # we may list its folder but not enter, or it links into one
            self._unreadable.append(relative)
            return
        except OSError:  # a link to nowhere or to itself
            self._not_files.append(relative)
            return
        if not stat.S_ISREG(status.st_mode):
            self._not_files.append(relative)
        elif not _is_readable(entry.path):
            self._unreadable.append(relative)
        else:
            self._files.append(
                StagedFile(relative, Path(entry.path), status.st_size, stat.S_IMODE(status.st_mode) & 0o777)
            )

    def _enter(self, folder: _Folder, entry: os.DirEntry[str], relative: str) -> _Folder | None:
        if self._is_excluded(relative):  # and with it every path that begins like this
            return None
        states = self._step(folder.states, entry.name)
        if not states:
            return None
        try:
            identity = _identity(entry.path)
        except PermissionError:
            self._unreadable.append(relative)
            return None
        except OSError:  # removed while we walked
            return None
        if entry.is_symlink() and _is_within(identity, folder):
            return None
        return _Folder(entry.path, relative, states, identity, folder)

    def _step(self, states: tuple[_State, ...], name: str) -> tuple[_State, ...]:
        """Where each pattern stands one folder further down, in the folder `name`."""
        after = []
        for index, folders in states:
            if not folders:
                if self._patterns[index].descends:
                    after.append(_State(index, ()))
            elif self._patterns[index].literal:
                if folders[0] == name:
                    after.append(_State(index, folders[1:]))
            elif folders[0] == "**":
                after.append(_State(index, folders))
            elif self._folder_matchers[folders[0]](name):
                after.append(_State(index, folders[1:]))
        return self._open(after)

    def _open(self, states: Iterable[_State]) -> tuple[_State, ...]:
        """Add the states in which a leading `**` stands for no folder at all."""
        opened = dict.fromkeys(states)
        for index, folders in list(opened):
            if self._patterns[index].literal:
                continue
            while folders and folders[0] == "**":
                folders = folders[1:]
                opened[_State(index, folders)] = None
        return tuple(opened)

    def _is_excluded(self, relative: str) -> bool:
        return any(text in relative for text in self._exclude)

    def _note_named_folder(self, searching: list[int], name: str, relative: str) -> None:
        for i in searching:
            if i not in self._named_folders and self._patterns[i].takes(name):
                self._named_folders[i] = relative

    def _above_root(self) -> _Folder | None:
        """The folders around root, so that a link to one of them is seen to lead back into it."""
        chain = None
        for path in reversed(Path(os.path.realpath(self._root)).parents):
            chain = _Folder(str(path), "", (), _identity(str(path)), chain)
        return chain

    def _warnings(self) -> list[str]:
        warnings = []
        if self._compiled:
            names = _listed(sorted(self._compiled))
            warnings.append(f"not staged: {names}. Bound to one version of Python; stage the .py files")
        if self._not_files:
            names = _listed(sorted(self._not_files))
            warnings.append(f"not staged: {names}. Not a file: a device, a pipe, or a link to nowhere")
        for i, relative in sorted(self._named_folders.items()):
            if i not in self._matched:
                text = self._patterns[i].text
                warnings.append(f"{text!r} names a folder; write '{relative}/' for what is in it")
        return warnings


def _is_within(identity: tuple[int, int], folder: _Folder | None) -> bool:
    while folder is not None:
        if folder.identity == identity:
            return True
        folder = folder.parent
    return False


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or through a folder that is closed to us
        return False


def _is_readable(path: str) -> bool:
    return os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
