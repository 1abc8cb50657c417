"""Expressions over the values of a result: `rss < 0.1 and steps > 3`.

The language is a small part of Python's: names, numbers, texts, comparisons, `and or not`, arithmetic, `a[0]`,
`a["b"]`, `a.b` (the same for dicts), and the functions in `FUNCTIONS`. Nothing else parses; nothing can be called,
imported or changed, and no expression takes long: each is given a budget of work (`work.py`), and ends with an error
when it is spent.

A result that is a dict gives its keys as names; any result is also `value`.

Lives here: `Expression`.
Elsewhere:  what operations cost (`work.py`), when an expression is asked (`atoms.IsResult`).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any

from grid.jobs.conditions.work import FUNCTIONS, STEP, TooMuch, Work, truth
from grid.jobs.host.errors import ExpressionError

LENGTH = 2000
"""Characters of an expression, at most."""
DEPTH = 50
"""Of what stands within what. Older parsers take exponential time for deeper brackets, so these are counted before."""
_NAMES = 20  # of a result, that a message shows

_CONSTANTS = {"True": True, "False": False, "None": None, "inf": math.inf, "nan": math.nan, "pi": math.pi}

_BINARY: dict[type[ast.operator], Callable[[Work, Any, Any], Any]] = {
    ast.Add: Work.add,
    ast.Sub: Work.subtract,
    ast.Mult: Work.multiply,
    ast.Div: Work.divide,
    ast.FloorDiv: Work.floor,
    ast.Mod: Work.modulo,
    ast.Pow: Work.power,
}
_UNARY: dict[type[ast.unaryop], Callable[[Work, Any], Any]] = {
    ast.USub: Work.negate,
    ast.UAdd: Work.plus,
    ast.Not: lambda work, value: not truth(value),
}
_COMPARE: dict[type[ast.cmpop], Callable[[Work, Any, Any], bool]] = {
    ast.Eq: Work.equal,
    ast.NotEq: Work.differs,
    ast.Lt: Work.less,
    ast.LtE: Work.less_or_equal,
    ast.Gt: Work.greater,
    ast.GtE: Work.greater_or_equal,
    ast.In: Work.contains,
    ast.NotIn: Work.lacks,
    ast.Is: lambda work, a, b: a is b,
    ast.IsNot: lambda work, a, b: a is not b,
}


class Expression:
    """A parsed expression. `names`: what it wants to know.

    Raises:
        ExpressionError: It does not parse, names nothing, or holds what may not be evaluated; the message says where.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text.strip():
            raise ExpressionError(f"an expression must be text, not {text!r}", hint="For example: rss < 0.1")
        if len(text) > LENGTH:
            raise ExpressionError(f"the expression has {len(text)} characters", hint=f"At most {LENGTH} are allowed")
        self.text = text.strip()
        if _brackets(self.text) > DEPTH:
            raise ExpressionError(f"the expression {self.text!r} is nested too deeply", hint="Make it simpler")
        try:
            self._tree = ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
            place = f" at column {exc.offset}" if isinstance(exc, SyntaxError) and exc.offset else ""
            raise ExpressionError(
                f"the expression {self.text!r} does not parse{place}", hint="For example: rss < 0.1 and steps > 3"
            ) from None
        self.names = frozenset(self._check(self._tree, DEPTH))
        if not self.names:
            raise ExpressionError(f"the expression {self.text!r} names nothing", hint="Name a value of the result")

    def _check(self, node: ast.AST, depth: int) -> set[str]:
        if depth == 0:
            raise ExpressionError(f"the expression {self.text!r} is nested too deeply", hint="Make it simpler")
        names: set[str] = set()
        children: list[ast.AST] = []
        if isinstance(node, ast.Name):
            if node.id not in _CONSTANTS:
                names.add(node.id)
        elif isinstance(node, ast.Constant):
            if not isinstance(node.value, (bool, int, float, str, type(None))):
                raise self._refuse(node)
        elif isinstance(node, ast.BoolOp):
            children = list(node.values)
        elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            children = [node.left, node.right]
        elif isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            children = [node.operand]
        elif isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
            children = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
            children = [node.value, node.slice]
        elif isinstance(node, ast.Attribute) and not node.attr.startswith("_"):
            children = [node.value]
        elif isinstance(node, (ast.List, ast.Tuple)):
            children = list(node.elts)
        elif isinstance(node, ast.IfExp):
            children = [node.test, node.body, node.orelse]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            if node.func.id not in FUNCTIONS:
                raise self._refuse(node)
            children = list(node.args)
        else:
            raise self._refuse(node)
        for child in children:
            names |= self._check(child, depth - 1)
        return names

    def _refuse(self, node: ast.AST) -> ExpressionError:
        part = ast.get_source_segment(self.text, node) if hasattr(node, "lineno") else None
        return ExpressionError(
            f"the expression {self.text!r} may not hold {part or type(node).__name__!r}",
            hint=f"Allowed are comparisons, arithmetic, and {', '.join(sorted(FUNCTIONS))}",
        )

    def __call__(self, value: Any, work: Work | None = None) -> Any:
        """Evaluate it with a result's values.

        Args:
            work: What it may cost; default: `work.UNITS`.
        Raises:
            ExpressionError: A name is missing, the operands do not fit, or it takes too much work.
        """
        work = Work() if work is None else work
        try:
            found = self._value(self._tree, value, work)
            truth(found)  # the question is whether it holds
            return found
        except ExpressionError:
            raise
        except TooMuch as exc:
            raise ExpressionError(
                f"the expression {self.text!r} was given up: {exc}", hint="Compute it in the job, as part of its result"
            ) from None
        except (MemoryError, RecursionError) as exc:
            raise ExpressionError(
                f"the expression {self.text!r} can't be evaluated ({type(exc).__name__})", hint="Make it simpler"
            ) from None
        except Exception as exc:
            why = str(exc.args[0] if exc.args else "")[:200]
            raise ExpressionError(
                f"the expression {self.text!r} can't be evaluated ({type(exc).__name__}: {why})",
                hint=f"The result has {_names(value)}",
            ) from exc

    def _value(self, node: ast.AST, given: Any, work: Work) -> Any:
        work.spend(STEP)
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            if isinstance(given, Mapping) and node.id in given:
                return given[node.id]
            if node.id == "value":
                return given
            if node.id in _CONSTANTS:
                return _CONSTANTS[node.id]
            raise ExpressionError(
                f"the expression {self.text!r} names {node.id!r}, which the result has not",
                hint=f"It has {_names(given)}",
            )
        if isinstance(node, ast.BoolOp):
            stop = isinstance(node.op, ast.Or)
            found: Any = not stop
            for operand in node.values:
                found = self._value(operand, given, work)
                if truth(found) is stop:
                    return found
            return found
        if isinstance(node, ast.BinOp):
            left, right = self._value(node.left, given, work), self._value(node.right, given, work)
            return _BINARY[type(node.op)](work, left, right)
        if isinstance(node, ast.UnaryOp):
            return _UNARY[type(node.op)](work, self._value(node.operand, given, work))
        if isinstance(node, ast.Compare):
            left = self._value(node.left, given, work)
            for op, comparator in zip(node.ops, node.comparators, strict=True):
                right = self._value(comparator, given, work)
                if not _COMPARE[type(op)](work, left, right):
                    return False
                left = right
            return True
        if isinstance(node, ast.IfExp):
            return self._value(node.body if truth(self._value(node.test, given, work)) else node.orelse, given, work)
        if isinstance(node, ast.Subscript):
            return work.part(self._value(node.value, given, work), self._value(node.slice, given, work))
        if isinstance(node, ast.Attribute):
            return work.part(self._value(node.value, given, work), node.attr)
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self._value(item, given, work) for item in node.elts]
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name), node
        arguments = [self._value(argument, given, work) for argument in node.args]
        return FUNCTIONS[node.func.id](work, *arguments)

    def __repr__(self) -> str:
        return f"<Expression {self.text}>"


def _brackets(text: str) -> int:
    """How deep brackets stand within each other; those in texts count, too, which harms nobody."""
    depth = deepest = 0
    for c in text:
        if c in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif c in ")]}":
            depth -= 1
    return deepest


def _names(value: Any) -> str:
    """What an expression may name, shortly."""
    if not isinstance(value, Mapping):
        return "value"
    shown = [str(name)[:60] for name, _ in zip(value, range(_NAMES), strict=False)]
    more = f" and {len(value) - _NAMES} more" if len(value) > _NAMES else ""
    return f"{', '.join(sorted({*shown, 'value'}))}{more}"
