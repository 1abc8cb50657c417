"""Which home a server gets that has left its own: a pure rule.

The best is a home that lasts, with the most room. One that ends soon is rather taken than none, if nothing better is to
come. Where every home that there is has refused, because it lacks what the server needs, the server goes back to where
it came from, and so it does if there is no home and none to come: as long as that one lasts, it serves.

Lives here: `Lodging`, `where_to`.
Elsewhere:  asking homes, and the steps of a move (`mover.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

H = TypeVar("H")


@dataclass(frozen=True)
class Lodging(Generic[H]):
    """One home that is up, as a server sees it that looks for one."""

    home: H
    room: int  # servers of its service for which there are slots yet
    lasts: bool  # does not end soon
    ends_at: float = float("inf")
    origin: bool = False  # the server came from there
    refused: bool = False  # it can't have this server: known from a try


def where_to(lodgings: Iterable[Lodging[H]], *, anyway: bool, hopeless: bool) -> H | None:
    """The home for a server; None: it waits for a better one, or there is none.

    Args:
        anyway: A home that ends soon is good enough, though a better one may come.
        hopeless: No other home is to come.
    """
    every = list(lodgings)
    roomy = [each for each in every if each.room > 0 and not each.refused]
    others = [each for each in roomy if not each.origin]
    lasting = [each for each in others if each.lasts]
    if lasting:
        return max(lasting, key=lambda each: each.room).home
    if others:
        return max(others, key=lambda each: each.ends_at).home if anyway or hopeless else None
    if hopeless or any(each.refused for each in every):
        return next((each.home for each in roomy if each.origin), None)
    return None
