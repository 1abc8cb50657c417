"""The last messages of jobs, above all log lines and improvements, for late listeners: streams keep no history.

Bounded: the last ones of each kind, see `KEPT`. In memory those of the newest `JOBS` jobs that said something; on disk,
where a restart finds them, those of all jobs that exist, a file of JSON lines for each, written a moment later
(`flush`); there without improvements of more than `LARGEST` bytes.

Lives here: `History`.
Elsewhere:  the streams (`line/streams.py`), who asks (`server.py`), when it is written (`job_manager.py`).
"""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict, deque
from pathlib import Path

from grid.jobs.host.errors import RequestError
from grid.jobs.host.messages import Message
from grid.jobs.host.names import safe_key

logger = logging.getLogger(__name__)

JOBS = 2_000
LINES = 500
KEPT = {"Log": LINES, "Improved": LINES, "Kept": LINES, "Answer": 100, "Start": 50, "Progress": 20}
"""Kinds that are kept, and how many of each at the most."""
IN_MEMORY = frozenset({"Start", "Progress"})
"""Kinds that are not written: every job says them, and what they tell is in its record."""
LARGEST = 64 * 1024

_WORN = 4
"""A file with more than this many times the lines that are kept is written anew."""

Lines = dict[str, deque[Message]]


class History:
    """See the module. Its owner holds a lock, but for `flush`.

    Args:
        directory: Of the files; made when there is something to write. None: in memory only.
        jobs, lines: The bounds.
    """

    def __init__(self, directory: Path | None = None, jobs: int = JOBS, lines: int = LINES) -> None:
        self._directory, self._most, self._lines = directory, jobs, lines
        self._jobs: OrderedDict[str, Lines] = OrderedDict()
        self._unwritten: dict[str, list[Message]] = {}
        self._length: dict[str, int] = {}  # of files, in lines
        self._torn: set[str] = set()  # files whose last line has no end
        self._troubled = False

    def note(self, job: str, message: Message) -> None:
        """A message of the job, kept if it is of a kind that is kept."""
        if message.kind in KEPT:
            self._of(job)[message.kind].append(message)
            if self._directory is not None and message.kind not in IN_MEMORY:
                self._unwritten.setdefault(job, []).append(message)

    def of(self, job: str, kind: str) -> list[Message]:
        """The kept messages of that kind, oldest first."""
        return list(self._of(job).get(kind, ()))

    def said(self, job: str, number: int, began: float) -> list[Message]:
        """What is kept of all kinds, as it was said: up to that number, and what was said before this server began."""
        found = [message for lines in self._of(job).values() for message in lines]
        found = [message for message in found if message.number <= number or message.time < began]
        return sorted(found, key=lambda message: (message.time >= began, message.time, message.number))

    def forget(self, job: str) -> None:
        """The job is deleted."""
        self._jobs.pop(job, None)
        self._unwritten.pop(job, None)
        self._length.pop(job, None)
        if self._directory is not None:
            self._file(job).unlink(missing_ok=True)

    def _of(self, job: str) -> Lines:
        lines = self._jobs.get(job)
        if lines is None:
            if len(self._jobs) >= self._most:
                self._jobs.popitem(last=False)
            lines = self._jobs[job] = self._read(job)
        return lines

    # -- on disk ---------------------------------------------------------------------------------------------------

    def _file(self, job: str) -> Path:
        assert self._directory is not None
        return self._directory / f"{safe_key(job)}.jsonl"

    def _read(self, job: str) -> Lines:
        lines: Lines = {kind: deque(maxlen=min(most, self._lines)) for kind, most in KEPT.items()}
        if self._directory is None:
            return lines
        try:
            written = self._file(job).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        except FileNotFoundError:
            written = []
        except OSError as exc:
            self._trouble(exc)
            written = []
        self._length[job] = len(written)
        if written and not written[-1].endswith("\n"):
            self._torn.add(job)
        for line in written:
            try:
                message = Message.from_plain(json.loads(line))
            except (ValueError, TypeError, AttributeError, RequestError):
                continue  # torn by a power cut
            if message.kind in lines:
                lines[message.kind].append(message)
        for message in self._unwritten.get(job, ()):
            lines[message.kind].append(message)
        return lines

    def take(self) -> dict[str, list[Message]]:
        """What `flush` has to write; its owner's lock is held."""
        unwritten, self._unwritten = self._unwritten, {}
        return unwritten

    def flush(self, unwritten: dict[str, list[Message]]) -> None:
        """Write what `take` gave; one thread at a time, and not under the lock."""
        if not unwritten or self._directory is None:
            return
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            for job, messages in unwritten.items():
                lines = [json.dumps(message.to_plain()) + "\n" for message in messages]
                self._append(self._file(job), job, [line for line in lines if len(line) <= LARGEST])
        except OSError as exc:
            self._trouble(exc)

    def _append(self, path: Path, job: str, lines: list[str]) -> None:
        with open(path, "a", encoding="utf-8", opener=_privately) as file:
            if job in self._torn:
                self._torn.discard(job)
                file.write("\n")
            file.writelines(lines)
        self._length[job] = length = self._length.get(job, 0) + len(lines)
        if length > _WORN * self._lines * 2:
            kept = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = _last(kept, self._lines)
            new = path.with_suffix(".new")
            with open(new, "w", encoding="utf-8", opener=_privately) as file:
                file.writelines(kept)
            os.replace(new, path)
            self._length[job] = len(kept)

    def _trouble(self, exc: OSError) -> None:
        if not self._troubled:  # once is enough
            self._troubled = True
            logger.warning("what jobs say can't be kept in %s (%s); jobs go on", self._directory, exc.strerror)


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _last(lines: list[str], most: int) -> list[str]:
    """The last lines of each kind, in their order."""
    left = {kind: min(most, bound) for kind, bound in KEPT.items()}
    kept: list[str] = []
    for line in reversed(lines):
        try:
            kind = json.loads(line)["kind"]
        except (ValueError, TypeError, KeyError):
            continue
        if left.get(kind, 0) > 0:
            left[kind] -= 1
            kept.append(line)
    return kept[::-1]
