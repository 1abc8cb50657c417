"""The life of a task system, as a table. Pure: it says what comes next, and is told what came of it.

    NEW ──Init──> HUNGRY ──Generate──> WORKING ──a task is finished──> ASKED ──Ask──> COMPLETE ──Gather──> ENDED
                     ^                  │ │ ^                            └───no──> WORKING
                     └────used up───────┘ │
                                          └──none came──> DOUBTED ──Ask──> COMPLETE
                                                             └───no──> STALLED

Lives here: `MOVES`, `SystemLife`; `live`, which calls a system's methods until it waits for its tasks; what is a task
            (`checked`), and telling one that it is finished (`hear`).
Elsewhere:  the systems of a master (`systems`), a system as a job (`service`), tasks that wait (`schedule`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Any
from weakref import WeakSet

from grid.errors import Stalled, TaskError
from grid.tasks.abstract import Task, TaskSystem, as_pair

logger = logging.getLogger(__name__)

Outcome = tuple[Any, BaseException | None]
"""A result, or the error that stands for it."""


class _Word(Enum):
    __hash__ = object.__hash__  # Enum's own is written in Python, and there are two moves for each task


class SystemStage(_Word):
    """Where a system is in its life."""

    NEW = auto()
    HUNGRY = auto()
    WORKING = auto()
    ASKED = auto()
    DOUBTED = auto()
    COMPLETE = auto()
    STALLED = auto()
    ENDED = auto()


class SystemEvent(_Word):
    """What happened to it."""

    INITIALISED = auto()
    GENERATED = auto()
    FINISHED = auto()
    """One of its tasks is finished, and the system has heard of it."""
    USED_UP = auto()
    """No task waits, none is under way, and nothing more comes of what it generated."""
    DRY = auto()
    """The same, and it generated nothing at all."""
    YES = auto()
    """It says that it is complete."""
    NO = auto()
    GATHERED = auto()


class SystemStep(Enum):
    """What comes next: a method of the system, by its name; or none, as it can't go on."""

    INIT = "init_system"
    GENERATE = "generate_tasks"
    ASK = "is_complete"
    GATHER = "gather_result"
    STALL = ""


MOVES = {
    (SystemStage.NEW, SystemEvent.INITIALISED): SystemStage.HUNGRY,
    (SystemStage.HUNGRY, SystemEvent.GENERATED): SystemStage.WORKING,
    (SystemStage.WORKING, SystemEvent.FINISHED): SystemStage.ASKED,
    (SystemStage.WORKING, SystemEvent.USED_UP): SystemStage.HUNGRY,
    (SystemStage.WORKING, SystemEvent.DRY): SystemStage.DOUBTED,
    (SystemStage.ASKED, SystemEvent.YES): SystemStage.COMPLETE,
    (SystemStage.ASKED, SystemEvent.NO): SystemStage.WORKING,
    (SystemStage.DOUBTED, SystemEvent.YES): SystemStage.COMPLETE,
    (SystemStage.DOUBTED, SystemEvent.NO): SystemStage.STALLED,
    (SystemStage.COMPLETE, SystemEvent.GATHERED): SystemStage.ENDED,
}

STEPS = {
    SystemStage.NEW: SystemStep.INIT,
    SystemStage.HUNGRY: SystemStep.GENERATE,
    SystemStage.ASKED: SystemStep.ASK,
    SystemStage.DOUBTED: SystemStep.ASK,
    SystemStage.COMPLETE: SystemStep.GATHER,
    SystemStage.STALLED: SystemStep.STALL,
}

_LEADS = {of: (to, STEPS.get(to)) for of, to in MOVES.items()}
# Where each task passes by: Python 3.11 takes longer to find a member in its class than to call a method.
FINISHED, _YES, _NO, _ASK = SystemEvent.FINISHED, SystemEvent.YES, SystemEvent.NO, SystemStep.ASK


class SystemLife:
    """Of one system; see the module.

    `finished`: how many of its tasks are. `step`: what comes next; None: nothing, until something happens.

    Args:
        finished: Of a system that goes on from a checkpoint; it has been initialised.
        has_begun: It has generated tasks before, so it may be complete: it is asked first.
    """

    def __init__(self, finished: int | None = None, *, has_begun: bool = False) -> None:
        self.finished = finished or 0
        self.stage = SystemStage.NEW if finished is None else SystemStage.ASKED if has_begun else SystemStage.HUNGRY
        self.step = STEPS.get(self.stage)

    def move(self, event: SystemEvent) -> None:
        """Something happened. What is not in the table is a bug."""
        leads = _LEADS.get((self.stage, event))
        assert leads is not None, f"{event} of a system that is {self.stage}"
        self.stage, self.step = leads
        if event is FINISHED:
            self.finished += 1


def live(life: SystemLife, system: TaskSystem, master: Any, generate: Callable[[TaskSystem], None]) -> Outcome | None:
    """Call methods of the system until it waits for its tasks (None) or has come to its end.

    What a method raises is raised here, and `life.step` says which one it was.

    Args:
        generate: Calls `generate_tasks` of the system, and keeps what it gives.
    """
    while (step := life.step) is not None:
        if step is _ASK:
            life.move(_YES if system.is_complete(master) else _NO)
        elif step is SystemStep.INIT:
            system.init_system(master)
            life.move(SystemEvent.INITIALISED)
        elif step is SystemStep.GENERATE:
            generate(system)
            life.move(SystemEvent.GENERATED)
        elif step is SystemStep.GATHER:
            outcome = as_pair(system.gather_result(master))
            life.move(SystemEvent.GATHERED)
            return outcome
        else:
            return None, Stalled(
                f"it is not complete after {life.finished} tasks, none is under way, and generate_tasks gave none",
                system_id=system.system_id,
                hint="Let is_complete become true, or generate tasks while it is false",
            )
    return None


def checked(task: object, key: str | None) -> Task:
    """A task of the system `key`, or a single one (None), made fit to be queued.

    Raises:
        TaskError: It is no task.
    """
    if type(task) not in _kinds and not _is_kind(task):
        raise TaskError(
            f"a {type(task).__name__} was given for a task ({task!r:.80})",
            system_id=key,
            hint="Tasks are instances of subclasses of grid.Task",
        )
    made: Task = task  # type: ignore[assignment]
    made.task_id  # noqa: B018 - makes it
    if made.system_id != key:
        made.__dict__["system_id"] = key
    return made


def hear(task: Task, result: Any, error: BaseException | None) -> None:
    """Tell a task that it is finished. What its `finished` raises is logged."""
    try:
        task.finished(result, error)
    except Exception:
        logger.exception("finished() of %r failed", task)


_kinds: WeakSet[type] = WeakSet()
"""Classes that were found to be tasks: isinstance of an abstract class takes a microsecond."""


def _is_kind(task: object) -> bool:
    if isinstance(task, Task):
        _kinds.add(type(task))
        return True
    return False
