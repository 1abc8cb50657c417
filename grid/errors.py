"""Every error that grid raises on purpose, in one small tree.

    GridError
     ├─ HostError(what, host=, hint=)             something failed on, or on the way to, one host
     │   ├─ ConnectError                          no answer, refused, name unknown
     │   ├─ HostKeyError                          the host's key is unknown or has changed
     │   ├─ LoginError                            the host answered and refused us
     │   ├─ PythonError                           interpreter missing, too old, or without pyzmq or dill
     │   └─ DiskError                             temp directory missing, read-only or full
     ├─ NeedsError(what, hint=)                   no host is meant, or has what a server needs, now or ever
     ├─ AllocationError                          the batch job that we are in, or asked for, can't be used
     │   └─ SubmitError                           the batch system refused a job, or was not reached
     ├─ InventoryError(what, file=, line=, ...)   a hosts file says something that we can't use
     ├─ StagingError(what, hint=, failures=)      files that could not be chosen or copied
     ├─ ServiceError(what, service_id=, hint=)    something about one published service
     │   ├─ UnknownService                        no such id in this grid              (also a KeyError)
     │   ├─ PublishError                          too few servers came up; `.failures` says why, host by host
     │   ├─ NoServers                             the last server is lost, or it was withdrawn (also a BrokenExecutor)
     │   ├─ ServerLost                            the server died with the call, or went silent (also a BrokenExecutor)
     │   ├─ Released                              a call on a proxy that was released
     │   └─ AcquireTimeout                        no server became free in time        (also a TimeoutError)
     ├─ SerialisationError                        can't travel         (also a TypeError and a PicklingError)
     │   └─ VersionError                          code by value between different Python versions
     ├─ MissingModules                            the host can't import what the object needs (also an ImportError)
     ├─ MissingExtra                              a library that a part of grid needs     (also an ImportError)
     ├─ CommandFailed                             a command that ended with a status other than 0, or could not run
     ├─ CallTimeout                               `Result.get(timeout)` ran out of time    (also a TimeoutError)
     ├─ RemoteError                               stands for a remote exception that can't itself travel
     ├─ TaskError(what, system_id=, hint=)        a task system or a task that can't be run
     │   ├─ DuplicateSystem                       a system of that id exists already
     │   ├─ Stalled                               a system is not complete, and makes no tasks
     │   └─ StrategyError                         a scheduling strategy gave an answer that makes no sense
     ├─ RankError(what, hint=)                    ranks that can't begin, or messages that do not fit
     │   ├─ RankLost                              a rank's server was lost; all others are told
     │   ├─ RankFailed                            a rank's program raised; all others are told
     │   └─ RankReturned                          a rank has returned, and another one waits for it
     ├─ CapsuleError                              a file that is no capsule, or can't be written
     ├─ PackagesError                             packages for a host can't be had: no wheel fits, a lock file, an index
     ├─ SessionError                              a kept session that can't be made, or attached to
     ├─ FailureFileError                          a file that is no kept failure, or can't be opened here
     ├─ Backlog                                   too many calls or bytes wait on one server
     ├─ JobError                                  about jobs; it and its family: `grid/jobs/host/errors.py`
     ├─ GridStopped                               the grid was terminated                 (also a RuntimeError)
     └─ ForkError                                 a grid used in a forked child           (also a RuntimeError)

Each message says what, where and what to do next; the same facts are attributes. An error raised on a server survives
the trip home: every class rebuilds itself from its attributes when unpickled.
"""

from __future__ import annotations

import concurrent.futures
import pickle
from collections.abc import Mapping
from functools import partial
from typing import Any

from grid.causes import together

__all__ = [
    "AcquireTimeout",
    "AllocationError",
    "Backlog",
    "CallTimeout",
    "CapsuleError",
    "CommandFailed",
    "ConnectError",
    "DiskError",
    "DuplicateSystem",
    "FailureFileError",
    "ForkError",
    "GridError",
    "GridStopped",
    "HostError",
    "HostKeyError",
    "InventoryError",
    "LoginError",
    "MissingExtra",
    "MissingModules",
    "NeedsError",
    "NoServers",
    "PackagesError",
    "PublishError",
    "PythonError",
    "RankError",
    "RankFailed",
    "RankLost",
    "RankReturned",
    "Released",
    "RemoteError",
    "SerialisationError",
    "ServerLost",
    "ServiceError",
    "SessionError",
    "StagingError",
    "Stalled",
    "StrategyError",
    "SubmitError",
    "TaskError",
    "UnknownService",
    "VersionError",
]


class GridError(Exception):
    """Base of every error that grid raises on purpose. Keyword facts become attributes."""

    def __init__(self, what: str, **facts: Any) -> None:
        super().__init__(self._render(what, facts))
        self.what = what
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        hint = facts.get("hint")
        return f"{what}. {hint}" if hint else what

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.what, **self.facts), ()


class HostError(GridError):
    """Something failed on `host`; `hint` is the next thing to try."""

    host: str
    hint: str

    def __init__(self, what: str, *, host: str, hint: str, **facts: Any) -> None:
        super().__init__(what, host=host, hint=hint, **facts)

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        return f"host {facts['host']!r}: {what}. {facts['hint']}"


class ConnectError(HostError):
    """The host gave no answer, refused the connection, or its name is unknown."""


class HostKeyError(HostError):
    """The host's key is unknown, or is not the one on record."""


class LoginError(HostError):
    """The host answered and refused to let this user in."""


class PythonError(HostError):
    """The host's interpreter is missing, too old, or lacks pyzmq or dill."""


class DiskError(HostError):
    """The host's temp directory is missing, read-only, full or not ours."""


class AllocationError(GridError):
    """The batch job that this process is in, or that was asked for, can't be used as a grid."""


class SubmitError(AllocationError):
    """A batch system took no job: `status` is its command's exit status, `connection` whether it was not reached."""

    status: int
    connection: bool


class InventoryError(GridError):
    """A hosts file has a value that grid can't use; `file`, `line` (1-based) and `key` say where."""

    file: str
    line: int | None
    key: str | None

    def __init__(
        self, what: str, *, file: str, line: int | None = None, key: str | None = None, hint: str = ""
    ) -> None:
        super().__init__(what, file=file, line=line, key=key, hint=hint)

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        where = facts["file"] if facts["line"] is None else f"{facts['file']}:{facts['line']}"
        return f"{where}: {what}. {facts['hint']}".removesuffix(" ")


class StagingError(GridError):
    """Files could not be chosen or copied. `failures`: host name -> what went wrong there."""

    failures: dict[str, str]

    def __init__(self, what: str, *, hint: str = "", failures: Mapping[str, str] | None = None) -> None:
        super().__init__(what, hint=hint, failures=dict(failures or {}))

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        lines = [f"{what}. {facts['hint']}".removesuffix(" ")]
        told = [(host, f"host {host!r}: {reason}") for host, reason in facts["failures"].items()]
        lines += [f"  {line}" for line in together(told)]
        return "\n".join(lines)


class NeedsError(GridError):
    """No host is meant, or one has not got what a server needs; `host` names it (None: it is about all of them)."""

    host: str | None

    def __init__(self, what: str, *, host: str | None = None, hint: str = "", **facts: Any) -> None:
        super().__init__(what, host=host, hint=hint, **facts)

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        text = super()._render(what, facts)
        return text if facts["host"] is None else f"host {facts['host']!r}: {text}"


class ServiceError(GridError):
    """Something about the service `service_id`."""

    service_id: str
    hint: str

    def __init__(self, what: str, *, service_id: str, hint: str = "", **facts: Any) -> None:
        super().__init__(what, service_id=service_id, hint=hint, **facts)

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        return f"service {facts['service_id']!r}: {what}. {facts['hint']}".removesuffix(" ")


class UnknownService(ServiceError, KeyError):
    """This grid has published no service of that id."""

    __str__ = Exception.__str__  # KeyError would show the repr of the message


class PublishError(ServiceError):
    """No host brought up a server, or fewer did than were waited for. `failures`: host name -> the error there."""

    failures: dict[str, Exception]

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        lines = [super()._render(what, facts)]
        lines += [f"  {line}" for line in together(facts.get("failures", {}).items())]
        return "\n".join(lines)


class NoServers(ServiceError, concurrent.futures.BrokenExecutor):
    """The service has lost its last server, or was withdrawn."""


class ServerLost(ServiceError, concurrent.futures.BrokenExecutor):
    """The server that had the call died or went silent; the call was not repeated.

    `server` is its name (`service id/number`), `host` where it ran, `exit_status` and `signal` how it ended
    (None where unknown), `last_output` the last lines that it printed. `oom_kills`: how many processes the kernel of
    its host killed for lack of memory while it ran; `left_s`: seconds that its allocation had left (None: no end);
    `call`: the method that ran, and `deaths`: how many servers of this grid died with that very call, this one counted.
    `slot`: its cores, devices and memory, in words; "" if it had none of its own. `memory_peak` and `memory_limit`:
    bytes that its process had at most, and that it might have had (None where unknown). `snapshot_age_s`: how old the
    last snapshot of its state is (None: there is none); the server in its place goes on from that.
    """

    server: str
    host: str
    exit_status: int | None
    signal: int | None
    last_output: str
    oom_kills: int
    left_s: float | None
    call: str | None
    deaths: int
    slot: str
    memory_peak: int | None = None
    memory_limit: int | None = None
    snapshot_age_s: float | None = None

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        where = f"server {facts['server']!r} on host {facts['host']!r}"
        text = f"{where}: {what}. {facts.get('hint', '')}".removesuffix(" ")
        tail = facts.get("last_output")
        return f"{text}\nLast lines that it printed:\n{tail}" if tail else text


class Released(ServiceError):
    """A call on a proxy that was released; acquire the service again."""


class AcquireTimeout(ServiceError, TimeoutError):
    """No server of the service became free in time; the message says what its servers are doing."""


class SerialisationError(GridError, TypeError, pickle.PicklingError):
    """An instance, argument, result or exception can't be serialised; the message says which part."""


class VersionError(SerialisationError):
    """Code by value can't cross between Python versions: byte code of one crashes or misleads the other."""


class MissingModules(GridError, ImportError):
    """A host can't import modules that the object needs. `modules`: their names."""

    host: str
    modules: tuple[str, ...]

    def __init__(self, what: str, *, host: str, modules: tuple[str, ...], hint: str = "") -> None:
        super().__init__(what, host=host, modules=modules, hint=hint)

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        return f"host {facts['host']!r}: {what}. {facts['hint']}".removesuffix(" ")


class MissingExtra(GridError, ImportError):
    """A library that only a part of grid needs is not installed here; the message has the line that installs it."""

    extra: str


class CommandFailed(GridError):
    """A command ended with another status than 0, by a signal, at its time limit; or it could not run at all.

    `command`: as one would type it. `host`: the label of the host. `status`, `signal`: how it ended, 0 where it did not
    so, None where it did not run. `stderr`: the last lines of it. `run`: the value with `check=False`, where it ran.
    """

    command: str
    host: str
    status: int | None
    signal: int | None
    stderr: str
    hint: str


class CallTimeout(
    GridError,
    *dict.fromkeys([TimeoutError, concurrent.futures.TimeoutError]),  # type: ignore[misc]
):  # until Python 3.11 they are two classes
    """A result was not ready in time; the call goes on."""


class RemoteTraceback(Exception):
    """The traceback on the server, as text: shown as the (last) cause of the exception that `get` raises.

    `where` names the call, its server and host, and how to look at it.
    """

    def __init__(self, text: str, where: str = "") -> None:
        super().__init__(text, where)
        self.text = text
        self.where = where

    @property
    def tb(self) -> str:
        """Its text, by its name in `multiprocessing` and `concurrent.futures`."""
        return f"{self.text}\n{self.where}\n" if self.where else self.text

    def __str__(self) -> str:
        return f"\n\n{self.text}" + (f"\n{self.where}\n" if self.where else "")


class RemoteError(GridError):
    """Stands for a remote exception that can't itself travel; `kind` is its class, `remote_traceback` its text."""

    kind: str
    remote_traceback: str


class TaskError(GridError):
    """A task system, or a task, can't be run; `system_id` says which (None: a single task, or all)."""

    system_id: str | None

    def __init__(self, what: str, *, system_id: str | None = None, hint: str = "", **facts: Any) -> None:
        super().__init__(what, system_id=system_id, hint=hint, **facts)

    @classmethod
    def _render(cls, what: str, facts: Mapping[str, Any]) -> str:
        where = "" if facts["system_id"] is None else f"task system {facts['system_id']!r}: "
        return f"{where}{what}. {facts['hint']}".removesuffix(" ")


class DuplicateSystem(TaskError):
    """A task system of that id runs already, or its result has not been fetched."""


class Stalled(TaskError):
    """A task system is not complete, has no task under way, and generates none."""


class StrategyError(TaskError):
    """A scheduling strategy failed, or named a slave or a rating that makes no sense."""


class RankError(GridError):
    """Ranks that can't begin, or messages between them that do not fit. `rank` and `host`: whose, where it is known."""

    rank: int
    host: str


class RankLost(RankError):
    """The server of a rank was lost. All other ranks are told, and so is the client."""


class RankFailed(RankError):
    """The program raised on a rank; `__cause__` is that error, where the client hears it."""


class RankReturned(RankError):
    """A rank has returned, and another one waits for it or writes to it."""


class CapsuleError(GridError):
    """A file that is no capsule of a run, or one that can't be written."""


class PackagesError(GridError):
    """Packages for a host can't be had: no wheel fits it, a lock file says something else, no index answers.

    `package`, `version`, `tags` (that exist) and `file` are attributes where they are known.
    """


class SessionError(GridError):
    """A kept session can't be made, or attached to: another client has it, its time has passed, its file is damaged."""


class FailureFileError(GridError):
    """A file that is no failed call, or one that can't be opened here."""


class Backlog(GridError):
    """One server has too many calls or bytes waiting, and took none off in the time allowed."""


class GridStopped(GridError, RuntimeError):
    """The grid was terminated; nothing can be asked of it any more."""


class ForkError(GridError, RuntimeError):
    """A grid, proxy or result of the parent was used in a forked child."""


def fork_error() -> ForkError:
    """For whoever uses what belongs to the parent process."""
    return ForkError(
        "this grid belongs to the parent process", hint="Make a grid of its own in the child, or fork before"
    )
