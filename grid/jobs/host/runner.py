"""Runs one job where it is published: the service's methods in a thread, its conversation with the manager beside it.

The manager asks, the runner answers: `exchange(incoming, wait_s)` takes in what came for the job, waits up to `wait_s`
for something to say, and returns it. So nothing but the calls of a grid lies between a job and its manager, on any kind
of grid, and a job deep in a computation is still heard.

To the job (`incoming`):            From the job (`events`):
    ("message", plain)                  ("message", plain)            Start, Progress, Log, Answer
    ("results", no, [(i, ok, value)])   ("improved", plain, loud)     the best so far; not loud: store it, say nothing
        not ok: as `wire/raised.py` has it
    ("suspend", reason)                 ("checkpoint", bytes)
                                        ("units", no, key, task, [(i, item)], attempts), ("unmap", no)
                                        ("kept", name, bytes)
                                        ("end", outcome, plain result, error, trace)

Lives here: `JobRunner`, the handler, the order of calls of a service, safe points.
Elsewhere:  what services may do (`service.py`), the manager's side (`grid/jobs/manager/execution.py`).
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from grid.commands.outcome import CommandRun
from grid.commands.portable import PortableCommand, perform
from grid.commands.template import values_of
from grid.jobs.host import messages
from grid.jobs.host.errors import RequestError
from grid.jobs.host.limits import Limited
from grid.jobs.host.messages import Message, dispatch, snake
from grid.jobs.host.names import safe_key
from grid.jobs.host.plain import from_plain, to_plain
from grid.jobs.host.service import AbortService, Service
from grid.jobs.host.units import Ordered, Outcomes, Units
from grid.jobs.host.worker import add_paths
from grid.text import clean
from grid.wire import raised
from grid.wire.dilling import the_dill

logger = logging.getLogger(__name__)

PROGRESS_S = 0.2
"""Least time between progress messages, and between partial results that are sent."""

KEEP_BYTES = 64 * 1024 * 1024
"""Largest output file."""

PARTIAL_BYTES = 64 * 1024 * 1024
"""Largest partial result, and largest answer: each goes to all listeners."""

_HOW = ("timeout_s", "shell", "check", "env", "keep_bytes")
"""Arguments of commands that are no values of fields."""

LOG_CHARS = 64 * 1024
"""Longest line of a job's log, and longest error; the rest is cut off, and the text says so."""


class JobRunner:
    """Published by the manager; each server of it runs one job at a time."""

    def __init__(self, paths: Sequence[str] = ()) -> None:
        self._paths = list(paths)
        self._job: RunningJob | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        add_paths(self._paths)

    def begin(self, service: type[Service], spec: dict[str, Any]) -> None:
        """Start a job.

        Args:
            spec: `job`, `request` (plain), `checkpoint` (bytes or None), `inputs` (a list or None), `attempt`,
                `checkpoint_s`, `best`.
        """
        if self._job is not None and self._job.thread.is_alive():
            raise RuntimeError(f"this runner still has {self._job.job}")
        self._job = RunningJob(service, spec)
        self._job.thread.start()

    def exchange(self, incoming: list[tuple[Any, ...]], wait_s: float) -> dict[str, Any]:
        """See the module. `ready_age`: seconds since the last safe point; `paused`: whether it waits there."""
        if self._job is None:  # this server has moved to another host: threads stay behind
            events = [("end", "suspended", None, "its server moved to another host", "")]
            return {"events": events, "ready_age": 0.0, "paused": False, "over_limit": None}
        return self._job.exchange(incoming, wait_s)

    def allocation_ends(self, seconds: float) -> None:
        """The batch job that this is in ends soon: have a checkpoint, and give the job back."""
        if self._job is not None:
            self._job.exchange([("suspend", f"its allocation ends in {seconds:.0f} s")], 0.0, keep=True)

    def __getstate__(self) -> dict[str, Any]:
        return {"_job": None, "_paths": self._paths}

    def finish(self) -> None:
        """The message of the end has arrived: wait for the job's thread."""
        if self._job is not None:
            self._job.thread.join(5.0)
            self._job = None

    def die(self) -> NoReturn:
        """End this process at once: its job does not listen."""
        os._exit(70)


class Stopped(BaseException):
    """`handler.stop(reason)`: the job ends itself with an error."""


class RunningJob:
    """A job at work, and the handler that its service is given."""

    def __init__(self, service: type[Service], spec: dict[str, Any]) -> None:
        self.job: str = spec["job"]
        self.attempt: int = spec["attempt"]
        self.input: Any = None
        self._spec = spec
        self._class = service
        self._service = service.__new__(service)
        Service.__init__(self._service)
        self._changed = threading.Condition()
        self._out: deque[tuple[Any, ...]] = deque()
        self._signals: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._signalling = threading.Thread(target=self._handle_signals, name=f"{self.job}-signals", daemon=True)
        self.maps: dict[int, Outcomes] = {}
        # unlike those of an earlier attempt, whose outcomes may still be under way
        self.numbers = itertools.count((self.attempt - 1) * 1_000_000 + 1)
        self._abort: str | None = None
        self._suspend = False
        self._over_limit: str | None = None
        self._paused = False
        self._checkpoint_now = False
        self._best: Any = spec.get("best")
        self._best_new = False
        self._best_told = True
        self._told_at = float("-inf")
        self._progress: Any = None
        self._progress_refused = False
        self._progress_at = float("-inf")
        self._checkpoint_at = self._ready_at = time.monotonic()
        self._waiting = False
        self._ended = False
        self._limited: Limited | None = None
        self.thread = threading.Thread(target=self._run, name=f"{self.job}-run", daemon=True)

    # -- the manager's side ----------------------------------------------------------------------------------------

    def exchange(self, incoming: list[tuple[Any, ...]], wait_s: float, keep: bool = False) -> dict[str, Any]:
        """See `JobRunner.exchange`; with `keep` only take in, what there is to say waits."""
        for what in incoming:
            self._take(what)
        if keep:
            return {}
        if self._limited is not None and self._over_limit is None:
            self._over_limit = self._limited.exceeded()
            if self._over_limit:
                self._ask_to_end(self._over_limit)
        with self._changed:
            if not self._out and not self._ended:
                self._changed.wait_for(lambda: self._out or self._ended, wait_s)
            events = list(self._out)
            self._out.clear()
            now = time.monotonic()
            if self._best_new or (not self._best_told and now - self._told_at >= PROGRESS_S):
                loud = not self._best_told and now - self._told_at >= PROGRESS_S
                events.insert(0, ("improved", self._best, loud))
                self._best_new = False
                if loud:
                    self._best_told, self._told_at = True, now
            age = 0.0 if self._waiting else now - self._ready_at
            paused = self._paused and self._waiting
            return {"events": events, "ready_age": age, "paused": paused, "over_limit": self._over_limit}

    def _take(self, what: tuple[Any, ...]) -> None:
        if what[0] == "message":
            self._hear(Message.from_plain(what[1]))
        elif what[0] == "results":
            with self._changed:
                current = self.maps.get(what[1])
                for index, ok, value in what[2] if current is not None else ():
                    assert current is not None
                    current.arrived(index, ok, value if ok else raised.heard(*value))
                self._changed.notify_all()
        elif what[0] == "suspend":
            self._suspend = self._checkpoint_now = True
            self._ask_to_end(what[1])

    def _ask_to_end(self, reason: str) -> None:
        with self._changed:
            self._abort = self._abort or reason
            self._changed.notify_all()

    def _hear(self, message: Message) -> None:
        if message.kind == "Abort":
            self._ask_to_end(message.fields.get("reason") or "asked to")
        elif message.kind in ("Pause", "Resume"):
            with self._changed:
                self._paused = message.kind == "Pause"
                self._changed.notify_all()
        elif message.kind == "Checkpoint":
            self._checkpoint_now = True
        elif self._signal_method(message) is not None:
            self._signals.put(message)
        else:
            self._service.queue.append(message)

    def _signal_method(self, message: Message) -> Callable[[Message], Any] | None:
        for name in (f"on_signal_{message.kind}", f"on_signal_{snake(message.kind)}"):
            method: Callable[[Message], Any] | None = getattr(self._service, name, None)
            if method is not None:
                return method
        return None

    def _handle_signals(self) -> None:
        """Thread: signal handlers, one after the other, beside `run`."""
        while (message := self._signals.get()) is not None:
            method = self._signal_method(message)
            assert method is not None
            try:
                method(message)
            except Exception as exc:
                self.log(f"the handler of the signal {message.kind} failed: {_said(exc)}", "error")

    def say(self, *event: Any) -> None:
        with self._changed:
            self._out.append(event)
            self._changed.notify_all()

    def _tell(self, message: Message) -> None:
        self.say("message", message.to_plain())

    # -- the handler -----------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """See `ServiceHandler`."""
        service, now = self._service, time.monotonic()
        self._ready_at = now
        while service.queue:
            message = service.queue.popleft()
            dispatch(service, message, "on_ready_", "on_ready_message")
        if self._checkpoint_now or now - self._checkpoint_at >= self._spec["checkpoint_s"]:
            self._take_checkpoint()
        if now - self._progress_at >= PROGRESS_S:
            self._report_progress(now)
        if self._paused:
            with self._changed:
                self._waiting = True
                self._changed.wait_for(lambda: not self._paused or self._abort is not None)
                self._waiting, self._ready_at = False, time.monotonic()
        if self._abort is not None:
            raise AbortService(self._abort)

    def _take_checkpoint(self) -> None:
        state = self._service.checkpoint()
        self._checkpoint_now = False
        if state is not None:
            # by itself and not by our codec: it must be readable in another process, after a restart
            self.say("checkpoint", the_dill().dumps(state, protocol=5, recurse=True))
        # also where there is none now: making up one's mind may be dear, and `ready` comes often
        self._checkpoint_at = time.monotonic()

    def _report_progress(self, now: float) -> None:
        found = self._service.progress()
        if found is None:
            return
        try:
            progress = checked_progress(found)
        except RequestError as exc:
            if not self._progress_refused:  # once: it is asked several times a second
                self._progress_refused = True
                self.log(f"the progress is not shown: {exc}", "error")
            return
        if progress != self._progress:
            self._progress, self._progress_at = progress, now
            k, n, units = progress
            self._tell(messages.Progress(k=k, n=n, units=units))

    def map(self, task: Callable[[Any], Any], items: Iterable[Any], *, attempts: int = 3) -> list[Any]:
        """See `ServiceHandler`."""
        return list(self.imap(task, items, attempts=attempts))

    def imap(self, task: Callable[[Any], Any], items: Iterable[Any], *, attempts: int = 3) -> Iterator[Any]:
        """See `ServiceHandler`."""
        if self._abort is not None:
            raise AbortService(self._abort)
        return Ordered(self, task, items, attempts, self._spec.get("workers", 0)).results()

    def command(
        self, template: str | Sequence[str], /, *, attempts: int = 3, keep: bool = False, **about: Any
    ) -> CommandRun:
        """See `ServiceHandler`."""
        values = about.pop("values", None) or {}
        [run] = self.map_commands(template, [values], attempts=attempts, keep=keep, **about)
        return run

    def map_commands(
        self,
        template: str | Sequence[str],
        inputs: Iterable[Any],
        /,
        *,
        attempts: int = 3,
        keep: bool = False,
        **about: Any,
    ) -> Iterator[CommandRun]:
        """See `ServiceHandler`."""
        how = {name: about.pop(name) for name in _HOW if name in about}
        common = {**(about.pop("values", None) or {}), **about}
        texts = [template] if isinstance(template, str) else list(template)
        commands = (PortableCommand.made(template, values_of(each, texts, common), **how) for each in inputs)
        kept: set[str] = set()
        for run in self.imap(perform, commands, attempts=attempts):
            for name, data in run.contents.items() if keep else ():
                if name in kept:
                    raise RequestError(
                        f"two commands wrote the file {name!r}, and the job has one of that name",
                        hint="Give their outputs different names, or keep them by handler.keep",
                    )
                kept.add(name)
                self.keep(name, data)
            yield run

    def units(self, task: Callable[[Any], Any], *, attempts: int = 3) -> Units:
        """See `ServiceHandler`."""
        return Units(self, task, attempts)

    # for `Ordered` and `Units`

    @property
    def ends_because(self) -> str | None:
        """Why it shall end; None: it shall not."""
        return self._abort

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until then, or until the job shall end; that counts as a safe point without messages."""
        for patience in (PROGRESS_S, None):
            with self._changed:
                self._waiting = True
                over = self._changed.wait_for(lambda: condition() or self._abort is not None, patience)
                self._waiting, self._ready_at = False, time.monotonic()
            if over:
                return
            self._report_progress(time.monotonic())  # what was too early at the last safe point

    def forget(self, number: int, *, drop: bool) -> None:
        """A map has ended; with `drop` some of its units are not needed."""
        if self.maps.pop(number, None) is not None and drop:
            self.say("unmap", number)

    def improved(self, value: Any) -> None:
        """See `ServiceHandler`."""
        plain = to_plain(value, "the partial result", PARTIAL_BYTES)
        with self._changed:
            self._best, self._best_new, self._best_told = plain, True, False
            self._changed.notify_all()

    def log(self, text: str, level: str = "info") -> None:
        """See `ServiceHandler`."""
        self._tell(messages.Log(level=clean(level, 20), text=clean(text, LOG_CHARS)))

    def keep(self, name: str, data: bytes | str) -> None:
        """See `ServiceHandler`."""
        safe_key(name, "name of a file")
        if not isinstance(data, (str, bytes, bytearray, memoryview)):
            raise RequestError(
                f"keep({name!r}, ...) was given a {type(data).__qualname__}", hint="Give bytes, or text: str(value)"
            )
        content = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(data)
        if len(content) > KEEP_BYTES:
            raise RequestError(
                f"the file {name!r} has {len(content):,} bytes", hint=f"A job keeps files of {KEEP_BYTES:,} at most"
            )
        self.say("kept", name, content)

    def answer(self, question: Message, value: Any) -> None:
        """See `ServiceHandler`."""
        self._tell(messages.Answer(to=question.fields.get("ask"), value=to_plain(value, "the answer", PARTIAL_BYTES)))

    def refuse(self, question: Message, why: str) -> None:
        """See `ServiceHandler`."""
        self._tell(messages.Answer(to=question.fields.get("ask"), value=None, error=clean(why, LOG_CHARS)))

    def stop(self, reason: str) -> NoReturn:
        """See `ServiceHandler`."""
        raise Stopped(reason)

    # -- the life of a service -------------------------------------------------------------------------------------

    def _run(self) -> None:
        outcome, value, error, trace = "error", None, "", ""
        entered = False
        service = self._service
        try:
            try:
                self._limited = Limited(self._class.limits)
                service.request = self._class.request_class.from_plain(self._spec["request"])
                service.handler = self
                if type(service).__init__ is not Service.__init__:
                    service.__init__()  # type: ignore[misc]  # its own; ours was called before signals could come
                blob = self._spec["checkpoint"]
                self._tell(messages.Start(attempt=self.attempt, restored=blob is not None))
                entered = True
                if blob is not None:
                    import dill

                    service.restore(dill.loads(blob))
                else:
                    service.prepare(service.request)
                self._ready_at = time.monotonic()
                self._signalling.start()  # not before: handlers use what prepare made
                value = to_plain(self._work(service), "the result")
                outcome = "complete"
            except AbortService as exc:
                error = clean(exc, LOG_CHARS)
                outcome = "suspended" if self._suspend else "error" if self._over_limit else "aborted"
            except Stopped as exc:
                error = clean(exc, LOG_CHARS) or "stopped by itself"
            except BaseException as exc:
                error, trace = _said(exc), _trimmed(exc)
        finally:
            try:
                if entered:
                    service.cleanup()
            except BaseException as exc:
                self.log(f"cleanup failed: {_said(exc)}\n{_trimmed(exc)}", "error")
            if self._limited is not None:
                self._limited.lift()
            self._signals.put(None)
            if self._signalling.ident is not None:
                self._signalling.join(5.0)
            if outcome == "complete":
                try:
                    self._report_progress(time.monotonic())
                except BaseException as exc:  # the result is there, and counts for more than this
                    self.log(f"progress() failed: {_said(exc)}", "error")
            with self._changed:
                if not self._best_told:
                    self._out.append(("improved", self._best, True))
                    self._best_told, self._best_new = True, False
                self._out.append(("end", outcome, value, error, trace))
                self._ended = True
                self._changed.notify_all()

    def _work(self, service: Service) -> Any:
        inputs = self._spec["inputs"]
        if inputs is None:
            return service.run(self)
        results = []
        for given in inputs:
            self.input = from_plain(given)
            results.append(service.run(self))
        return results


def checked_progress(found: Any) -> tuple[int | float, int | float, str]:
    """What `progress()` of a service returned: k, n, units.

    Raises:
        RequestError: It is something else; k or n is no finite number.
    """
    try:
        k, n, units = found
    except Exception as exc:
        said = clean(repr(type(found)), 100)
        raise RequestError(f"progress() returned a {said}", hint="Return (k, n, units), or None") from exc
    numbers = []
    for name, value in (("k", k), ("n", n)):
        number = to_plain(value, f"progress() {name}", 4096)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            shown = clean(next(iter(number.values())) if isinstance(number, dict) else number, 60)
            raise RequestError(f"progress() gave {name} = {shown}", hint="k and n are finite numbers")
        numbers.append(number)
    return numbers[0], numbers[1], clean(units, 60)


def _said(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {clean(exc, LOG_CHARS)}"


def _trimmed(exc: BaseException) -> str:
    """The traceback from the service's own code on."""
    frames = exc.__traceback__
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    try:
        return clean("".join(traceback.format_exception(type(exc), exc, frames, limit=-30)), LOG_CHARS)
    except Exception as again:  # an exception class may do anything when it is shown
        return f"(no traceback: it can't be shown, {type(again).__name__})"
