"""Random generators that travel: all servers get the same one, and draw the same numbers, unless each is reseeded.

A new state is made from the old one and the number of the server, by SHA-256. So it is the same in every run where the
user gave a seed, also on a server that takes the place of a lost one, and generators that were alike stay alike.

Lives here: which objects are generators, whether a pickle may hold one, a state of its own for each server.
Elsewhere:  objects that are looked at one by one (`byvalue`, `mainimage`), who is told (`grids/`), when it is done
            (`kernel/serve.py`).
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import random
import sys
from collections.abc import Iterator
from typing import Any


def is_generator(kind: type) -> bool:
    """Whether objects of this type draw numbers from a state of their own."""
    if issubclass(kind, random.Random):
        return not issubclass(kind, random.SystemRandom)
    numpy = sys.modules.get("numpy.random")
    return numpy is not None and issubclass(kind, (numpy.BitGenerator, numpy.Generator, numpy.RandomState))


def may_hold(data: bytes) -> bool:
    """Whether a pickle names what makes a generator. It may say yes to one that only mentions it."""
    return any(word in data for word in (b"_generator_ctor", b"__randomstate_ctor", *_names(random.Random)))


def _names(kind: type) -> Iterator[bytes]:
    yield kind.__name__.encode()
    derived: list[type] = kind.__subclasses__()
    for below in derived:
        if below is not random.SystemRandom:
            yield from _names(below)


@contextlib.contextmanager
def reseeded(number: int | None) -> Iterator[None]:
    """Generators that come into this process within the block get a state for server `number`; None: they keep theirs.

    Raises:
        TypeError, ValueError, ...: What a generator of the user's own kind says to `seed`.
    """
    if number is None:
        yield
        return
    before = {id(each) for each in _here()}
    yield
    for generator in _here():
        if id(generator) not in before:
            _reseed(generator, number)


def _here() -> list[Any]:
    """All generators of this process that have a state. (Those of numpy have theirs in a bit generator.)"""
    known: dict[type, bool] = {}
    found = []
    for each in gc.get_objects():
        kind = type(each)
        wanted = known.get(kind)
        if wanted is None:
            wanted = known[kind] = is_generator(kind)
        if wanted:
            found.append(each)
    return sorted(found, key=_is_shell)  # what is cached in a shell is dropped when its bits are new


def _is_shell(generator: Any) -> bool:
    return hasattr(generator, "_bit_generator")


def _reseed(generator: Any, number: int) -> None:
    if isinstance(generator, random.Random):
        generator.seed(_seed(generator.getstate(), number))
    elif not _is_shell(generator):
        fresh = type(generator)(_seed(generator.state, number))
        generator.__setstate__(fresh.__getstate__())  # with the sequence from which it spawns others
    elif hasattr(generator, "get_state"):  # a RandomState keeps every second normal number
        state = generator.get_state(legacy=False)
        generator.set_state({**state, "has_gauss": 0, "gauss": 0.0})


def _seed(state: Any, number: int) -> int:
    digest = hashlib.sha256(f"grid.reseed:{number}:".encode())
    for part in _parts(state):
        digest.update(part + b";")
    return int.from_bytes(digest.digest()[:16], "big")


def _parts(state: Any) -> Iterator[bytes]:
    if isinstance(state, dict):
        for key in sorted(state):
            yield str(key).encode()
            yield from _parts(state[key])
    elif isinstance(state, (tuple, list)):
        for each in state:
            yield from _parts(each)
    elif hasattr(state, "tobytes"):
        yield state.tobytes()
    else:
        yield repr(state).encode()
