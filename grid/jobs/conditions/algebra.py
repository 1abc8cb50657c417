"""Three-valued conditions: satisfied (T), pending (F), cancelled (C: they can't be satisfied any more).

    left right   &   |        ~T = F, ~F = T, ~C = C
     T     T     T   T
     T     F     F   T        Asking `.ready` of a cancelled one raises Condition.Cancelled,
     F     F     F   F        `.cancelled` never raises, `.state` never raises.
     T     C     C   T
     F     C     C   F        All of it is symmetric.
     C     C     C   C

Lives here: `Condition`, `And`, `Or`, `Not`, `Atom`, the tables for any number of operands.
Elsewhere:  kinds of atoms (`atoms.py`), when somebody is told (`depends.py`).
"""

from __future__ import annotations

import enum
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

from grid.jobs.host.errors import ConditionError, JobError, WaitTimeout

if TYPE_CHECKING:
    from typing_extensions import Self


class Value(enum.Enum):
    """What a condition is."""

    T = "satisfied"
    F = "pending"
    C = "cancelled"


T, F, C = Value.T, Value.F, Value.C


class Cancelled(JobError):
    """The condition can't be satisfied any more. `atoms`: those that caused it; `reasons`: why, for each."""

    atoms: tuple[Atom, ...]
    reasons: tuple[str, ...]

    def __reduce__(self) -> tuple[Any, ...]:  # atoms stay at home
        return Cancelled, (self.what,)


def and_value(n_true: int, n_cancelled: int, n: int) -> Value:
    """Of `n` operands `n_true` are T, and `n_cancelled` are C."""
    return C if n_cancelled else T if n_true == n else F


def or_value(n_true: int, n_cancelled: int, n: int) -> Value:
    """As `and_value`."""
    return T if n_true else C if n_cancelled == n else F


NOT = {T: F, F: T, C: C}


class Condition:
    """Something to wait for. Combine with `&`, `|` and `~` (or unary minus)."""

    Cancelled = Cancelled
    __slots__ = ()

    @property
    def state(self) -> Value:
        """T, F or C; never raises.

        Atoms that ask a server are asked one after another, and a job may end in between. So they are asked again
        until none has changed: what is decided stays, so that such a round saw them all at one time.
        """
        atoms = self.depends
        while True:
            before = [atom._state for atom in atoms]
            found = self._look()
            if [atom._state for atom in atoms] == before:
                return found

    def _look(self) -> Value:
        """The state, by one look at each atom."""
        raise NotImplementedError

    @property
    def operands(self) -> tuple[Condition, ...]:
        """Its operands; an atom has none."""
        return ()

    @property
    def depends(self) -> frozenset[Atom]:
        """All atoms in it."""
        found: set[Atom] = set()
        waiting: list[Condition] = [self]
        while waiting:
            condition = waiting.pop()
            if isinstance(condition, Atom):
                found.add(condition)
            waiting += condition.operands
        return frozenset(found)

    @property
    def ready(self) -> bool:
        """Whether it is satisfied.

        Raises:
            Condition.Cancelled: It can't be satisfied any more; `.atoms` are those responsible.
        """
        state = self.state
        if state is C:
            culprits = tuple(self.responsible())
            reasons = tuple(atom.reason or f"{atom} is cancelled" for atom in culprits)
            raise Cancelled(
                f"{self.text(5)} can't be satisfied any more: {'; '.join(reasons[:5])}", atoms=culprits, reasons=reasons
            )
        return state is T

    @property
    def cancelled(self) -> bool:
        """Whether it can't be satisfied any more."""
        return self.state is C

    def responsible(self) -> list[Atom]:
        """The atoms that decide it; for a pending one those that it still waits for."""
        raise NotImplementedError

    def explain(self) -> str:
        """In words: its value and the atoms responsible for it, one a line."""
        atoms = self.responsible()
        lines = [f"{self.text()} is {self.state.value}"]
        for atom in atoms:
            why = f": {atom.reason}" if atom.reason else ""
            lines.append(f"  {atom} is {atom.state.value}{why}")
        return "\n".join(lines)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is satisfied.

        Raises:
            Condition.Cancelled: It can't be any more.
            TimeoutError: Not within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.01
        while not self.ready:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise WaitTimeout(f"{self.text(5)} is still pending after {timeout:g} s", hint="It goes on")
            self._pause(pause if left is None else min(pause, left))
            pause = min(0.5, pause * 1.5)

    def _pause(self, seconds: float) -> None:
        """Wait until one of its atoms changes, or the time is up."""
        atoms = self.depends
        signal = threading.Event()
        for atom in atoms:
            atom._watchers.append(signal.set)
        try:
            signal.wait(seconds)  # atoms that are probes of another process tell nobody: look again
        finally:
            for atom in atoms:
                atom._watchers.remove(signal.set)

    def __await__(self) -> Generator[Any, None, None]:
        import asyncio

        return asyncio.to_thread(self.wait).__await__()

    def text(self, most: int | None = None) -> str:
        """As a formula, of at most `most` operands."""
        raise NotImplementedError

    def __and__(self, other: Condition) -> Condition:
        return And(*_spread(And, self), *_spread(And, other)) if isinstance(other, Condition) else NotImplemented

    def __or__(self, other: Condition) -> Condition:
        return Or(*_spread(Or, self), *_spread(Or, other)) if isinstance(other, Condition) else NotImplemented

    def __invert__(self) -> Condition:
        return Not(self)

    __neg__ = __invert__

    def __bool__(self) -> bool:
        raise TypeError("conditions are combined with &, | and ~; ask .ready, .cancelled or .state of one")

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<{self.text(8)}: {self.state.name}>"


def _spread(kind: type[_Many], condition: Condition) -> tuple[Condition, ...]:
    """`a & b & c` is one And of three: neither depth nor time grows with the square."""
    return condition.operands if type(condition) is kind else (condition,)


class _Many(Condition):
    __slots__ = ("_operands",)
    word = ""

    def __init__(self, *operands: Condition) -> None:
        if not operands:
            raise ConditionError(f"{type(self).__name__} of nothing", hint="Give it one condition at least")
        for operand in operands:
            if not isinstance(operand, Condition):
                raise ConditionError(f"{operand!r} is no condition", hint="Use job.iscompleted and the like")
        self._operands = operands

    @property
    def operands(self) -> tuple[Condition, ...]:
        return self._operands

    def text(self, most: int | None = None) -> str:
        shown = [operand.text(most) for operand in self._operands[:most]]
        if most is not None and len(self._operands) > most:
            shown.append(f"... {len(self._operands) - most} more")
        return f"({f' {self.word} '.join(shown)})"

    def _counts(self) -> tuple[int, int, int]:
        states = [operand._look() for operand in self._operands]
        return states.count(T), states.count(C), len(states)


class And(_Many):
    """All of them, written `a & b`: cancelled as soon as one operand is, satisfied once all are (`and_value`)."""

    __slots__ = ()
    word = "and"

    def _look(self) -> Value:
        return and_value(*self._counts())

    def responsible(self) -> list[Atom]:
        """The atoms that decide the state: of those operands that have it."""
        state = self.state
        return _unique(operand.responsible() for operand in self._operands if operand.state is state)


class Or(_Many):
    """One of them, written `a | b`: satisfied as soon as one operand is, cancelled once all are (`or_value`)."""

    __slots__ = ()
    word = "or"

    def _look(self) -> Value:
        return or_value(*self._counts())

    def responsible(self) -> list[Atom]:
        """The atoms that decide the state: of those operands that have it."""
        state = self.state
        return _unique(operand.responsible() for operand in self._operands if operand.state is state)


class Not(Condition):
    """Not (yet) satisfied, written `~a`; cancelled if it is."""

    __slots__ = ("_operand",)

    def __init__(self, operand: Condition) -> None:
        self._operand = operand

    @property
    def operands(self) -> tuple[Condition, ...]:
        """The one that is negated."""
        return (self._operand,)

    def _look(self) -> Value:
        return NOT[self._operand._look()]

    def responsible(self) -> list[Atom]:
        """The atoms that decide its operand."""
        return self._operand.responsible()

    def text(self, most: int | None = None) -> str:
        """`(not ...)`, at most about `most` characters of the operand."""
        return f"(not {self._operand.text(most)})"


def _unique(lists: Iterable[list[Atom]]) -> list[Atom]:
    return list(dict.fromkeys(itertools.chain.from_iterable(lists)))


_ids = itertools.count(1)


class Atom(Condition):
    """A condition with work behind it: `start` begins the work, which says `satisfy()` or `cancel(reason)` at its end.

    Equal by id; the id travels with it and outlives a restart of the server.
    """

    notify: Callable[[Atom], None] | None = None
    """Called after each change. The register sets it, on the class (for all) or on one."""

    def __init__(self, id: str | None = None) -> None:
        self.id = id or f"a{next(_ids)}"
        self._state = F
        self._watchers: list[Callable[[], None]] = []
        self._started = False
        self.reason = ""
        """Why it is cancelled, or what it waits for."""

    def start(self) -> None:
        """Begin the work that will satisfy it, once; what takes time goes to a thread. The manager calls it."""
        if not self._started:
            self._started = True
            self._begin()

    def _begin(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how its work begins")

    def end(self) -> None:
        """Nobody waits for it any more."""

    @property
    def state(self) -> Value:
        """Its state now; it changes once, from open to satisfied or cancelled."""
        return self._look()

    def _look(self) -> Value:
        return self._state

    @property
    def depends(self) -> frozenset[Atom]:
        """Itself: it depends on nothing else."""
        return frozenset((self,))

    def responsible(self) -> list[Atom]:
        """Itself."""
        return [self]

    def decide(self, value: Value, reason: str) -> None:
        """It is that from now on."""
        self._become(value, reason)

    def satisfy(self) -> None:
        """It is T from now on."""
        self._become(T, "")

    def cancel(self, reason: str) -> None:
        """It is C from now on."""
        self._become(C, reason)

    def _become(self, state: Value, reason: str) -> None:
        if self._state is state:
            return
        self._state, self.reason = state, reason
        for watcher in list(self._watchers):
            watcher()
        if self.notify is not None:
            self.notify(self)

    def text(self, most: int | None = None) -> str:
        """Its id; kinds with better words have their own."""
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Atom) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __copy__(self) -> Self:
        return self


def all_of(conditions: Iterable[Condition]) -> Condition | None:
    """Their conjunction; None of none."""
    found = list(conditions)
    return None if not found else found[0] if len(found) == 1 else And(*found)
