"""Runs forms on a LocalGrid and, as a witness, on joblib's loky, and prints what became of each as JSON lines.

Lives here: `form`, `value`, the ways, `main`. Elsewhere: the forms (`forms`, `heavy`), judging (`test_matrix.py`).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

LIMIT_S = 20


class Form:
    """One form: what runs on a server, or makes a value that travels."""

    def __init__(self, function: Callable[[], Any], look: Callable[[Any], Any] | None, stays: str) -> None:
        self.name, self.function, self.look, self.stays = function.__name__, function, look, stays


FORMS: list[Form] = []


def form(function: Any = None, *, stays: str = "") -> Any:
    """A function of the script that gives the same on a server."""
    if function is None:
        return lambda given: form(given, stays=stays)
    FORMS.append(Form(function, None, stays))
    return function


def value(look: Callable[[Any], Any]) -> Any:
    """A function of the script that makes something that goes there and comes back."""

    def note(function: Any) -> Any:
        FORMS.append(Form(function, look, ""))
        return function

    return note


def _published(function: Any, look: Any) -> Any:
    """An instance of a class of the script: its only method uses the form."""
    return sys.modules["__main__"].__dict__["_Published"](function, look)


PUBLISHED = """
class _Published:
    def __init__(self, function, look):
        self.function, self.look = function, look
    def run(self):
        return self.function()
    def see(self, given):
        return self.look(given)
def _see(look, given):
    return look(given)
"""


def attempts(each: Form, publishes: bool, grid: Any, executor: Any, loky: Any) -> Iterator[tuple[str, Any, Any]]:
    """(the way, the answer of grid, the answer of loky); an answer is the value or the exception."""
    space = sys.modules["__main__"].__dict__
    function, look = each.function, each.look

    told: list[Any] = []

    def by_loky(*call: Any) -> Any:
        if not told:
            told.append(_try(lambda: loky().submit(*call).result(LIMIT_S)) if loky is not None else None)
        return told[0]

    def publish(use: Callable[[Any], Any]) -> Any:
        sid = grid.publish(_published(function, look))
        try:
            with grid.acquire_service(sid) as proxy:
                return use(proxy)
        finally:
            grid.terminate(sid)

    if look is None:
        if publishes:
            yield "publish", _try(lambda: publish(lambda p: p.run().get(LIMIT_S))), by_loky(function)
        yield "executor", _try(lambda: executor.submit(function).result(LIMIT_S)), by_loky(function)
        return
    given, see = function(), space["_see"]
    if publishes:
        yield "argument", _try(lambda: publish(lambda p: p.see(given).get(LIMIT_S))), by_loky(see, look, given)
    answer = _try(lambda: executor.submit(see, look, given).result(LIMIT_S))
    yield "argument of a function", answer, by_loky(see, look, given)
    yield (
        "result",
        _try(lambda: look(executor.submit(function).result(LIMIT_S))),
        _try(lambda: look(loky().submit(function).result(LIMIT_S))) if loky is not None else None,
    )


def _try(use: Callable[[], Any]) -> Any:
    try:
        return use()
    except Exception as exc:
        return exc


def _verdict(each: Form, here: Any, answer: Any) -> str:
    """`right`; or what is wrong."""
    import re

    if isinstance(answer, Exception):
        text = f"{type(answer).__name__}: {answer}"
        if each.stays and re.search(each.stays, text) and "NameError" not in text:
            return "right"
        return text[:400]
    if each.stays:
        return f"it came, as {answer!r:.100}"
    return "right" if _plain(answer) == _plain(here) else f"{answer!r:.150} and not {here!r:.150}"


def _plain(value: Any) -> Any:
    return list(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def main() -> int:
    """Run all forms, or those whose names are given; 0, whatever becomes of them."""
    from grid import LocalGrid

    quick = "--quick" in sys.argv  # few are published: each of these is a process more
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    space = sys.modules["__main__"].__dict__
    exec(PUBLISHED, space)
    try:
        if "--no-loky" in sys.argv:
            raise ImportError
        from joblib.externals.loky import get_reusable_executor

        def loky() -> Any:
            return get_reusable_executor(max_workers=1, env={"MATRIX": "LOKY"}, timeout=60)
    except ImportError:
        loky = None  # type: ignore[assignment]
    watch = threading.Timer(600, lambda: os._exit(3))
    watch.daemon = True
    watch.start()
    with LocalGrid(1, output=None) as grid, grid.executor() as executor:
        for number, each in enumerate(FORMS):
            if wanted and each.name not in wanted:
                continue
            here = None if each.stays else each.function() if each.look is None else each.look(each.function())
            for way, ours, theirs in attempts(each, number % 5 == 0 or not quick, grid, executor, loky):
                row = {
                    "form": each.name,
                    "way": way,
                    "stays": each.stays,
                    "grid": _verdict(each, here, ours),
                    "loky": None if theirs is None else _verdict(each, here, theirs),
                }
                print(json.dumps(row), flush=True)
    if loky is not None:
        loky().shutdown(wait=True, kill_workers=True)
    return 0
