"""Expressions over the values of a result: `rss < 0.1 and steps > 3`.

The language is a small part of Python's: names, numbers, texts, comparisons, `and or not`, arithmetic, `a[0]`,
`a["b"]`, `a.b` (the same for dicts), and the functions in `FUNCTIONS`. Nothing else parses; nothing can be called,
imported or changed, and no expression takes long: lengths, powers and products are bounded.

A result that is a dict gives its keys as names; any result is also `value`.

Lives here: `Expression`.
Elsewhere:  when it is asked (`atoms.IsResult`).
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from grid.jobs.host.errors import ExpressionError

LENGTH = 2000
"""Characters of an expression, at most."""
DEPTH = 50
_BIG = 10**6  # elements of a sequence, and bits of a whole number

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "exp": math.exp,
    "float": float,
    "int": int,
    "isfinite": math.isfinite,
    "len": len,
    "log": math.log,
    "log10": math.log10,
    "max": max,
    "min": min,
    "round": round,
    "sqrt": math.sqrt,
    "sum": sum,
}
_CONSTANTS = {"True": True, "False": False, "None": None, "inf": math.inf, "nan": math.nan, "pi": math.pi}

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
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

    def missing(self, value: Any) -> list[str]:
        """Names that a result does not have."""
        known = set(value) if isinstance(value, Mapping) else set()
        return sorted(self.names - known - {"value"})

    def __call__(self, value: Any) -> Any:
        """Evaluate it with a result's values.

        Raises:
            ExpressionError: A name is missing, or the operands do not fit.
        """
        names = {**(value if isinstance(value, Mapping) else {})}
        names.setdefault("value", value)
        try:
            return self._value(self._tree, names)
        except ExpressionError:
            raise
        except Exception as exc:
            raise ExpressionError(
                f"the expression {self.text!r} can't be evaluated ({type(exc).__name__}: {exc})",
                hint=f"The result has {', '.join(sorted(map(str, names)))}",
            ) from exc

    def _value(self, node: ast.AST, names: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            if node.id in names:
                return names[node.id]
            if node.id in _CONSTANTS:
                return _CONSTANTS[node.id]
            raise ExpressionError(
                f"the expression {self.text!r} names {node.id!r}, which the result has not",
                hint=f"It has {', '.join(sorted(map(str, names)))}",
            )
        if isinstance(node, ast.BoolOp):
            stop = isinstance(node.op, ast.Or)
            found: Any = not stop
            for operand in node.values:
                found = self._value(operand, names)
                if bool(found) is stop:
                    return found
            return found
        if isinstance(node, ast.BinOp):
            left, right = self._value(node.left, names), self._value(node.right, names)
            return _small(_BINARY[type(node.op)], left, right)
        if isinstance(node, ast.UnaryOp):
            return _UNARY[type(node.op)](self._value(node.operand, names))
        if isinstance(node, ast.Compare):
            left = self._value(node.left, names)
            for op, comparator in zip(node.ops, node.comparators, strict=True):
                right = self._value(comparator, names)
                if not _COMPARE[type(op)](left, right):
                    return False
                left = right
            return True
        if isinstance(node, ast.IfExp):
            return self._value(node.body if self._value(node.test, names) else node.orelse, names)
        if isinstance(node, ast.Subscript):
            return self._value(node.value, names)[self._value(node.slice, names)]
        if isinstance(node, ast.Attribute):
            return self._value(node.value, names)[node.attr]
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self._value(item, names) for item in node.elts]
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name), node
        return FUNCTIONS[node.func.id](*(self._value(argument, names) for argument in node.args))

    def __repr__(self) -> str:
        return f"<Expression {self.text}>"


def _small(operation: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """The operation, unless its outcome could be huge."""
    if operation is operator.pow and isinstance(left, int) and isinstance(right, int):
        if abs(right) * max(1, abs(left).bit_length()) > _BIG:
            raise OverflowError("the power is too large")
    elif operation is operator.mul:
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, (str, list)) and isinstance(times, int) and len(sequence) * times > _BIG:
                raise OverflowError("the product is too long")
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _BIG:
            raise OverflowError("the product is too large")
    elif operation is operator.mod and isinstance(left, str):
        raise TypeError("texts are not formatted here")
    return operation(left, right)
