"""The scheduler's state: tasks that wait, those that workers have, the next one. Pure: no clock, no thread, no socket.

    system A   front: back from a slave that was lost    source: its generator, read on demand
    system B   front: pushed by task_finished            source
    (single)   front                                     none
       │  one pack from each in turn
       v
    strategy ──> slave ──> Pack, under way until `settled`, `unsent` or `lost`

A pack holds tasks of one system and goes to one worker. Handing one out costs O(log n) in slaves and does not depend on
how many tasks wait: nothing walks a queue, and sources are read only when there is a slave for what comes.

Lives here: `Schedule`, its queues, the bounds on attempts.
Elsewhere:  sending (`scheduler`), what a system does with its results (`systems`), ratings (`strategies`).
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from grid.errors import StrategyError, TaskError
from grid.services.packing import Packing
from grid.tasks.abstract import Task, TaskScheduleStrategy
from grid.tasks.life import checked
from grid.tasks.limits import TaskLimits
from grid.tasks.slaves import Slave, SlaveRegistry

Key = str | None
"""Id of a system; None for single tasks."""


class TaskEntry:
    """A task on its way, and what happened to it."""

    __slots__ = ("alone", "losses", "sends", "suspect", "task", "tries")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.sends = 0  # sending it failed so often
        self.losses = 0  # its slave was lost so often
        self.tries = 0  # it raised so often
        self.alone = False  # travels in a pack of its own: something was wrong with the one that it was in
        self.suspect = False  # its server was lost: runs on a worker that has nothing else, so that a loss tells


@dataclass(eq=False)
class Pack:
    """Tasks that a slave has, or is about to get, in one call."""

    key: Key
    slave: Slave
    entries: list[TaskEntry]
    ticket: int = 0
    isolated: bool = False
    """Its worker gets nothing else while it has this."""
    worker: Any = None
    result: Any = None


@dataclass(frozen=True)
class Idle:
    """The system has no task waiting, none under way, and its source is used up. `dry`: it gave nothing at all."""

    key: str
    dry: bool


@dataclass(frozen=True)
class Failed:
    """The system's source raised, or gave what is no task."""

    key: str
    error: BaseException


class _Queue:
    """Of one system."""

    def __init__(self, key: Key, limits: TaskLimits) -> None:
        self.key = key
        self.front: deque[TaskEntry] = deque()
        self.source: Iterator[Any] | None = None
        self.running = 0
        self.got = 0  # tasks since the last generation began
        self.listed = False  # stands in the ring of systems that may have work
        self.packing = Packing(limits.pack_s, limits.largest_pack)
        self.barred: dict[str, BaseException] = {}  # slaves on which its tasks can't run

    def peek(self) -> TaskEntry | None:
        """The next task, taken from the source if need be."""
        while not self.front:
            if self.source is None:
                return None
            task = next(self.source, _GONE)
            if task is _GONE:
                self.source = None
                return None
            if task is not None:
                self.front.append(TaskEntry(checked(task, self.key)))
                self.got += 1
        return self.front[0]

    def take(self, count: int) -> list[TaskEntry]:
        """Up to `count` tasks that can travel together, at least one."""
        entries = [self.front.popleft()]
        if not entries[0].alone:
            while len(entries) < count:
                if (entry := self.peek()) is None or entry.alone:
                    break
                entries.append(self.front.popleft())
        return entries

    @property
    def left(self) -> int | None:
        """Tasks that wait, if that is known."""
        if self.source is None:
            return len(self.front)
        hint = operator.length_hint(self.source, -1)
        return None if hint < 0 else hint + len(self.front)


class Schedule:
    """See the module. Not thread-safe: the scheduler's thread owns it."""

    def __init__(self, strategy: TaskScheduleStrategy, registry: SlaveRegistry, limits: TaskLimits) -> None:
        self.strategy = strategy
        self.registry = registry
        self._limits = limits
        self._queues: dict[Key, _Queue] = {}
        self._ring: deque[_Queue] = deque()
        self._turns = 0
        self.workers = 0
        self.packs: dict[Pack, None] = {}
        """All that are under way."""

    # -- systems ---------------------------------------------------------------------------------------------------

    def open(self, key: Key) -> None:
        """A new system, with nothing to do yet."""
        self._queues[key] = _Queue(key, self._limits)

    def close(self, key: Key) -> list[Pack]:
        """A system has ended: drop its waiting tasks; return those under way, whose results will be ignored."""
        queue = self._queues.pop(key, None)
        if queue is not None:
            queue.front.clear()
            queue.source = None
        return [pack for pack in self.packs if pack.key == key]

    def knows(self, key: Key) -> bool:
        """Whether tasks of that system may be queued."""
        return key in self._queues

    def begin_generation(self, key: Key) -> None:
        """From here on it is counted whether tasks come."""
        self._queues[key].got = 0

    def feed(self, key: Key, tasks: Iterable[Any] | None) -> None:
        """The tasks that a system generated; read on demand.

        Raises:
            TaskError: It can't be iterated over.
        """
        queue = self._queues[key]
        try:
            queue.source = iter(() if tasks is None else tasks)
        except TypeError:
            raise TaskError(
                f"generate_tasks returned a {type(tasks).__name__}",
                system_id=key,
                hint="Return a list of tasks, or write it as a generator",
            ) from None
        self._list(queue)

    def push(self, key: Key, tasks: Iterable[Task]) -> None:
        """Tasks behind those that wait. They were `checked`."""
        queue = self._queues[key]
        before = len(queue.front)
        queue.front.extend(map(TaskEntry, tasks))
        queue.got += len(queue.front) - before
        self._list(queue)

    def push_front(self, key: Key, entries: Iterable[TaskEntry]) -> None:
        """Tasks that were on their way already, before those that wait."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.front.extendleft(reversed(list(entries)))
            self._list(queue)

    def _list(self, queue: _Queue) -> None:
        if not queue.listed:
            queue.listed = True
            self._ring.append(queue)

    def idle(self, key: Key) -> Idle | None:
        """What `next` would say if it came to this system now, if that is that it is idle."""
        queue = self._queues.get(key)
        if queue is None or key is None or queue.running or queue.front or queue.source is not None:
            return None
        return Idle(key, queue.got == 0)

    def waiting(self, key: Key) -> tuple[int | None, int]:
        """Tasks that wait (None: unknown), and tasks under way."""
        queue = self._queues.get(key)
        return (0, 0) if queue is None else (queue.left, queue.running)

    # -- handing out -----------------------------------------------------------------------------------------------

    def next(self) -> Pack | Idle | Failed | None:
        """What to do next; None: nothing, until something happens.

        Raises:
            StrategyError: The strategy failed, or its answer makes no sense.
        """
        blocked = 0
        while self._ring and blocked < len(self._ring):
            queue = self._ring[0]
            try:
                entry = queue.peek() if self._queues.get(queue.key) is queue else None
            except BaseException as exc:
                queue.source = None
                assert queue.key is not None
                return Failed(queue.key, exc)
            if entry is None:
                self._ring.popleft()
                queue.listed = False
                if (idle := self.idle(queue.key)) is not None:
                    return idle
                continue
            slave = self._choose(queue, entry)
            if slave is None:
                if entry.suspect or not queue.barred:
                    return None  # a suspect waits for a worker that is idle; others could keep them busy for ever
                blocked += 1  # another system may use the slaves that this one can't
                self._ring.rotate(-1)
                continue
            size = 1 if entry.task.prefers else queue.packing.take(self.workers, queue.left, slave.speed)
            try:
                entries = queue.take(size)
            except BaseException as exc:
                queue.source = None
                assert queue.key is not None
                return Failed(queue.key, exc)
            self._ring.rotate(-1)
            return self._give(queue, slave, entries)
        return None

    def _choose(self, queue: _Queue, entry: TaskEntry) -> Slave | None:
        aside: list[Slave] = []
        try:
            while (slave := self._ask(entry.task)) is not None:
                if slave.slave_id not in queue.barred and not (entry.suspect and slave.packs >= slave.workers):
                    break
                slave.aside = True
                self.strategy.changed(slave)
                aside.append(slave)
            return slave
        finally:
            for slave in aside:
                slave.aside = False
                self.strategy.changed(slave)

    def _ask(self, task: Task) -> Slave | None:
        strategy = self.strategy
        try:
            answer = strategy.get_next_slave_for(task)
        except StrategyError:
            raise
        except Exception as exc:
            raise StrategyError(
                f"the strategy {type(strategy).__name__} failed ({type(exc).__name__}: {exc})",
                hint="Its traceback is above this error's",
            ) from exc
        if answer is None:
            return None
        slave = self.registry.slaves.get(answer) if isinstance(answer, str) else None
        if slave is None or slave.room <= 0:
            having = [slave.slave_id for slave in self.registry.active() if slave.room > 0][:8]
            raise StrategyError(
                f"the strategy {type(strategy).__name__} named {answer!r}, which is no active slave with room",
                hint=f"It may name one of {having}, or None to wait" if having else "None has room: answer None",
            )
        return slave

    def _give(self, queue: _Queue, slave: Slave, entries: list[TaskEntry]) -> Pack:
        self._turns += 1
        pack = Pack(queue.key, slave, entries, self._turns, entries[0].suspect)
        slave.isolated += pack.isolated
        self.packs[pack] = None
        slave.turn = self._turns
        slave.packs += 1
        slave.ahead = self._ahead(queue)
        queue.running += len(entries)
        for entry in entries:
            entry.task.__dict__["slave_id"] = slave.slave_id
            self.pushed(slave)
        return pack

    def _ahead(self, queue: _Queue) -> int:
        # Where the end is in sight nothing waits behind what a slow slave runs, as a fast one may be free first.
        left = queue.left
        return 1 if left is not None and left <= 2 * self.workers else queue.packing.ahead(queue.packing.take())

    # -- counts ----------------------------------------------------------------------------------------------------

    def pushed(self, slave: Slave) -> None:
        """A slave got a task."""
        slave.running += 1
        self.strategy.changed(slave)

    def finished(self, slave: Slave) -> None:
        """A slave is done with a task."""
        if slave.running > 0:
            slave.running -= 1
            self.strategy.changed(slave)

    def rerate(self) -> None:
        """The registry changed."""
        self.workers = sum(slave.workers for slave in self.registry.active())
        self.strategy.rerate(list(self.registry.active()))

    # -- what becomes of a pack ------------------------------------------------------------------------------------

    def settled(self, pack: Pack, seconds: float | None) -> bool:
        """A pack came back, its tasks ran for `seconds`. True: its results count, and so will `finished` for each task.

        False: its system has ended, or it was given to others meanwhile; counts are right already.
        """
        if not self._off(pack):
            return False
        queue = self._queues.get(pack.key)
        if queue is None:
            self.uncount(pack)
            return False
        if seconds is None:
            return True
        expected = queue.packing.item_s
        pack.slave.done += len(pack.entries)
        queue.packing.took(len(pack.entries), seconds, 0.0)
        pack.slave.took(len(pack.entries), seconds, expected if expected is not None else seconds / len(pack.entries))
        pack.slave.ahead = self._ahead(queue)
        return True

    def _off(self, pack: Pack) -> bool:
        """It is not under way any more. False if it was given up before."""
        if self.packs.pop(pack, _GONE) is _GONE:
            return False
        pack.slave.packs = max(0, pack.slave.packs - 1)
        pack.slave.isolated -= pack.isolated
        self.strategy.changed(pack.slave)
        queue = self._queues.get(pack.key)
        if queue is not None:
            queue.running -= len(pack.entries)
            if queue.running == 0:
                self._list(queue)  # `next` looks whether it is idle
        return True

    def uncount(self, pack: Pack) -> None:
        """Its tasks count on their slave no more: they are dropped, or go elsewhere."""
        for _ in pack.entries:
            self.finished(pack.slave)

    def unsent(self, pack: Pack, error: BaseException, *, host: bool) -> list[TaskEntry]:
        """Sending failed. Back to the head of the queue; returns tasks for which that was once too often.

        Args:
            host: It is the host that can't run such tasks: others are tried.
        """
        if not self._off(pack):
            return []
        self.uncount(pack)
        queue = self._queues.get(pack.key)
        if queue is None:
            return []
        hopeless = False
        if host:
            queue.barred[pack.slave.slave_id] = error
            hopeless = all(slave.slave_id in queue.barred for slave in self.registry.active())
        kept: list[TaskEntry] = []
        given_up: list[TaskEntry] = []
        for entry in pack.entries:
            entry.sends += 1
            (given_up if hopeless or entry.sends >= self._limits.sends else kept).append(entry)
        self.push_front(pack.key, kept)
        return given_up

    def apart(self, pack: Pack) -> None:
        """The pack as a whole could not be sent or read: its tasks go one by one, so that the culprit shows."""
        if self._off(pack):
            self.uncount(pack)
            for entry in pack.entries:
                entry.alone = True
            self.push_front(pack.key, pack.entries)

    def lost(self, pack: Pack) -> list[TaskEntry]:
        """Its server was lost. Its tasks go to others, each to a worker of its own: one may be what kills servers.

        So a task that is not to blame is lost once at most. Returns tasks for which that was once too often. What the
        lost server still says is ignored.
        """
        if not self._off(pack):
            return []
        self.uncount(pack)
        kept: list[TaskEntry] = []
        given_up: list[TaskEntry] = []
        for entry in pack.entries:
            entry.losses += 1
            entry.alone = entry.suspect = True
            (given_up if entry.losses >= self._limits.losses else kept).append(entry)
        self.push_front(pack.key, kept)
        return given_up

    def slave_lost(self, slave_id: str) -> list[Pack]:
        """Packs of a slave that was lost, for `lost`."""
        return [pack for pack in self.packs if pack.slave.slave_id == slave_id]


_GONE: Any = object()
