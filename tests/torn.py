"""Tear code off at every place where the interpreter looks for signals, one place at a time.

CPython runs the handlers of signals, which may raise, after calls and at the end of loops (bpo-29988; so `with` always
releases what it has taken). `sys.setprofile` is called at the same places, and what it raises goes the same way.

Lives here: `Tear`, `torn_at`, `lines_torn_at`. Elsewhere: what must hold afterwards (`test_torn_*`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import grid

HOME = str(Path(grid.__file__).parent)


class Tear(BaseException):
    """What a handler of a signal raised: it is no Exception, as KeyboardInterrupt and pytest's own are none."""


class Torn:
    """What happened: how many places there were, and where it was torn off."""

    def __init__(self, at: int) -> None:
        self.at, self.count, self.place = at, 0, ""


def _is_ours(frame: FrameType, files: tuple[str, ...]) -> bool:
    name = frame.f_code.co_filename
    return name.endswith(files) if files else name.startswith(HOME)


@contextmanager
def torn_at(number: int, *files: str) -> Iterator[Torn]:
    """Raise `Tear` at the place with this number (from 1) in grid's code, or in these files of it; 0 only counts."""
    torn = Torn(number)

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" or event == "c_exception" or not _is_ours(frame, files):
            return
        torn.count += 1
        if torn.count == torn.at:
            torn.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {event} in {frame.f_code.co_name}"
            raise Tear(torn.place)

    sys.setprofile(profile)
    try:
        yield torn
    except Tear:
        pass
    finally:
        sys.setprofile(None)


@contextmanager
def lines_torn_at(number: int, *files: str) -> Iterator[Torn]:
    """The same at every line and every byte code of these files, also where no signal can come."""
    torn = Torn(number)

    def trace(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if not _is_ours(frame, files):
            return None
        frame.f_trace_opcodes = True
        if event in ("line", "opcode"):
            torn.count += 1
            if torn.count == torn.at:
                torn.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
                raise Tear(torn.place)
        return trace

    # CPython 3.12 traces byte codes only if some frame had asked for them when `settrace` was called.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        yield torn
    except Tear:
        pass
    finally:
        sys.settrace(None)
