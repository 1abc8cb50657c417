"""Steps that must be whole, away from the main thread: no handler of a signal raises in another one.

What takes locks of Python (conditions, events), changes several tables, or waits with them, can't be made whole there
otherwise: an exception of the user's comes between any two of its byte codes. Calls and waiting for results are too
frequent for that, and are made whole where they stand (`wire/session.py`).

Lives here: `undisturbed`. Elsewhere: what is done so (`grids/`: publish, terminate).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def undisturbed(name: str, body: Callable[[], T], torn: Callable[[], None] | None = None) -> T:
    """Have `body()` done as a whole and return what it returns, or raise what it raises.

    In the main thread another one does it. An exception that comes meanwhile is raised at once; the body goes on, and
    `torn()` is called after it, in its thread, so that what nobody will hear of can be taken back.
    """
    if threading.current_thread() is not threading.main_thread():
        return body()
    outcome: list[Any] = []
    failure: list[BaseException] = []
    over = threading.Lock()  # and not an Event: its lock is Python's, which an exception can leave held
    over.acquire()
    begun = threading.Lock()
    left = False

    def run() -> None:
        if not begun.acquire(blocking=False):
            return  # it was started twice
        try:
            outcome.append(body())
        except BaseException as exc:
            failure.append(exc)
        finally:
            over.release()
            if left and torn is not None:
                torn()

    try:
        _start(name, run)
        over.acquire()
    except BaseException:
        left = True
        if over.acquire(blocking=False) and torn is not None:  # it was just through, and has not seen that we left
            _start(name, torn)
        raise
    if failure:
        try:
            raise failure[0]
        finally:
            failure.clear()  # no cycle of traceback and frame
    result: T = outcome[0]
    return result


def _start(name: str, run: Callable[[], None]) -> None:
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:  # Python 3.12 starts no thread once the interpreter ends
        run()
