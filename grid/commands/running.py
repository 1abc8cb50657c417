"""What `g.command` and `g.map_commands` are: a command is prepared, and goes into the queue of its crew.

Lives here: `GridCommands`: keys, inputs and what hosts are told of a command; queues.
Elsewhere:  commands in queues, and their futures (`calls`); many of them (`many`); what runs on hosts (`onhost`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.arguments import check, check_number
from grid.commands.calls import KEEP_BYTES, CommandCalls, CommandFuture, Files, KeepsFiles, Prepared, Wishes
from grid.commands.identity import key_of
from grid.commands.many import AHEAD, CommandRuns, OutputClaims, place_of
from grid.commands.memo import Memo
from grid.commands.template import CommandLine, In, fill, values_of
from grid.compat.crew import RESTARTS, Crew, Publishes, crew_of
from grid.compat.runner import Runner
from grid.errors import StagingError
from grid.kernel.filestore import PLACE
from grid.limits import checked_timeout
from grid.staging.select import StagedFile
from grid.wire.remote_path import RemotePath

if TYPE_CHECKING:
    from grid.slots.needs import Needs

_ASKED_S = 10.0
"""What hosts said of a program holds for this time."""
APART = 8 << 20
"""Outputs of more bytes than this, and those beyond twice as many in one run, come in pieces after the answer."""


class GridCommands:
    """The commands of one grid; see the module.

    Args:
        which: For a program: host label -> whether it is there, of the hosts that answer.
    """

    def __init__(
        self, grid: Publishes, files: Files, kept: KeepsFiles, which: Callable[[str], dict[str, bool]]
    ) -> None:
        self._grid, self._files, self._kept, self._which = grid, files, kept, which
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
        keep: bool = False,
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
            keep: Outputs stay on the host, as `RemotePath`s in `kept` of the value: inputs of other commands, without a
                way through here. They go with the grid, or by `forget()`.
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
        wishes = Wishes(timeout_s, check, to, env, show, keep_bytes, versions, keep=keep)
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
        keep: bool = False,
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
        wishes = Wishes(timeout_s, check, None, env, show, keep_bytes, versions, keep=keep)
        if keep and (to is not None or memo is not None):
            raise ValueError("keep=True leaves outputs on hosts; to= and memo= are for files here: leave them out")
        done = None if memo is None else Memo(memo, self._files)
        texts = [template] if isinstance(template, str) else list(template)
        claims = OutputClaims()

        def start(number: int, item: Any) -> Future[Any]:
            values = values_of(item, texts, fields)
            place = place_of(to, number, values)
            line = fill(template, values, shell=shell)
            claim = partial(claims.claim, number)
            asked = wishes if keep else replace(wishes, to=place, claim=claim, memo=done)
            prepared = self.prepared(line, asked)
            found = None if done is None else done.find(prepared.key, place)
            if found is None:
                return self._queue(needs, where, retries).enter(prepared, asked)
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

    def close(self) -> None:
        """The grid has ended: threads that wait for more commands end at once."""
        with self._lock:
            queues = list(self._queues.values())
        for queue in queues:
            queue.close()

    def start_line(self, line: CommandLine, wishes: Wishes, retries: int = 0) -> CommandFuture:
        """Begin a command that is ready to run. Raises StagingError; the future raises as that of `command`."""
        return self._start(self._queue(None, None, retries), line, wishes)

    def prepared(self, line: CommandLine, wishes: Wishes, stdin: In | None = None) -> Prepared:
        """A command with its key and its inputs.

        Raises:
            StagingError: An input does not exist, or can't be read. ConnectError: It was on a host that is lost.
        """
        ins = dict(line.ins)
        if stdin is not None:
            check("stdin", stdin, In)
            ins.setdefault(stdin.place, stdin.source)
        hashes, files, places = {}, {}, []
        stored = []
        for place, path in ins.items():
            if isinstance(path, RemotePath):
                at = self._kept.stored(path)
                hashes[place] = at.sha256
                places.append((place, f"{PLACE}/{at.file}", at.mode))
                stored.append(at.file)
                continue
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
            "keep": wishes.keep,
        }
        return Prepared(line, key, list(files.values()), stored, spec)

    def _start(self, queue: CommandCalls, line: CommandLine, wishes: Wishes, stdin: In | None = None) -> CommandFuture:
        return queue.enter(self.prepared(line, wishes, stdin), wishes)

    def _queue(self, needs: Needs | None, where: str | None, retries: int) -> CommandCalls:
        check_number("retries", retries, 0)
        crew = self._crew(needs, where)
        with self._lock:
            at = (crew.service_id, retries)
            if at not in self._queues:
                queue = self._queues[at] = CommandCalls(crew, self._files, self._kept, self._having, retries)
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
