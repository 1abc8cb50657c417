"""The state of each part of a job's condition: the tree as it is stored, with a `state` for each part.

A job that has begun had its condition satisfied, whatever has become of the atoms since. So that is said of its whole
condition, and of the parts of which it follows; the others are what they are now.

Lives here: `with_states` (pure), `condition_of`.
Elsewhere:  the values of conditions (`jobs/conditions/algebra.py`), who sees them (`routes.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grid.jobs.conditions.algebra import NOT, C, Condition, T, Value, and_value, or_value
from grid.jobs.conditions.tree import from_tree
from grid.jobs.manager.job_manager import JobManager

_BEFORE = {"waiting", "cancelled"}
"""States of a job that has not begun, unless it has a time when it started."""


def with_states(tree: Mapping[str, Any], condition: Condition, decided: Value | None = None) -> dict[str, Any]:
    """The tree with what each part is: `state` is satisfied, pending or cancelled.

    Args:
        condition: What the tree says, as atoms that know how things stand.
        decided: What the whole was found to be; None: what follows from its parts.
    """
    op = tree.get("op")
    if op is None:
        return {**tree, "state": (decided or condition.state).value}
    # all of an `and` that was satisfied were, and all of an `or` that was cancelled; of the rest nothing follows
    follows = decided if (op, decided) in (("and", T), ("or", C)) else None
    parts = [with_states(*each, follows) for each in zip(tree["of"], condition.operands, strict=True)]
    return {"op": op, "of": parts, "state": (decided or _value(op, [part["state"] for part in parts])).value}


def _value(op: str, states: list[str]) -> Value:
    if op == "not":
        return NOT[Value(states[0])]
    counts = states.count(T.value), states.count(C.value), len(states)
    return and_value(*counts) if op == "and" else or_value(*counts)


def condition_of(manager: JobManager, job: Mapping[str, Any]) -> dict[str, Any]:
    """A job's condition with what each part is. A long one takes time, so this is not for under the manager's lock.

    Args:
        job: Its `id`, `state`, `started` and `condition` (a tree).
    """
    tree: dict[str, Any] = job["condition"]
    waiting = manager.conditions.waits_for(job["id"])
    if waiting is not None:
        return with_states(tree, waiting)
    condition = from_tree(tree)
    manager.conditions.look(condition)
    return with_states(tree, condition, T if job["started"] or job["state"] not in _BEFORE else None)
