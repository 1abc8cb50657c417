"""Why a job can't run: the root cause and the last links of the chain that leads to it, however long the chain is.

A job that waits for a job that failed is cancelled; so is one that waits for that one, and so on. Each reason holds the
root cause and at most `LINKS` links, so that a chain of n jobs costs memory and store in proportion to n.

Lives here: `Reason`, `follow`, `join`.
Elsewhere:  who is cancelled when (`depends.py`, `atoms.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

from grid.text import clean

LINKS = 3
"""Links that a reason names beside the root cause."""

ROOT_CHARS = 500
"""Length of a root cause in the reasons of other jobs."""

CAUSES = 3
"""Causes that are named where a condition has several."""


class Reason(str):
    """A text that knows its parts. One that was stored and read again is a root cause like any other text."""

    root: str
    links: tuple[str, ...]
    """Newest first."""
    skipped: int
    """Links between the last of `links` and the root."""

    def __new__(cls, root: str, links: tuple[str, ...] = (), skipped: int = 0) -> Reason:
        between = [f"... {skipped:,} more ..."] if skipped else []
        made = super().__new__(cls, ": ".join([*links, *between, root]))
        made.root, made.links, made.skipped = root, links, skipped
        return made


def follow(link: str, reason: str) -> Reason:
    """The reason of what waits for a job: `link` says what became of that job, `reason` why."""
    if not isinstance(reason, Reason):
        return Reason(f"{link}: {clean(reason, ROOT_CHARS)}" if reason else link)
    links = (link, *reason.links)
    return Reason(reason.root, links[:LINKS], reason.skipped + max(0, len(links) - LINKS))


def join(reasons: Iterable[str]) -> str:
    """One reason of several; one alone stays as it is."""
    found = list(dict.fromkeys(reason for reason in reasons if reason))
    if len(found) <= 1:
        return found[0] if found else ""
    more = f"; and {len(found) - CAUSES:,} more" if len(found) > CAUSES else ""
    return "; ".join(found[:CAUSES]) + more
