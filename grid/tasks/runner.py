"""What is published so that tasks can run: on a server it takes packs of tasks, runs them, and answers for each.

An answer is (seconds, kind, ...): plain values as they are, all else serialised one by one, so that a result that can't
travel, or can't be rebuilt at the other end, is the affair of its task and not of the whole pack.

Hosts have this module, `abstract`, `command`, `life` and `service`, and nothing else of this package.

Lives here: running tasks, what an answer looks like.
Elsewhere:  who sends packs (`workers`), what a task is (`abstract`), stopping (`grid/kernel/stop.py`).
"""

from __future__ import annotations

import pickle
import time
from typing import Any

from grid.kernel.stop import heed
from grid.tasks.abstract import Task
from grid.wire import codec, raised

PLAIN, PACKED, ERROR = range(3)

_PLAIN_TYPES = frozenset({int, float, bool, str, bytes, complex, type(None)})
_MISSING = object()


class TaskStopped(BaseException):
    """Raised inside a task whose result nobody needs any more. Not an Exception: a task should not go on after it."""


class TaskRunner:
    """The published instance."""

    _ticket: int | None = None

    def register(self) -> tuple[str, int]:
        """Be ready for a request to stop; name of the machine, and process id."""
        return heed(lambda: self._ticket, lambda: TaskStopped("the system that this task belongs to is over"))

    def perform(self, tasks: list[Task], ticket: int = 0) -> list[tuple[Any, ...]]:
        """Run them in order; an answer for each, see the module. An order that names the ticket ends it early."""
        self._ticket = ticket
        try:
            return [perform(task) for task in tasks]
        finally:
            self._ticket = None


def perform(task: Task) -> tuple[Any, ...]:
    """Run one task here; its answer, see the module."""
    before = dict(task.__dict__)
    value, error = None, None
    began = time.perf_counter()
    try:
        value = task()
    except BaseException as exc:
        if isinstance(exc, TaskStopped) or (isinstance(exc, SystemExit) and type(exc) is not SystemExit):
            raise  # nobody needs it, or it is the kernel's own: this process is told to end
        error = exc
    seconds = time.perf_counter() - began
    try:
        task.clean_up()
    except Exception as exc:
        error = error or exc
    state: dict[str, Any] | None = task.__dict__
    if state is not None and _is_unchanged(before, state):
        state = None
    if error is None:
        if type(value) in _PLAIN_TYPES and (state is None or all(type(v) in _PLAIN_TYPES for v in state.values())):
            return seconds, PLAIN, value, state
        try:
            dumped = codec.dumps((value, state))
            return seconds, PACKED, dumped.data, [pickle.PickleBuffer(part) for part in dumped.buffers]
        except Exception as exc:
            error = _blame(task, value, state) or exc
    text = raised.text_of(error, __file__)
    return seconds, ERROR, raised.told(error, text), text


def _is_unchanged(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return len(before) == len(after) and all(
        before.get(key, _MISSING) is value and type(value) in _PLAIN_TYPES for key, value in after.items()
    )


def _blame(task: Task, value: Any, state: dict[str, Any] | None) -> Exception | None:
    """An error that names the part which can't travel back."""
    name = task.name or type(task).__name__
    for what, part in ((f"the result of task {name}", value), (f"what task {name} leaves on itself", state)):
        try:
            codec.dumps(part, what)
        except Exception as exc:
            return exc
    return None


def read_answer(answer: tuple[Any, ...], task: Task) -> tuple[Any, BaseException | None]:
    """At the master: (result, error) of a task, and what it left on itself is put there."""
    kind = answer[1]
    state: dict[str, Any] | None = None
    if kind == PLAIN:
        value, state = answer[2], answer[3]
    elif kind == PACKED:
        try:
            value, state = codec.loads(answer[2], answer[3])
        except Exception as exc:
            return None, exc
    else:
        return None, raised.heard(answer[2], answer[3])
    if state is not None:
        task.__dict__.clear()
        task.__dict__.update(state)
    return value, None
