"""A command for each argument, as `grid exec` and GNU parallel run them: results, joblog, going on where it stopped.

Lives here: `run_each`. Elsewhere: replacement strings (`replacing`), lines of the joblog (`joblog`), runs (`many`).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from grid.commands.calls import Wishes
from grid.commands.joblog import HEADER, LogLine, read, written
from grid.commands.many import CommandRuns
from grid.commands.outcome import CommandRun
from grid.commands.replacing import needs_shell, replaced, results_folder
from grid.commands.template import CommandLine
from grid.errors import CommandFailed, GridError, StagingError

if TYPE_CHECKING:
    from grid.commands.calls import CommandFuture

ABSENT, NO_WAY = 127, 255
"""The status of a command whose program is not there, and of one whose host was lost: those of sh and ssh."""


class StartsCommands(Protocol):
    """What begins commands."""

    def start_line(self, line: CommandLine, wishes: Wishes, retries: int = 0) -> CommandFuture:
        """Begin one."""


@dataclass(frozen=True)
class EachAsked:
    """What `grid exec` was told. `outs`: patterns of files to bring to `to`; `files`: whether arguments are inputs."""

    results: Path | None = None
    joblog: Path | None = None
    resume: bool = False
    resume_failed: bool = False
    tries: int = 1
    timeout_s: float | None = None
    outs: tuple[str, ...] = ()
    to: Path = Path(".")
    ordered: bool = False
    files: bool = True


@dataclass(frozen=True)
class EachEnded:
    """One command that has ended. `run` is None where it did not run; `error` in words where it did not end well."""

    number: int
    command: str
    status: int
    signal: int
    run: CommandRun | None
    error: str

    @property
    def failed(self) -> bool:
        """Whether it counts as failed."""
        return bool(self.status or self.signal)


def line_of(command: str, arguments: Sequence[str], number: int, asked: EachAsked) -> tuple[str, CommandLine]:
    """The command as one would type it, and as it runs. An argument that names a file here is an input of it.

    Raises:
        ValueError: It names a source that is not there.
    """
    ins: dict[str, str] = {}
    places = []
    for argument in arguments:
        place = argument
        if asked.files and argument and os.path.isfile(argument):
            place = os.path.normpath(argument)
            if os.path.isabs(place) or place.split(os.sep)[0] == os.pardir:
                place = os.path.basename(place)
            ins[place] = os.path.abspath(argument)
            place = argument if os.path.normpath(argument) == place else place
        places.append(place)
    text = replaced(command, places, number)
    if needs_shell(text):
        return text, CommandLine((), text, ins, asked.outs)
    return text, CommandLine(tuple(shlex.split(text)), None, ins, asked.outs)


def left_to_do(
    combinations: Iterable[tuple[str, ...]], log: Sequence[LogLine], asked: EachAsked
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Numbers, from 1, with their arguments: all, or with `resume` those that the joblog does not have."""
    last = {line.seq: line for line in log}
    for number, arguments in enumerate(combinations, 1):
        line = last.get(number)
        if (
            line is None
            or not (asked.resume or asked.resume_failed)
            or (asked.resume_failed and (line.status or line.signal))
        ):
            yield number, arguments


def run_each(
    commands: StartsCommands,
    command: str,
    combinations: Iterable[tuple[str, ...]],
    asked: EachAsked,
    show: Callable[[EachEnded], None],
) -> int:
    """Run the command for each combination of arguments; how many failed.

    Args:
        show: Is called with each as it ends, or in order.
    Raises:
        StagingError: The joblog is none, or it or a result can't be written. ValueError: See `line_of`.
    """
    failed = 0
    log = _log_of(asked)
    with _opened(asked) as out:
        texts: dict[int, tuple[str, tuple[str, ...]]] = {}
        numbers: dict[int, int] = {}

        def start(place: int, item: tuple[int, tuple[str, ...]]) -> Future[Any]:
            number, arguments = item
            text, line = line_of(command, arguments, number, asked)
            texts[number], numbers[place] = (text, arguments), number
            wishes = Wishes(timeout_s=asked.timeout_s, to=asked.to, show=False)
            return commands.start_line(line, wishes)

        todo = left_to_do(combinations, log, asked)
        with CommandRuns(todo, start, tries=asked.tries, ordered=asked.ordered, exceptions=True) as runs:
            for outcome in runs:
                number = numbers.pop(runs.number, 0)
                if not number and isinstance(outcome, ValueError):
                    raise outcome
                text, arguments = texts.pop(number)
                ended = ended_of(number, text, outcome)
                failed += ended.failed
                _note(asked, ended, arguments, out)
                show(ended)
    return failed


def ended_of(number: int, text: str, outcome: CommandRun | BaseException) -> EachEnded:
    """What came of a command, with the status that it counts as."""
    if isinstance(outcome, CommandRun):
        return EachEnded(number, text, outcome.status, outcome.signal, outcome, "")
    run: CommandRun | None = getattr(outcome, "run", None)
    said = outcome.what if isinstance(outcome, GridError) else f"{type(outcome).__name__}: {outcome}"
    if isinstance(outcome, CommandFailed) and run is not None:
        if run.timed_out:
            return EachEnded(number, text, -1, run.signal or 15, run, said)
        return EachEnded(number, text, run.status if run.status or run.signal else 1, run.signal, run, said)
    absent = isinstance(outcome, CommandFailed) and "there is no program" in said
    return EachEnded(number, text, ABSENT if absent else NO_WAY, 0, None, said)


def _log_of(asked: EachAsked) -> list[LogLine]:
    if asked.joblog is None or not asked.joblog.exists() or not (asked.resume or asked.resume_failed):
        return []
    try:
        with open(asked.joblog, encoding="utf-8", errors="replace", newline="\n") as file:
            return read(file)
    except (OSError, ValueError) as exc:
        raise StagingError(
            f"the joblog {os.fspath(asked.joblog)!r} can't be read ({exc})", hint="Name another"
        ) from exc


class _opened:
    """The joblog, open to write; None without one."""

    def __init__(self, asked: EachAsked) -> None:
        self._path, self._goes_on = asked.joblog, asked.resume or asked.resume_failed
        self._file: TextIO | None = None

    def __enter__(self) -> TextIO | None:
        if self._path is None:
            return None
        try:
            begun = self._goes_on and self._path.exists() and self._path.stat().st_size > 0
            whole = not begun or self._path.read_bytes().endswith(b"\n")
            self._file = open(self._path, "a" if begun else "w", encoding="utf-8", errors="surrogateescape", newline="")
            if not begun:
                self._file.write(HEADER)
            elif not whole:
                self._file.write("\n")  # a crash cut its last line
            self._file.flush()
        except OSError as exc:
            raise _unwritten(self._path, exc) from exc
        return self._file

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _note(asked: EachAsked, ended: EachEnded, arguments: Sequence[str], log: TextIO | None) -> None:
    run = ended.run
    place: Path | None = asked.joblog
    try:
        if asked.results is not None:
            place = asked.results / results_folder(arguments)
            place.mkdir(parents=True, exist_ok=True)
            (place / "stdout").write_bytes(run.stdout if run is not None else b"")
            (place / "stderr").write_bytes(run.stderr if run is not None else ended.error.encode() + b"\n")
            (place / "seq").write_text(str(ended.number))
        place = asked.joblog
        if log is not None:
            host = "" if run is None else ":" if run.host == "localhost" else run.host
            times = (0.0, 0.0) if run is None else (run.began, run.seconds)
            received = 0 if run is None else len(run.stdout) + len(run.stderr)
            log.write(
                written(LogLine(ended.number, host, *times, 0, received, ended.status, ended.signal, ended.command))
            )
            log.flush()
    except OSError as exc:
        raise _unwritten(place or Path(), exc) from exc


def _unwritten(path: Path, exc: OSError) -> StagingError:
    return StagingError(
        f"{os.fspath(path)!r} can't be written ({exc.strerror or exc})", hint="Make room there, or name another place"
    )
