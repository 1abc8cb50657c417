"""Errors of many hosts, told together: hosts with one cause are one line with their number.

Lives here: when two errors have one cause, the line that stands for both.
Elsewhere:  the errors (`errors.py`), when a grid tells of its hosts (`grids/absent.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SHOWN = 3
"""Names that a line lists before it counts the rest."""

_PARTICULAR = re.compile(r"\d+(\.\d+)*")
"""Numbers differ from host to host: addresses, processes, seconds. The cause is the same."""


def cause(error: object, *names: str) -> str:
    """What two errors have in common where their cause is one: the text without names and numbers of one host."""
    text = str(error)
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "*", text)  # host "d" is no part of "down"
    return _PARTICULAR.sub("#", text)


def listed(names: Iterable[str], shown: int = SHOWN) -> str:
    """`n1, n2, n3 and 27 more`."""
    known = list(dict.fromkeys(names))
    if len(known) <= shown + 1:
        return ", ".join(known)
    return f"{', '.join(known[:shown])} and {len(known) - shown} more"


def together(errors: Iterable[tuple[str, object]]) -> list[str]:
    """A text for each cause, in order of first appearance.

    Args:
        errors: (host, its error); an error's own text names its host, as those of `HostError` do.
    """
    groups: dict[str, list[tuple[str, object]]] = {}
    for host, error in errors:
        groups.setdefault(cause(error, host), []).append((host, error))
    lines = []
    for group in groups.values():
        text = str(group[0][1])
        if len(group) > 1:
            text = f"{len(group)} hosts with one cause ({listed(host for host, _ in group)}); {text}"
        lines.append(text)
    return lines
