"""Values as JSON: what requests, messages and results may hold.

Primitives are None, bool, int, float, text, lists and dicts with text keys. Tuples become lists; numpy's numbers and
arrays, and anything with `tolist`, become what they give; named tuples and dataclasses become dicts. Floats that JSON
has not (nan, inf) travel as `{"$float": "nan"}`, bytes as `{"$bytes": base64}`; `References` to values of other jobs
(`references.py`) say themselves what they are. So a dict with one key that begins with `$` is not for users.

Lives here: `to_plain`, `from_plain`, `dumps`, `loads`.
Elsewhere:  what is saved of a request (`request.py`).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from grid.jobs.host.errors import RequestError

DEPTH = 64
"""Deepest nesting of lists and dicts."""


def to_plain(value: Any, where: str = "value", depth: int = DEPTH) -> Any:
    """The value as JSON has it.

    Args:
        where: What the value is, for errors: `request.options['a']`.
    Raises:
        RequestError: Some part is no primitive; the message says which.
    """
    kind = type(value)
    if value is None or kind is bool or kind is int or kind is str:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    own = getattr(value, "__grid_plain__", None)
    if own is not None:
        return own()
    if depth == 0:
        raise RequestError(f"{where} is nested deeper than {DEPTH}, or holds itself", hint="Make it flatter")
    if kind in (bytes, bytearray):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return _dict(value, where, depth)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _dict(value._asdict(), where, depth)
    if isinstance(value, (list, tuple)):
        return [to_plain(item, f"{where}[{index}]", depth - 1) for index, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _dict(fields, where, depth)
    if hasattr(value, "tolist"):  # numpy's
        return to_plain(value.tolist(), where, depth - 1)
    for base in (bool, int, float, str):  # an IntEnum, a subclass of str
        if isinstance(value, base):
            return to_plain(base(value), where, depth - 1)
    raise RequestError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}, which is no primitive value",
        hint="Use None, bool, int, float, text, lists and dicts, so that it can be stored and sent as JSON",
    )


def _dict(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    found = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise RequestError(f"{where} has the key {key!r}, which is no text", hint="Keys of dicts must be text")
        found[str(key)] = to_plain(item, f"{where}[{key!r}]", depth - 1)
    if len(found) == 1 and next(iter(found)).startswith("$"):
        raise RequestError(
            f"{where} is a dict with the one key {next(iter(found))!r}",
            hint="Single keys that begin with $ have a meaning of their own; rename it",
        )
    return found


def from_plain(value: Any, resolve: Callable[[str, Any], Any] | None = None) -> Any:
    """The value that `to_plain` made JSON of.

    Args:
        resolve: Called with kind and content of references to other jobs (`$ref`, `$field`), to give the value; without
            it they become `references.Reference` and `references.Field`.
    """
    if isinstance(value, list):
        return [from_plain(item, resolve) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key == "$float":
            return float(item)
        if key == "$bytes":
            return base64.b64decode(item)
        if key in ("$ref", "$field"):
            if resolve is not None:
                return resolve(key, item)
            from grid.jobs.host.references import from_content  # it stands on this module

            return from_content(key, item)
    return {key: from_plain(item, resolve) for key, item in value.items()}


def dumps(plain: Any) -> str:
    """JSON text of a plain value, always the same for the same value."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """The plain value of a JSON text."""
    return json.loads(text)
