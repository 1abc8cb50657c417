"""Expressions that try to cost much: hand-made monsters, and random ones of a grammar of our own.

    python -m tests.monsters 100000        each must be decided or refused within 50 ms of CPU and 10 MB; prints the
    worst

Lives here: the generator, what is measured.
Elsewhere:  the short run (`unit/test_expressions_enemy.py`), the long one (`scripts/nightly`).
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Iterator
from random import Random
from typing import Any

from grid.jobs.conditions.expressions import LENGTH, Expression
from grid.jobs.host.errors import ExpressionError

MOST_S = 0.05
MOST_BYTES = 10_000_000

RESULT: dict[str, Any] = {
    "x": 2,
    "y": -0.5,
    "big": 10**4000,
    "text": "ab" * 50_000,
    "wide": "\N{PILE OF POO}" * 100_000,
    "trace": [0.5 * n for n in range(100_000)],
    "counts": list(range(50_000)),
    "bigs": [7**5000 + n for n in range(2_000)],
    "table": [[float(n), "row"] for n in range(20_000)],
    "copy": [[float(n), "row"] for n in range(20_000)],
    "deep": None,
    "map": {f"key{n}": n for n in range(20_000)},
    "data": b"\0" * 1_000_000,
    "none": None,
    "odd": float("nan"),
}
for _ in range(60):
    RESULT["deep"] = [RESULT["deep"], RESULT["deep"]]  # 2**60 elements, if one walks all of them
for _ in range(1, 20):
    RESULT[f"n{_}"] = _

MONSTERS = (
    "x and [[0]*999999]*999999 == [[0.0]*999999]*999999",
    "sum([[0]*1000000]*1000000, [x])",
    "round(10**90000 + x, -99999999)",
    "round(x, -999999999)",
    "[[[0]*99]*9999]*999999 < [[[0.0]*99]*9999]*999999 and x",
    "[[[[x]*99]*99]*99]*99 == [[[[2.0]*99]*99]*99]*99",
    "9**9**9**x",
    "x**10**8",
    "(x**90000)**2 > 0",
    "big*big*big*big*big*big*big*big*big*big*big*big*big*big > 0",
    "'a' * x * 10**8",
    "('a' * 10**5 + text) * 10**4 == 0",
    "deep == deep",
    "deep < deep",
    "deep in deep",
    "[deep] == [deep]",
    "table == copy",
    "table < copy and copy < table",
    "max(table) == max(copy)",
    "sum(table, [])",
    "sum([table]*10000, [])",
    "max([bigs]*100000)",
    "sum(bigs*1000)",
    "max(bigs) % min(bigs)",
    "int('9'*1000000) == x",
    "float('9'*1000000) == x",
    "float(wide) == x",
    "int(text*100) == x",
    "wide in wide*100",
    "text*10 in text*10",
    "('a'*50000+'b') in ('a'*100000) or x",
    "map == map",
    "map[text] == x",
    "map[wide*10] == x",
    "map[big] == x",
    "trace[big] == x",
    "all([trace]*1000000) and x",
    "any([none]*10000000) or x",
    "abs(big**100) > x",
    "exp(big)+x",
    "log(big**1000) > x",
    "sqrt(big)+x",
    "isfinite(big**90)",
    "-(-(-(-(-(big**50))))) > x",
    "x if [[0]*10**6]*10**6 == 0 else [[0]*10**6]*10**6",
    "[trace, trace, trace]*100000 == [trace, trace, trace]*100000",
    "(trace*10 == trace*10) and x",
    "10**-99999999 + x",
    "(0.5)**(10**9) + x",
    "(10**9)**0.5 + x",
    "x % '%999999999d'",
    "'%999999999d' % x",
    "data*1000 == data*1000 or x",
    "max(data*100) == x",
    "min(wide) == x",
    "sum(map) == x",
    "len([[0]*10**9]*x)",
    "+".join(["x"] * 900),
    "(" * 1900 + "x",
    "-" * 1900 + "x",
    "not " * 400 + "x",
    "[" * 49 + "x" + "]" * 49 + "*9" * 40,
    " or ".join(["trace == bigs"] * 100),
    " and ".join(["trace == trace"] * 100),
    " or ".join(["max(counts) < 0"] * 100),
    "[" + ",".join(["trace*2"] * 200) + "] == x",
    "max(" + ",".join(["trace*2"] * 200) + ")",
    "x" + "*big" * 400,
    "x" + "**2" * 45,
    "(((((x**9)**9)**9)**9)**9)**9",
)

_NAMES = tuple(RESULT)
_FUNCTIONS = (
    "abs",
    "all",
    "any",
    "exp",
    "float",
    "int",
    "isfinite",
    "len",
    "log",
    "max",
    "min",
    "round",
    "sqrt",
    "sum",
)
_BINARY = ("+", "-", "*", "*", "*", "/", "//", "%", "**")
_COMPARE = ("==", "!=", "<", "<=", ">", ">=", "in", "not in", "is", "is not")
_ATOMS = (
    "0",
    "1",
    "2",
    "9",
    "-3",
    "0.5",
    "1e300",
    "999999",
    "10**6",
    "2**64",
    "10**90000",
    "'a'",
    "'key7'",
    "True",
    "inf",
)


def write(random: Random, depth: int) -> str:
    """A random expression."""
    if depth == 0 or random.random() < 0.08:
        return random.choice(_NAMES) if random.random() < 0.7 else random.choice(_ATOMS)

    def part() -> str:
        return write(random, depth - 1)

    kind = random.randrange(10)
    if kind < 4:
        return f"({part()} {random.choice(_BINARY)} {part()})"
    if kind == 4:
        return f"({part()} {random.choice(_COMPARE)} {part()})"
    if kind == 5:
        return f"({part()} {random.choice(('and', 'or'))} {part()})"
    if kind == 6:
        return f"{random.choice(_FUNCTIONS)}({', '.join(part() for _ in range(random.choice((1, 1, 2))))})"
    if kind == 7:
        return f"[{', '.join(part() for _ in range(random.randrange(1, 4)))}] * {part()}"
    if kind == 8:
        return f"{part()}[{part()}]"
    return f"({part()} if {part()} else {part()})"


def texts(count: int, seed: int = 0) -> Iterator[str]:
    """The monsters, then random expressions, of `count` in all; the same for the same seed."""
    yield from MONSTERS
    random = Random(seed)
    for _ in range(count - len(MONSTERS)):
        text = write(random, random.randrange(1, 7))
        yield text if len(text) <= LENGTH else text[:LENGTH]


def judge(text: str, value: Any = RESULT) -> str:
    """Parse and evaluate: what came of it."""
    try:
        return "true" if Expression(text)(value) else "false"
    except ExpressionError as exc:
        return "given up" if "was given up" in exc.what else "refused"


def measure(text: str) -> tuple[str, float, int]:
    """What came of it, CPU seconds of this thread, and bytes at the peak.

    The time is the best of a few: a collection of garbage of others is not its own, and a core that is shared with
    another thread of the processor is slow.
    """
    times = []
    for _ in range(6):
        began = time.thread_time()
        outcome = judge(text)
        times.append(time.thread_time() - began)
        if times[-1] < MOST_S / 2:
            break
    if times[-1] < 2e-4:  # 200 microseconds make no 10 MB of Python's objects
        return outcome, min(times), 0
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    judge(text)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return outcome, min(times), peak


def main(count: int, seed: int) -> int:
    """The long run."""
    seen: dict[str, int] = {}
    slowest, largest, wrong = (0.0, ""), (0, ""), 0
    for text in texts(count, seed):
        outcome, seconds, size = measure(text)
        seen[outcome] = seen.get(outcome, 0) + 1
        slowest, largest = max(slowest, (seconds, text)), max(largest, (size, text))
        if seconds > MOST_S or size > MOST_BYTES:
            wrong += 1
            print(f"TOO MUCH: {seconds * 1e3:.1f} ms, {size / 1e6:.1f} MB: {text[:300]}")
    print(f"{count} expressions, seed {seed}: {seen}")
    print(f"slowest {slowest[0] * 1e3:.1f} ms: {slowest[1][:200]}")
    print(f"largest {largest[0] / 1e6:.1f} MB: {largest[1][:200]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
