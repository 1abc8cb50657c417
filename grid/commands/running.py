"""Commands under way: on the crew of the grid, like functions of executors; their inputs are on the host before them.

    command() ── CommandLine, key ──> CommandCalls ── bring inputs, call ──> RunCommand on a server
                     CommandFuture <── CommandRun, outputs here ──────┘

Lives here: `GridCommands` (what `g.command` is), its queues, its futures.
Elsewhere:  handing out (`services/handing`), files on hosts (`grids/stager`), what runs there (`onhost`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from grid.arguments import check, check_number
from grid.commands.identity import key_of
from grid.commands.many import AHEAD, CommandRuns, OutputClaims, place_of, values_of
from grid.commands.memo import Memo
from grid.commands.onhost import RunCommand
from grid.commands.outcome import CommandRun, bring_outputs, judged, place_below, trouble, unmatched
from grid.commands.template import CommandLine, In, fill
from grid.compat.crew import RESTARTS, Crew, Publishes, crew_of
from grid.compat.runner import Runner
from grid.compat.work import CallFuture, PooledCall, PooledCalls
from grid.errors import ServerLost, StagingError
from grid.limits import checked_timeout
from grid.services.handing import ItemPack, NoValue
from grid.staging.select import StagedFile

if TYPE_CHECKING:
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.slots.needs import Needs
    from grid.staging.manifest import Entry

_ASKED_S = 10.0
"""What hosts said of a program holds for this time."""
KEEP_BYTES = 1 << 20
APART = 8 << 20
"""Outputs of more bytes than this, and those beyond twice as many in one run, come in pieces after the answer."""
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


class BringsOutputs(Protocol):
    """The part of a grid that brings files from hosts."""

    def bring_kept(self, home: Any, output: dict[str, Any], path: Path, go_on: Callable[[], None]) -> None:
        """Bring an output that waits on its host, in pieces; `go_on` is called before each."""

    def drop_kept(self, home: Any, names: Sequence[str]) -> None:
        """Remove such files, without waiting."""


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

    def __post_init__(self) -> None:
        checked_timeout(self.timeout_s)
        check_number("keep_bytes", self.keep_bytes, 0)


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

    __slots__ = ("bringing", "doomed", "files", "key", "line", "wishes")

    def __init__(
        self,
        calls: CommandCalls,
        line: CommandLine,
        key: str,
        files: list[tuple[StagedFile, str]],
        wishes: Wishes,
        spec: Any,
    ) -> None:
        super().__init__(calls, "run", (spec,), {}, RUN)
        self.line, self.key, self.files, self.wishes = line, key, files, wishes
        self.doomed = self.bringing = False
        self.future = CommandFuture(calls, line.shown[:60], self)

    def __repr__(self) -> str:
        return repr(self.line.shown[:200])


RUN = RunCommand()


class CommandCalls(PooledCalls):
    """The commands of one crew. `having`: in words, which hosts have a program.

    Large outputs are brought by threads of their own: those that hand out commands must not wait for them.
    """

    def __init__(
        self, crew: Crew, files: Files, fetcher: BringsOutputs, having: Callable[[str], str], retries: int
    ) -> None:
        super().__init__(crew.service, crew, retries)
        self._files, self._fetcher, self._having = files, fetcher, having
        self._known = crew.take(RUN)
        self._bringers: ThreadPoolExecutor | None = None

    def enter(
        self, line: CommandLine, key: str, files: list[tuple[StagedFile, str]], wishes: Wishes, spec: Any
    ) -> CommandFuture:
        """One more command."""
        assert self.crew is not None
        call = CommandCall(self, line, key, files, wishes, spec)
        call.taken = self.crew.share(self._known)
        future = self._enter(call)
        assert isinstance(future, CommandFuture)
        return future

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
        if call.files:
            home: Any = getattr(proxy._server, "home", None)
            self._files.bring(home, [file for file, _ in call.files], [each for _, each in call.files])
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
        self._fetcher.drop_kept(coming.home, [each["kept"] for each in coming.answer["outputs"] if "kept" in each])
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
        run = CommandRun(command=line.shown, host=host, server=result.server.name, outputs=[], key=call.key, **facts)
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
                    bring_outputs(outputs, to, lambda one, path: self._fetcher.bring_kept(home, one, path, go_on))
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


class GridCommands:
    """The commands of one grid; see the module.

    Args:
        which: For a program: host label -> whether it is there, of the hosts that answer.
    """

    def __init__(
        self, grid: Publishes, files: Files, fetcher: BringsOutputs, which: Callable[[str], dict[str, bool]]
    ) -> None:
        self._grid, self._files, self._fetcher, self._which = grid, files, fetcher, which
        self._lock = threading.Lock()
        self._crews: dict[tuple[Needs | None, str | None], Crew] = {}
        self._queues: dict[tuple[str, int], CommandCalls] = {}
        self._asked: dict[str, tuple[float, str]] = {}

    def command(
        self,
        template: str | Sequence[str],
        /,
        *,
        needs: Needs | None = None,
        where: str | None = None,
        timeout_s: float | None = None,
        shell: bool = False,
        check: bool = True,
        to: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: In | None = None,
        show: bool = True,
        keep_bytes: int = KEEP_BYTES,
        versions: Mapping[str, str] | None = None,
        retries: int = 0,
        values: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> CommandFuture:
        """Run an executable on a server, in a directory of its own, with files in and out; returns at once.

            run = g.command("vina --config {conf} --out {out}", conf=In("a.txt"), out=Out("*.pdbqt")).get()
            print(run.host, run.cpu_s, run.outputs)

        No shell takes part unless you ask for it: each word of the template is one argument, whatever its values hold.

        Args:
            template: The command, with fields in braces; or a list of its words.
            fields: Values of the fields: `In`, `Out`, lists of them, or what stands for itself. Inputs and outputs
                need no field.
            values: The same, for fields with the name of another argument.
            needs, where: As of `publish`; commands that say neither run on the servers of executors and pools.
            timeout_s: Seconds that it may run. Its process group gets SIGTERM then, and SIGKILL 2 s later.
            shell: The template is text for /bin/sh; values are quoted.
            check: A status other than 0, a signal, the time limit, or an output that is not there is a `CommandFailed`;
                False: the value tells of it.
            to: The directory here that outputs come to; default: the current one. Files of their names are replaced.
            env: More variables.
            stdin: A file for its standard input; default: nothing.
            show: Its output is shown as it comes, with server and host, as that of servers is.
            keep_bytes: Bytes of stdout, and of stderr, that the value has: the last ones.
            versions: Of programs, for `key` of the value: another version is another run.
            retries: How often it runs again when its server was lost with it.
        Raises:
            ValueError: A field without a value, names that can't be; the message says what to write.
            StagingError: An input does not exist. The future raises CommandFailed, StagingError, ServerLost,
            CancelledError.
        """
        wishes = Wishes(timeout_s, check, to, env, show, keep_bytes, versions)
        line = fill(template, {**(values or {}), **fields}, shell=shell)
        return self._start(self._queue(needs, where, retries), line, wishes, stdin)

    def map_commands(
        self,
        template: str | Sequence[str],
        inputs: Iterable[Any],
        /,
        *,
        memo: str | os.PathLike[str] | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout: float | None = None,
        tries: int = 1,
        ahead: int = AHEAD,
        needs: Needs | None = None,
        where: str | None = None,
        timeout_s: float | None = None,
        shell: bool = False,
        check: bool = True,
        to: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        show: bool = False,
        keep_bytes: int = KEEP_BYTES,
        versions: Mapping[str, str] | None = None,
        retries: int = 0,
        **fields: Any,
    ) -> CommandRuns:
        """Run a command for each input, on as many servers as are free, and iterate over the runs.

            for run in g.map_commands("sort {i} -o {o}", map(In, names), o=Out("*.sorted"), memo="done"):
                print(run.host, run.outputs)

        Args:
            inputs: Of each run: values by name, or one value for the one field that has none yet. Read as needed.
            memo: A folder of yours that remembers what is done: a run whose command, contents of inputs and `versions`
                are the same, and whose outputs are still there unchanged, is not run again.
            ordered: False: in the order in which they end.
            return_exceptions: Give an error in place of a run, instead of raising it.
            timeout: Seconds that each `next` may wait.
            tries: How often a command that fails is run, in all.
            ahead: Commands under way or waiting, at most.
            to: As of `command`; it may have fields, and `{n}` is the number of the run. Two runs that write the same
                file are an error.
            fields: Values that all runs share. The others: see `command`.
        Raises:
            ValueError: A bound that is not positive. The iterator raises what `command` and its futures raise.
        """
        check_number("tries", tries, 1)
        check_number("ahead", ahead, 1)
        wishes = Wishes(timeout_s, check, None, env, show, keep_bytes, versions)
        done = None if memo is None else Memo(memo, self._files)
        texts = [template] if isinstance(template, str) else list(template)
        claims = OutputClaims()

        def start(number: int, item: Any) -> Future[Any]:
            values = values_of(item, texts, fields)
            place = place_of(to, number, values)
            line = fill(template, values, shell=shell)
            claim = partial(claims.claim, number)
            asked = replace(wishes, to=place, claim=claim, memo=done)
            key, files, spec = self.prepared(line, asked)
            found = None if done is None else done.find(key, place)
            if found is None:
                return self._queue(needs, where, retries).enter(line, key, files, asked, spec)
            claim(found.outputs)
            future: Future[Any] = Future()
            future.set_result(found)
            return future

        return CommandRuns(
            inputs,
            start,
            tries=tries,
            ordered=ordered,
            exceptions=return_exceptions,
            timeout=checked_timeout(timeout),
            ahead=ahead,
        )

    def start_line(self, line: CommandLine, wishes: Wishes, retries: int = 0) -> CommandFuture:
        """Begin a command that is ready to run. Raises StagingError; the future raises as that of `command`."""
        return self._start(self._queue(None, None, retries), line, wishes)

    def prepared(
        self, line: CommandLine, wishes: Wishes, stdin: In | None = None
    ) -> tuple[str, list[tuple[StagedFile, str]], Any]:
        """Key, inputs with their hashes, and what the host is told of a command.

        Raises:
            StagingError: An input does not exist, or can't be read.
        """
        ins = dict(line.ins)
        if stdin is not None:
            check("stdin", stdin, In)
            ins.setdefault(stdin.place, os.path.abspath(os.path.expanduser(os.fspath(stdin.path))))
        hashes, files, places = {}, {}, []
        for place, path in ins.items():
            if os.path.isdir(path):
                raise StagingError(f"the input {path!r} is a directory", hint="Name its files, each in an In(...)")
            entry = self._files.contents(Path(path))
            hashes[place] = entry.sha256
            relative = f".commands/in/{entry.sha256}"
            places.append((place, relative, entry.mode))
            files[relative] = (StagedFile(relative, Path(path), entry.size, entry.mode), entry.sha256)
        variables = {name: str(value) for name, value in (wishes.env or {}).items()}
        key = key_of(
            line, hashes, versions=wishes.versions, variables=variables, stdin=None if stdin is None else stdin.place
        )
        spec = {
            "words": list(line.words),
            "text": line.text,
            "ins": places,
            "outs": list(line.outs),
            "variables": variables,
            "stdin": None if stdin is None else stdin.place,
            "timeout_s": wishes.timeout_s,
            "keep_bytes": wishes.keep_bytes,
            "show": wishes.show,
            "check": wishes.check,
            "apart": APART,
            "keep": False,
        }
        return key, list(files.values()), spec

    def _start(self, queue: CommandCalls, line: CommandLine, wishes: Wishes, stdin: In | None = None) -> CommandFuture:
        key, files, spec = self.prepared(line, wishes, stdin)
        return queue.enter(line, key, files, wishes, spec)

    def _queue(self, needs: Needs | None, where: str | None, retries: int) -> CommandCalls:
        check_number("retries", retries, 0)
        crew = self._crew(needs, where)
        with self._lock:
            at = (crew.service_id, retries)
            if at not in self._queues:
                queue = self._queues[at] = CommandCalls(crew, self._files, self._fetcher, self._having, retries)
                self._grid.unfinished.add(queue)
            return self._queues[at]

    def _crew(self, needs: Needs | None, where: str | None) -> Crew:
        if needs is None and where is None:
            return crew_of(self._grid)
        with self._lock:
            crew = self._crews.get((needs, where))
            if crew is None or crew.service_id not in self._grid.servers:
                publish: Callable[..., str] = self._grid.publish  # type: ignore[attr-defined]
                service_id = publish(Runner(), restarts=RESTARTS, needs=needs, where=where)
                crew = self._crews[needs, where] = Crew(self._grid, self._grid._service(service_id))
            return crew

    def _having(self, program: str) -> str:
        at, words = self._asked.get(program, (0.0, ""))
        if not words or time.monotonic() - at > _ASKED_S:
            told = self._which(program)
            having = sorted(label for label, there in told.items() if there)
            words = f"these hosts have it: {', '.join(having)}" if having else "no host of the grid has it"
            self._asked[program] = time.monotonic(), words
        return words
