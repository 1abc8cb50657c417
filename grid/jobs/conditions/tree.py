"""Conditions as JSON, to be sent and stored: a tree of operators over atoms.

    {"op": "and", "of": [{"atom": "completed", "id": "a1", "job": "job-1"}, {"op": "not", "of": [...]}]}

Lives here: `to_tree`, `from_tree`, `atoms_in`, `weigh`, `swapped`, `as_condition` (what users may write as `when=`).
Elsewhere:  the kinds of atoms (`atoms.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grid.jobs.conditions.algebra import And, Condition, Not, Or, all_of
from grid.jobs.conditions.atoms import KINDS, IsCompleted, IsFetched, KnownAtom
from grid.jobs.host.errors import ConditionError

DEPTH = 200
"""Operators inside each other, at most: alternating ones, since `a & b & c` is one."""

_OPERATORS: dict[str, type[Condition]] = {"and": And, "or": Or, "not": Not}


def to_tree(
    condition: Condition, depth: int = DEPTH, swap: Callable[[KnownAtom], KnownAtom] | None = None
) -> dict[str, Any]:
    """The condition as plain values.

    Args:
        swap: Gives the atom to be sent for each atom.
    Raises:
        ConditionError: It holds an atom that can't travel.
    """
    if depth == 0:
        raise ConditionError(f"a condition is nested deeper than {DEPTH}", hint="Make it flatter")
    if isinstance(condition, KnownAtom):
        condition = swap(condition) if swap is not None else condition
        return {"atom": condition.kind, "id": condition.id, **condition.arguments}
    for word, cls in _OPERATORS.items():
        if isinstance(condition, cls):
            return {"op": word, "of": [to_tree(operand, depth - 1, swap) for operand in condition.operands]}
    raise ConditionError(f"{condition} can't be sent to a server", hint="Build it of the atoms of grid.jobs")


def from_tree(
    tree: Any, make: Callable[[str, str, dict[str, Any]], KnownAtom] | None = None, depth: int = DEPTH
) -> Condition:
    """The condition of a tree.

    Args:
        make: Makes an atom of kind, id and arguments; the server has its own, to share atoms.
    Raises:
        ConditionError: It is no such tree; the message says which part.
    """
    if not isinstance(tree, Mapping) or depth == 0:
        raise ConditionError(f"{str(tree)[:80]!r} is no condition", hint="See docs/conditions.md")
    if "atom" in tree:
        # `state` is what a server tells of each part (`web/verdicts.py`): a tree that was read may be sent again
        arguments = {name: value for name, value in tree.items() if name not in ("atom", "id", "state")}
        kind, atom_id = tree["atom"], tree.get("id")
        if kind not in KINDS or not (atom_id is None or isinstance(atom_id, str)):
            raise ConditionError(f"no kind of condition is called {kind!r}", hint=f"There are {', '.join(KINDS)}")
        try:
            return (make or new_atom)(kind, atom_id or "", arguments)
        except TypeError as exc:
            raise ConditionError(f"a condition {kind!r} with wrong arguments ({exc})", hint="See docs") from exc
    operands, word = tree.get("of"), tree.get("op")
    if word not in _OPERATORS or not isinstance(operands, Sequence) or not operands:
        raise ConditionError(f"{str(tree)[:80]!r} is no condition", hint="It needs op (and, or, not) and of, a list")
    if word == "not" and len(operands) != 1:
        raise ConditionError(f"'not' of {len(operands)} conditions", hint="Give it one")
    return _OPERATORS[word](*(from_tree(operand, make, depth - 1) for operand in operands))


def atoms_in(tree: Any) -> list[Mapping[str, Any]]:
    """The atoms of a tree, as plain values."""
    found, waiting = [], [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            if "atom" in part:
                found.append(part)
            else:
                waiting += part.get("of") or ()
    return found[::-1]


@dataclass(frozen=True, kw_only=True)
class Most:
    """What a condition may hold."""

    atoms: int
    tests: int
    """Of atoms with an expression."""
    outside: int
    """Of atoms that fetch or connect."""
    text: int = 4_096
    """Characters of an argument."""


def weigh(tree: Any, most: Most) -> None:
    """Raise ConditionError for a tree that is too large to be built, saying what of it; nothing of it is built."""
    atoms = tests = outside = 0
    waiting: list[Any] = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping) and "atom" not in part:
            operands = part.get("of")
            waiting += operands if isinstance(operands, (list, tuple)) else ()
        atoms += 1
        if isinstance(part, Mapping):
            inner = part.get("what")
            for each in (part, inner if isinstance(inner, Mapping) else {}):
                tests += each.get("expression") is not None or each.get("where") is not None
                if any(isinstance(text, str) and len(text) > most.text for text in each.values()):
                    raise ConditionError(f"a text in a condition is longer than {most.text}", hint="Make it shorter")
            outside += part.get("atom") in ("fetched", "elsewhere")
        for count, limit, what in (
            (atoms, most.atoms, "parts"),
            (tests, most.tests, "expressions"),
            (outside, most.outside, "downloads and jobs elsewhere"),
        ):
            if count > limit:
                raise ConditionError(
                    f"a condition has more than {limit} {what}", hint="Split it: jobs may wait for jobs that wait"
                )


def swapped(condition: Condition, swap: Callable[[KnownAtom], KnownAtom]) -> Condition:
    """The same condition with other atoms."""
    if isinstance(condition, KnownAtom):
        return swap(condition)
    return type(condition)(*(swapped(operand, swap) for operand in condition.operands))


def new_atom(kind: str, atom_id: str, arguments: dict[str, Any]) -> KnownAtom:
    """A fresh atom of that kind."""
    return KINDS[kind](**arguments, id=atom_id or None)


def as_condition(when: Any) -> Condition | None:
    """What may be given as `when=` or `after=`: a condition, a job, a URL, or a list of these, which means all of them.

    Raises:
        ConditionError: It is none of these.
    """
    if when is None or isinstance(when, Condition):
        return when
    if isinstance(when, str):
        return IsFetched(when) if "://" in when or when.startswith("file:") else IsCompleted(when)
    if hasattr(when, "iscompleted"):
        condition: Condition = when.iscompleted
        return condition
    if isinstance(when, (list, tuple, set, frozenset)):
        return all_of([found for found in map(as_condition, when) if found is not None])
    raise ConditionError(
        f"{when!r} can't be waited for", hint="Give a condition, a job, a job's id, a URL, or a list of these"
    )
