"""Finds changes between a capsule and now, and between two outputs. Pure.

Lives here: words about differences. Elsewhere: the facts (`record`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Changes that may make a second run differ, a line each: sources, Python, packages."""
    found = [
        f"{path} {'does not exist any more' if now['sources'].get(path) is None else 'has changed'}"
        for path, digest in then["sources"].items()
        if now["sources"].get(path) != digest
    ]
    for what in ("version", "implementation", "machine"):
        before, after = then["python"].get(what), now["python"].get(what)
        if before != after:
            found.append(f"Python's {what} was {before} and is {after}")
    for name, version in then["packages"].items():
        after = now["packages"].get(name)
        if after != version:
            found.append(f"{name} was {version} and is {after or 'not installed'}")
    return found


def outcome(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what a second run came out otherwise; empty if in nothing."""
    found = []
    if then["exit"] != now["exit"]:
        found.append(f"it ended with {then['exit']!r} and now with {now['exit']!r}")
    if then["output"]["sha256"] == now["output"]["sha256"]:
        return found
    if then["output"]["text"] is None or now["output"]["text"] is None:
        return [*found, "the output is another one (it was too long to be kept)"]
    pairs = zip_longest(then["output"]["text"].split("\n"), now["output"]["text"].split("\n"))
    for number, (before, after) in enumerate(pairs, 1):
        if before != after:
            return [*found, f"line {number} of the output was {_shown(before)} and is {_shown(after)}"]
    return [*found, "the output is another one"]


def _shown(line: str | None) -> str:
    return "not there" if line is None else repr(line if len(line) <= 200 else line[:197] + "...")
