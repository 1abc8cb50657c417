"""Which modules a pickle of protocol 5 refers to: what the other side must be able to import.

Each message to a host is asked, so there are two answers. A look for the bytes of a reference costs little, and may be
misled: in 5 MB of random bytes there is one in every twentieth time. Where that decides about something, the C
unpickler says which references it follows; it makes nothing of them.

Lives here: `may_mention`, `modules_in`. Elsewhere: whether these modules are there (`grids/needs.py`).
"""

from __future__ import annotations

import io
import itertools
import pickle
import re
from typing import Any

_REFERENCE = re.compile(rb"\x8c.([A-Za-z_][\w.]{0,254})\x94(?:\x8c.[^\x94]{1,255}|h.|j.{4})\x94?\x93", re.DOTALL)
_OURS = "__main__"


def may_mention(data: bytes) -> set[str]:
    """Modules whose members a pickle refers to, and words within its data that look so. May miss one whose name it
    also holds as data."""
    if b"\x93" not in data:
        return set()
    return {match.decode() for match in _REFERENCE.findall(data)} - {_OURS}


def modules_in(data: bytes) -> set[str]:
    """Modules whose members a pickle refers to, whatever its data look like."""
    if b"\x93" not in data:
        return set()
    reader = _Reader(data)
    try:
        reader.load()
    except Exception:  # a kind of reference that stand-ins can't play
        return may_mention(data) | reader.modules - {_OURS}
    return reader.modules - {_OURS}


class _Anything(type):
    """Can be called and filled like whatever it stands for."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls

    def __setitem__(cls, key: Any, value: Any) -> None:
        pass


class _StandIn(metaclass=_Anything):
    """For every class, function and object that a pickle names."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls

    @staticmethod
    def take(*args: Any) -> None:
        pass

    append = extend = add = __setstate__ = take


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), buffers=itertools.repeat(b""))
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.modules.add(module)
        return _StandIn

    def persistent_load(self, pid: Any) -> Any:
        return _StandIn
