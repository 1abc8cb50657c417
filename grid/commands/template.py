"""A command as people write it, and the words that its program gets.

    vina --config {conf} --out {out}        conf=In("a.txt"), out=Out("*.pdbqt")
    ['vina', '--config', 'a.txt', '--out', 'a.pdbqt']

The template is split into words as a shell splits them, before values are put in: a value with blanks, quotes or
newlines stays one word. For a shell (`shell=True`) the text stays whole, and each value is quoted. A field is a name
in braces; other braces stay as they are (`awk '{print $1}'`), and `{{name}}` means the text `{name}`.

Lives here: fields, words, names of files in a run's directory; pure. Elsewhere: what runs them (`onhost`).
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grid.wire.remote_path import RemotePath

_FIELD = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class In:
    """A file of this machine that a command reads. Hosts get it by its contents: once, while it is the same.

    Args:
        path: The file; or a file that stays on a host (`RemotePath`), which then does not come here.
        name: Its name in the directory of the run; default: the last part of `path`.
    """

    path: str | os.PathLike[str] | RemotePath
    name: str | None = None

    @property
    def place(self) -> str:
        """Its name in the directory of the run."""
        if self.name is not None:
            return self.name
        return os.path.basename(self.path.name if isinstance(self.path, RemotePath) else os.path.abspath(self.path))

    @property
    def source(self) -> str | RemotePath:
        """The file, by its whole name."""
        path = self.path
        return path if isinstance(path, RemotePath) else os.path.abspath(os.path.expanduser(os.fspath(path)))


@dataclass(frozen=True)
class Out:
    """Files that a command writes, below the directory of its run: `*`, `?`, `[abc]` and `**` match as in a shell.

    In the template its field stands for the pattern; one `*` there becomes the name of the first input without its
    ending, or `out` where there is none: `{out}` is `a.pdbqt` for `conf=In("a.txt"), out=Out("*.pdbqt")`.
    """

    pattern: str


@dataclass(frozen=True)
class CommandLine:
    """One command, ready to run. `words` for a program, or `text` for a shell; `ins`: place -> file."""

    words: tuple[str, ...]
    text: str | None
    ins: Mapping[str, str | RemotePath]
    outs: tuple[str, ...]

    @property
    def shown(self) -> str:
        """As one would type it."""
        return self.text if self.text is not None else shlex.join(self.words)


def fields_of(template: str) -> set[str]:
    """The names in braces."""
    return {found[2] for found in _FIELD.finditer(template) if found[2]}


def fill(template: str | Sequence[str], values: Mapping[str, Any], *, shell: bool = False) -> CommandLine:
    """The command with its values.

    Args:
        template: Text, or a list of words, in which fields stand as well.
        values: By name: `In`, `Out`, a list of them (several words), or what stands for itself by `str`.
    Raises:
        ValueError: A field without a value, a value without a field (inputs and outputs need none), a quote that is not
            closed, names that can't be.
    """
    if not isinstance(template, str) and shell:
        raise ValueError("shell=True takes one text, not a list of words")
    texts = [template] if isinstance(template, str) else [str(word) for word in template]
    if not any(text.strip() for text in texts):
        raise ValueError("an empty command: name a program")
    used = set().union(*map(fields_of, texts))
    lacking = sorted(used - values.keys())
    if lacking:
        raise ValueError(
            f"the template has the field {{{lacking[0]}}}, and no value of that name was given"
            f" (given: {', '.join(sorted(values)) or 'none'})."
            f" Pass {lacking[0]}=..., or write {{{{{lacking[0]}}}}} for the text"
        )
    for name in sorted(values.keys() - used):
        if not all(isinstance(each, (In, Out)) for each in _each(values[name])):
            raise ValueError(f"{name}= is no field of the template. Write {{{name}}} where it belongs")
    ins, outs = _files(values)
    first = next(iter(ins), None)
    stem = "out" if first is None else posixpath.splitext(posixpath.basename(first))[0]
    texts_of = {name: [_text(each, name, stem, used) for each in _each(value)] for name, value in values.items()}
    if shell:
        assert isinstance(template, str)
        text = _put(template, {name: " ".join(map(shlex.quote, words)) for name, words in texts_of.items()})
        return CommandLine((), text, ins, outs)
    if isinstance(template, str):
        try:
            texts = shlex.split(template)
        except ValueError as exc:
            raise ValueError(
                f"the template can't be split into words ({exc}). Close the quote, or pass a list"
            ) from exc
    words: list[str] = []
    for word in texts:
        alone = _FIELD.fullmatch(word)
        if alone is not None and alone[2]:
            words += texts_of[alone[2]]
        else:
            words.append(_put(word, {name: " ".join(each) for name, each in texts_of.items()}))
    if not words or not words[0]:
        raise ValueError("the command has no program: its first word is empty")
    return CommandLine(tuple(words), None, ins, outs)


def values_of(item: Any, template: Iterable[str], common: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one item: its own, and those of all.

    Args:
        item: Values by name; or one value, where the template has one field that `common` has not.
    Raises:
        ValueError: It is one value, and there is no such field, or more than one.
    """
    if isinstance(item, Mapping):
        return {**common, **item}
    fields = sorted(set().union(*map(fields_of, template)) - common.keys())
    if len(fields) != 1:
        named = ", ".join(f"{{{name}}}" for name in fields) or "no field"
        raise ValueError(
            f"an item of one value needs one field, and the template has {named}. Pass dicts: {{name: value}}"
        )
    return {**common, fields[0]: item}


def _each(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _put(text: str, values: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda found: f"{{{found[1]}}}" if found[1] else values[found[2]], text)


def _text(value: Any, name: str, stem: str, used: set[str]) -> str:
    if isinstance(value, In):
        return _guarded(value.place)
    if isinstance(value, Out):
        wild = _WILD.findall(value.pattern)
        if name in used and wild and wild != ["*"]:
            raise ValueError(
                f"{{{name}}} stands for {value.pattern!r}, which is no name of one file. "
                f"Leave {{{name}}} out of the template, or use one * at most"
            )
        return _guarded(value.pattern.replace("*", stem))
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if "\0" in text:
        raise ValueError(f"the value of {{{name}}} has a NUL in it, which no argument can have")
    return str(text)


def _guarded(name: str) -> str:
    """A file whose name begins with a dash is no option."""
    return f"./{name}" if name.startswith("-") else name


def _files(values: Mapping[str, Any]) -> tuple[dict[str, str | RemotePath], tuple[str, ...]]:
    ins: dict[str, str | RemotePath] = {}
    outs: list[str] = []
    for value in values.values():
        for each in _each(value):
            if isinstance(each, In):
                place, path = _inside(each.place), each.source
                if ins.setdefault(place, path) != path:
                    raise ValueError(
                        f"two inputs would have the name {place!r} in the run's directory: {ins[place]} and {path}."
                        " Give one of them another: In(path, name=...)"
                    )
            elif isinstance(each, Out):
                outs.append(_inside(each.pattern))
    return ins, tuple(outs)


def _inside(name: str) -> str:
    if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name!r} is no name below the directory of a run. Name files relative to it, without ..")
    return posixpath.normpath(name)
