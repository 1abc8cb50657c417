"""Commands of a command line: `{}` and its kin, as GNU parallel replaces them, and the folder of each one's results.

    {} the argument    {.} without its ending    {/} its last part    {//} its folder    {/.} both    {#} the number
    {1} {2} ... {1.} {2/} ... of the first, second source of arguments

Each value is quoted for the shell; the text around is the shell's own, as with GNU parallel.

Lives here: replacing, sources of arguments, names in `--results`; pure.
Elsewhere:  running them (`each`).
"""

from __future__ import annotations

import itertools
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence

_STRING = re.compile(r"\{(\d*)(//|/\.|/|\.|)\}|\{#\}")
_SHELL = re.compile(r"[^\w@%+=:,./\s-]")
"""What has a meaning to a shell somewhere."""

_BUILT_IN = frozenset(
    (
        *(
            ":",
            ".",
            "alias",
            "bg",
            "break",
            "case",
            "cd",
            "command",
            "continue",
            "eval",
            "exec",
            "exit",
            "export",
            "fg",
        ),
        *(
            "for",
            "getopts",
            "hash",
            "if",
            "jobs",
            "local",
            "read",
            "readonly",
            "return",
            "set",
            "shift",
            "times",
            "trap",
        ),
        *("type", "ulimit", "umask", "unalias", "unset", "until", "wait", "while"),
    )
)
"""Words of the shell that are no program everywhere."""


def sources_of(words: Sequence[str], lines: Callable[[str], Iterable[str]]) -> tuple[list[str], list[list[str]]]:
    """The command, and its sources of arguments: `cmd {} ::: a b :::: file`.

    Args:
        lines: Of a file; `-` is standard input.
    Raises:
        ValueError: No command, or no source.
    """
    at = next((at for at, word in enumerate(words) if word in (":::", "::::")), len(words))
    command, rest = list(words[:at]), list(words[at:])
    if not command:
        raise ValueError("name a command before ::: and its arguments")
    if not rest:
        raise ValueError("say what to run it for: ::: ARGUMENTS, or :::: FILE with one on each line")
    found: list[list[str]] = []
    while rest:
        kind = rest.pop(0)
        source: list[str] = []
        while rest and rest[0] not in (":::", "::::"):
            word = rest.pop(0)
            source += [word] if kind == ":::" else [line.rstrip("\n") for line in lines(word)]
        found.append(source)
    return command, found


def combined(sources: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Each combination, the last source running fastest."""
    return itertools.product(*sources)


def has_string(command: str) -> bool:
    """Whether a place for an argument stands in it."""
    return any(not found[0].startswith("{#") for found in _STRING.finditer(command))


def replaced(command: str, arguments: Sequence[str], number: int) -> str:
    """The command with its arguments; without a place for one they stand at its end.

    Raises:
        ValueError: It names a source that is not there.
    """
    if not has_string(command):
        command += " " + " ".join(f"{{{at}}}" for at in range(1, len(arguments) + 1))

    def put(found: re.Match[str]) -> str:
        if found[0] == "{#}":
            return str(number)
        if not found[1]:
            return " ".join(shlex.quote(_part(one, found[2])) for one in arguments)
        at = int(found[1])
        if not 1 <= at <= len(arguments):
            raise ValueError(f"{found[0]} names source {at} of arguments, and there are {len(arguments)}")
        return shlex.quote(_part(arguments[at - 1], found[2]))

    return _STRING.sub(put, command)


def needs_shell(command: str) -> bool:
    """Whether anything but plain words and quoted ones stands in it."""
    outside = re.sub(r"'[^']*'|(?<!\w)\"[^\"$`\\]*\"", "", command)
    first = "".join(command.split(maxsplit=1)[:1])
    return bool(_SHELL.search(outside)) or "\n" in outside or "=" in first or first in _BUILT_IN


def _part(argument: str, kind: str) -> str:
    folder, last = posixpath.split(argument)
    if kind == ".":
        return _without_ending(argument)
    if kind == "/":
        return last
    if kind == "//":
        return folder or "."
    if kind == "/.":
        return _without_ending(last)
    return argument


def _without_ending(name: str) -> str:
    at = name.rfind(".")
    return name[:at] if at >= 0 and "/" not in name[at:] else name


def results_folder(arguments: Sequence[str]) -> str:
    """The folder of a run below `--results`: number of the source and argument, again and again."""
    parts = []
    for at, argument in enumerate(arguments, 1):
        name = argument.replace("\\", "\\\\").replace("/", "\\_").replace("\t", "\\t").replace("\0", "\\0")
        parts += [str(at), f"\\{name}" if name in (".", "..") else name]
    return posixpath.join(*parts)
