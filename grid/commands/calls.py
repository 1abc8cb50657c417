"""Commands in the queues of crews: inputs before the call, outputs after it, and what `cancel` ends.

    CommandLine, key ──> CommandCalls ── bring inputs, call ──> RunCommand on a server
          CommandFuture <── CommandRun, outputs here ──────┘

Lives here: `CommandCalls`, `CommandFuture`; what they need of a grid.
Elsewhere:  what is asked for (`running`), handing out (`services/handing`), files on hosts (`grids/stager`,
            `grids/keptfiles`), what runs there (`onhost`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from grid.arguments import check, check_number
from grid.commands.memo import Memo
from grid.commands.onhost import RunCommand
from grid.commands.outcome import CommandRun, bring_outputs, judged, place_below, trouble, unmatched
from grid.commands.template import CommandLine
from grid.compat.crew import Crew
from grid.compat.work import CallFuture, PooledCall, PooledCalls
from grid.errors import ServerLost
from grid.limits import checked_timeout
from grid.services.handing import ItemPack, NoValue
from grid.staging.select import StagedFile

if TYPE_CHECKING:
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.staging.manifest import Entry
    from grid.wire.remote_path import RemotePath, Whereabouts

KEEP_BYTES = 1 << 20
_BRING_AT_ONCE = 4
"""Commands of one queue whose outputs are brought at once."""
_FACTS = (
    *("status", "signal", "seconds", "cpu_s", "peak_bytes", "stdout", "stderr", "stdout_lost", "stderr_lost"),
    *("left", "timed_out", "began"),
)


class Files(Protocol):
    """The part of a grid that has files on hosts."""

    def contents(self, path: Path) -> Entry:
        """What a file here holds."""

    def bring(self, home: Any, files: Sequence[StagedFile], digests: Sequence[str]) -> int:
        """Have files on a host."""


class KeepsFiles(Protocol):
    """The part of a grid that knows the files that wait, or stay, on hosts."""

    def bring_output(self, home: Any, output: dict[str, Any], target: Path, go_on: Callable[[], None]) -> None:
        """Bring an output that waits on its host, in pieces; `go_on` is called before each."""

    def drop_outputs(self, home: Any, names: Sequence[str]) -> None:
        """Remove such outputs, without waiting."""

    def note(self, home: Any, output: dict[str, Any]) -> RemotePath:
        """An output that stays there, as a value."""

    def stored(self, path: RemotePath) -> Whereabouts:
        """Where a file lies that a command is to have as an input."""

    def hold(self, names: Iterable[str]) -> None:
        """A command has these as inputs."""

    def release(self, names: Iterable[str]) -> None:
        """That command has ended."""

    def have(self, home: Any, names: Iterable[str]) -> None:
        """Have these on a host."""


@dataclass(frozen=True)
class Wishes:
    """How commands run, whatever they are. Arguments as of `GridCommands.command`."""

    timeout_s: float | None = None
    check: bool = True
    to: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = None
    show: bool = True
    keep_bytes: int = KEEP_BYTES
    versions: Mapping[str, str] | None = None
    claim: Callable[[list[Path]], None] | None = None  # is told the files before they are written, and may refuse
    memo: Memo | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        checked_timeout(self.timeout_s)
        check_number("keep_bytes", self.keep_bytes, 0)
        check("keep", self.keep, bool)
        if self.keep and (self.to is not None or self.memo is not None):
            raise ValueError("keep=True leaves outputs on the host; to= and memo= are for files here: leave them out")


@dataclass(frozen=True)
class Prepared:
    """A command that is ready for its queue.

    `files`: inputs of this machine, with their hashes. `stored`: names of inputs that are in stores of hosts.
    `spec`: what its host is told.
    """

    line: CommandLine
    key: str
    files: list[tuple[StagedFile, str]]
    stored: list[str]
    spec: dict[str, Any]


class CommandFuture(CallFuture):
    """The future of one command: `get` and `result` give a `CommandRun`. `cancel` also ends one that runs."""

    def __init__(self, calls: CommandCalls, name: str, call: CommandCall) -> None:
        super().__init__(calls, name)
        self._queue: CommandCalls = calls
        self._what: CommandCall | None = call
        self.add_done_callback(_forget_call)

    def get(self, timeout: float | None = None) -> CommandRun:
        """The value, as `Result.get` gives that of a call."""
        run: CommandRun = self.result(timeout)
        return run

    def cancel(self) -> bool:
        """Withdraw the command; where it runs, its whole process group ends. False if it had ended before."""
        what = self._what
        if super().cancel():
            return True
        return what is not None and self._queue.end_one(what)

    def cancelled(self) -> bool:
        """Whether it was withdrawn, or ended by `cancel`."""
        return super().cancelled() or (self.done() and isinstance(self.exception(0), CancelledError))


def _forget_call(future: Future[Any]) -> None:
    if isinstance(future, CommandFuture):
        future._what = None


class CommandCall(PooledCall):
    """A command in the queue."""

    __slots__ = ("bringing", "doomed", "line", "prepared", "stored", "wishes")

    def __init__(self, calls: CommandCalls, prepared: Prepared, wishes: Wishes) -> None:
        super().__init__(calls, "run", (prepared.spec,), {}, RUN)
        self.line, self.prepared, self.wishes = prepared.line, prepared, wishes
        self.stored = prepared.stored  # inputs that it holds, until it has ended
        self.doomed = self.bringing = False
        self.future = CommandFuture(calls, self.line.shown[:60], self)

    def __repr__(self) -> str:
        return repr(self.line.shown[:200])


RUN = RunCommand()


class CommandCalls(PooledCalls):
    """The commands of one crew. `having`: in words, which hosts have a program.

    Large outputs are brought by threads of their own: those that hand out commands must not wait for them.
    """

    def __init__(self, crew: Crew, files: Files, kept: KeepsFiles, having: Callable[[str], str], retries: int) -> None:
        super().__init__(crew.service, crew, retries)
        self._files, self._kept, self._having = files, kept, having
        self._known = crew.take(RUN)
        self._bringers: ThreadPoolExecutor | None = None

    def enter(self, prepared: Prepared, wishes: Wishes) -> CommandFuture:
        """One more command. StagingError: An input on a host was forgotten meanwhile."""
        assert self.crew is not None
        call = CommandCall(self, prepared, wishes)
        self._kept.hold(call.stored)
        try:
            call.taken = self.crew.share(self._known)
            future = self._enter(call)
        except BaseException:
            self._kept.release(call.stored)
            raise
        assert isinstance(future, CommandFuture)
        return future

    def done(self, call: PooledCall) -> None:
        """A command has ended, whichever way."""
        assert isinstance(call, CommandCall)
        stored, call.stored = call.stored, []
        self._kept.release(stored)
        super().done(call)

    def end_one(self, call: CommandCall) -> bool:
        """End a command that runs; False if it has ended."""
        with self.lock:
            handing = self._handing
            if handing is None or call.future.done():
                return False
            call.doomed = True
            if call.bringing:
                return True
        handing.end_item(call)
        return True

    # -- the supply, in the thread that hands out ------------------------------------------------------------------

    def send(self, proxy: Proxy, pack: ItemPack) -> Result:
        """See `Supply.send`. Its inputs first."""
        call: CommandCall = pack.items[0]
        if call.doomed:
            raise CancelledError()
        home: Any = getattr(proxy._server, "home", None)
        if files := call.prepared.files:
            self._files.bring(home, [file for file, _ in files], [each for _, each in files])
        if call.stored:
            self._kept.have(home, call.stored)
        return super().send(proxy, pack)

    def read(self, pack: ItemPack, result: Result) -> list[Any]:
        """See `Supply.read`."""
        call: CommandCall = pack.items[0]
        [answer] = super().read(pack, result)
        if type(answer) is NoValue:
            return [answer]
        try:
            run, to = self._judged(call, answer, result)
        except Exception as exc:
            return [NoValue(exc)]
        if call.wishes.keep:
            run.kept.extend(self._kept.note(result.server.home, output) for output in answer["outputs"])
            return [run]
        if any("kept" in output for output in answer["outputs"]):
            with self.lock:
                call.bringing = True
            return [_Coming(run, to, answer, result.server.home)]
        return [self._whole(call, run, to, answer, None)]

    def arrive(self, pack: ItemPack, outcomes: list[Any]) -> None:
        """See `Supply.arrive`."""
        [outcome] = outcomes
        if type(outcome) is _Coming:
            if self._bringers is None:
                self._bringers = ThreadPoolExecutor(_BRING_AT_ONCE, "grid-bring")
            self._bringers.submit(self._bring, pack, outcome)
            return
        if pack.items[0].doomed and type(outcome) is NoValue and isinstance(outcome.error, ServerLost):
            outcomes = [NoValue(CancelledError())]
        super().arrive(pack, outcomes)

    def end(self) -> None:
        """See `Supply.end`."""
        bringers, self._bringers = self._bringers, None
        if bringers is not None:
            bringers.shutdown(wait=False)
        super().end()

    def _bring(self, pack: ItemPack, coming: _Coming) -> None:
        """In a thread of its own."""
        call: CommandCall = pack.items[0]
        outcome = self._whole(call, coming.run, coming.to, coming.answer, coming.home)
        self._kept.drop_outputs(coming.home, [each["kept"] for each in coming.answer["outputs"] if "kept" in each])
        super().arrive(pack, [outcome])
        with self.lock:
            if self._handing is not None:
                self._handing.poke()

    def _judged(self, call: CommandCall, answer: dict[str, Any], result: Result) -> tuple[CommandRun, Path]:
        """The run as it is before its outputs are here, and where those go. Raises CommandFailed."""
        host, line, wishes = result.server.host.label, call.line, call.wishes
        failed = trouble(line.shown, host, answer, self._having)
        if failed is not None:
            raise failed
        facts = {name: answer[name] for name in _FACTS}
        about = {"command": line.shown, "host": host, "server": result.server.name, "key": call.prepared.key}
        run = CommandRun(**about, **facts, outputs=[], kept=[])
        if wishes.check:
            bad = judged(run, wishes.timeout_s)
            if bad is None and "missing" in answer:
                bad = unmatched(run, answer["missing"])
            if bad is not None:
                raise bad
        return run, Path(wishes.to if wishes.to is not None else os.curdir).absolute()

    def _whole(
        self, call: CommandCall, run: CommandRun, to: Path, answer: dict[str, Any], home: Any
    ) -> CommandRun | NoValue:
        """The run with its outputs. `home`: the host where some of them wait."""
        outputs, wishes = answer["outputs"], call.wishes

        def go_on() -> None:
            if call.doomed:
                raise CancelledError()

        try:
            if outputs:
                if wishes.claim is not None:
                    wishes.claim([place_below(to, output["name"]) for output in outputs])
                run.outputs.extend(
                    bring_outputs(outputs, to, lambda one, path: self._kept.bring_output(home, one, path, go_on))
                )
            if wishes.memo is not None and run.ok and "missing" not in answer:
                wishes.memo.keep(run, to)
        except Exception as exc:
            return NoValue(exc)
        return run


class _Coming:
    """In place of a run whose outputs wait on its host."""

    __slots__ = ("answer", "home", "run", "to")

    def __init__(self, run: CommandRun, to: Path, answer: dict[str, Any], home: Any) -> None:
        self.run, self.to, self.answer, self.home = run, to, answer, home
