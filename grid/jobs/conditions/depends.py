"""A register of conditions and their atoms. It calls `ready()` or `cancel(reason)` once, when a condition is decided.

Each registered condition is compiled into a small network of counters, from its atoms upwards. An event walks only
from the atom to the conditions that hold it, and only as far as a value changes: 10,000 jobs on a chain cost one step
each, and one job that waits for 10,000 others costs one count per event.

A condition fires once. Later changes of its atoms, such as `~x` going back from T to F, are ignored for it.

Lives here: `Depends`.
Elsewhere:  values (`algebra.py`), the manager that owns one of these and feeds it (`manager/job_manager.py`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from grid.jobs.conditions.algebra import NOT, And, Atom, C, Condition, F, Not, Or, T, Value, and_value, or_value
from grid.jobs.conditions.reasons import join

logger = logging.getLogger(__name__)


class _Node:
    """One operation, or an atom, of one registered condition."""

    __slots__ = ("kind", "n", "n_cancelled", "n_true", "parent", "registration", "value")

    def __init__(self, kind: str, parent: _Node | None, registration: Registration) -> None:
        self.kind, self.parent, self.registration = kind, parent, registration
        self.value = F
        self.n = self.n_true = self.n_cancelled = 0

    def compute(self) -> Value:
        if self.kind == "and":
            return and_value(self.n_true, self.n_cancelled, self.n)
        if self.kind == "or":
            return or_value(self.n_true, self.n_cancelled, self.n)
        return NOT[T if self.n_true else C if self.n_cancelled else F]


class Registration:
    """A condition that waits; `unregister()` forgets it."""

    def __init__(self, depends: Depends, condition: Condition, ready: Callable[[], Any], cancel: Callable[[str], Any]):
        self.condition = condition
        self._depends, self._ready, self._cancel = depends, ready, cancel
        self.root: _Node | None = None
        self.nodes: list[tuple[str, _Node]] = []
        self.done = False

    def unregister(self) -> None:
        """Forget it; harmless if it has fired."""
        with self._depends._lock:
            self._depends._forget(self)

    def fire(self, value: Value) -> None:
        """Call back; errors are logged, and stay here."""
        try:
            if value is T:
                self._ready()
            else:
                reason = join(atom.reason for atom in self.condition.responsible())
                self._cancel(reason or f"{self.condition.text(8)} is cancelled")
        except Exception:
            logger.exception("a call-back for %s failed", self.condition)


class Depends:
    """The register; see the module. Atoms are started when they are first registered. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._nodes: dict[str, dict[int, _Node]] = {}  # atom id -> nodes that stand for it
        self._atoms: dict[str, Atom] = {}
        self._keys = itertools.count()
        self._together = 0
        self._touched: dict[Registration, None] = {}  # conditions of which atoms have changed in one event
        self.steps = 0
        """Nodes visited since the start: what events cost."""

    def register(self, condition: Condition, ready: Callable[[], Any], cancel: Callable[[str], Any]) -> Registration:
        """Call `ready()` when the condition becomes satisfied, or `cancel(reason)` when it can't be any more.

        One of them, once; here and now if it is decided already.
        """
        registration = Registration(self, condition, ready, cancel)
        with self._lock:
            fresh = []
            for atom in condition.depends:
                if atom.id not in self._atoms:
                    self._atoms[atom.id] = atom
                    atom.notify = self.notify
                    fresh.append(atom)
            self._nodes_of(registration, condition)
            assert registration.root is not None
        with self.together():
            for atom in fresh:
                atom.start()
        with self._lock:
            fires = self._settle(registration)
        if fires is not None:
            registration.fire(fires)
        return registration

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Atoms that change in this block do so in one event: no condition is decided before all of them have.

        One end of a job makes `job.iscompleted` cancelled and `job.failed` satisfied. Told one after another, they
        would satisfy `~job.iscompleted & job.failed` in one order, and cancel it in the other.
        """
        with self._lock:
            self._together += 1
        try:
            yield
        finally:
            with self._lock:
                self._together -= 1
                decided = self._decided()
            _fire(decided)

    def _decided(self) -> list[tuple[Registration, Value]]:
        """Under the lock: what has been decided, unless more of the event is to come."""
        if self._together:
            return []
        touched, self._touched = self._touched, {}
        return [(each, fires) for each in touched if (fires := self._settle(each)) is not None]

    def _nodes_of(self, registration: Registration, condition: Condition) -> None:
        # without recursion: a condition may be as deep as it likes
        waiting: list[tuple[Condition, _Node | None]] = [(condition, None)]
        order: list[_Node] = []
        while waiting:
            part, parent = waiting.pop()
            kinds = ((And, "and"), (Or, "or"), (Not, "not"))
            kind = next((word for cls, word in kinds if isinstance(part, cls)), "atom")
            node = _Node(kind, parent, registration)
            if parent is None:
                registration.root = node
            order.append(node)
            if isinstance(part, Atom):
                node.value = self._atoms[part.id].state
                key = next(self._keys)
                self._nodes.setdefault(part.id, {})[key] = node
                registration.nodes.append((part.id, node))
                node.n = key
            else:
                node.n = len(part.operands)
                waiting += [(operand, node) for operand in part.operands]
        for node in reversed(order):  # children come after their parents in `order`
            if node.kind != "atom":
                node.value = node.compute()
            if node.parent is not None:
                _count(node.parent, node.value, 1)

    def _settle(self, registration: Registration) -> Value | None:
        root = registration.root
        if root is None or registration.done or root.value is F:
            return None
        self._forget(registration)
        return root.value

    def _forget(self, registration: Registration) -> None:
        if registration.done:
            return
        registration.done = True
        for atom_id, node in registration.nodes:
            nodes = self._nodes.get(atom_id)
            if nodes is not None:
                nodes.pop(node.n, None)
                if not nodes:
                    del self._nodes[atom_id]
                    atom = self._atoms.pop(atom_id)
                    atom.end()
        registration.nodes = []

    def notify(self, atom: Atom) -> None:
        """An atom has changed: what atoms call."""
        self.resolve(atom.id)

    def resolve(self, atom_id: str, status: Value | None = None) -> int:
        """An atom has changed (to `status`, or to what it says itself): tell whoever's condition that decides.

        Notices about unknown atoms, and repeated ones, are ignored.

        Returns:
            How many conditions were decided.
        """
        with self._lock:
            atom = self._atoms.get(atom_id)
            if atom is None:
                return 0
            value = status or atom.state
            touched = list(self._nodes.get(atom_id, {}).values())
            for node in touched:
                self._walk(node, value)
            # only now: a condition may hold the atom twice, and be neither true nor false in between
            self._touched.update(dict.fromkeys(node.registration for node in touched))
            decided = self._decided()
        _fire(decided)
        return len(decided)

    def _walk(self, node: _Node, value: Value) -> None:
        while True:
            self.steps += 1
            if node.value is value:
                return
            before, node.value = node.value, value
            parent = node.parent
            if parent is None:
                return
            _count(parent, before, -1)
            _count(parent, value, 1)
            node, value = parent, parent.compute()

    def put(self, message: Any) -> None:
        """Take a notice of the stream `condition`: fields `atom` and `status` ('ready', 'cancelled' or 'pending')."""
        statuses = {"ready": T, "cancelled": C, "pending": F}
        if message.kind == "Notify" and message.status in statuses:
            self.resolve(message.atom, statuses[message.status])

    def __contains__(self, atom_id: object) -> bool:
        with self._lock:
            return atom_id in self._atoms

    def __len__(self) -> int:
        """How many atoms somebody waits for."""
        with self._lock:
            return len(self._atoms)


def _fire(decided: list[tuple[Registration, Value]]) -> None:
    for registration, value in decided:
        registration.fire(value)


def _count(node: _Node, value: Value, change: int) -> None:
    if value is T:
        node.n_true += change
    elif value is C:
        node.n_cancelled += change
