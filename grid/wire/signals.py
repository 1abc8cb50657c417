"""Exceptions that handlers of signals raise: an alarm, a test's time limit, a handler of the user's own.

They come at any byte code of the main thread, also where grid catches what the user's values raise while they are
pickled. `except Exception` there must let them pass: they are not about the value.

Lives here: telling the two apart. Elsewhere: what is half done when they come (`link`, `session`).
"""

from __future__ import annotations

import signal
import threading
from types import CodeType
from typing import Any


def _code_of(handler: Any) -> CodeType | None:
    for _ in range(8):  # a partial of a bound method of ...
        code = getattr(handler, "__code__", None)
        if isinstance(code, CodeType):
            return code
        handler = getattr(handler, "func", None) or getattr(handler, "__func__", None) or type(handler).__call__
    return None


def came_by_signal(exc: BaseException) -> bool:
    """Whether a handler that is installed now has raised `exc`."""
    if threading.current_thread() is not threading.main_thread():
        return False
    frames, codes = exc.__traceback__, set()
    while frames is not None:
        codes.add(frames.tb_frame.f_code)
        frames = frames.tb_next
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler) and not isinstance(handler, signal.Handlers) and _code_of(handler) in codes:
            return True
    return False
