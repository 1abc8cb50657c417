"""Values as JSON: what requests, messages and results may hold.

Primitives are None, bool, int, float, text, lists and dicts with text keys. Tuples become lists; numpy's numbers and
arrays, and anything with `tolist`, become what they give; named tuples and dataclasses become dicts. JSON has no word
for some values; these travel as text under a key of their own:

    nan, inf                     {"$float": "nan"}
    bytes                        {"$bytes": base64}
    integers of 1,024 bits       {"$int": "0x..."}       (other readers of JSON make infinity of them)
    text with lone surrogates    {"$text": "caf\\udce9"}  (names of files that are no UTF-8; backslashes are doubled)

`References` to values of other jobs (`references.py`) say themselves what they are. So a dict with one key that begins
with `$` is not for users.

Lives here: `to_plain`, `from_plain`, `dumps`, `loads`.
Elsewhere:  what is saved of a request (`request.py`).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from grid.jobs.host.errors import RequestError
from grid.text import clean

DEPTH = 64
"""Deepest nesting of lists and dicts."""

BYTES = 256 << 20
"""Largest value: about its size as JSON, counted while it is read."""

INT_BITS = 1023
"""Whole numbers up to here are numbers in JSON: a double holds 1,023 bits, and readers in other languages use those."""

_FLOATS = re.compile(r"nan|[+-]?inf", re.ASCII)
_HEX = re.compile(r"-?0x[0-9a-f]+", re.ASCII)
_ESCAPED = re.compile(r"\\\\|\\u(d[89a-f][0-9a-f]{2})", re.ASCII)
_LONE = re.compile(r"[\ud800-\udfff]")


def to_plain(value: Any, where: str = "value", most: int = BYTES) -> Any:
    """The value as JSON has it: `dumps` takes it, and its text is valid UTF-8.

    Args:
        where: What the value is, for errors: `request.options['a']`.
        most: Largest size in bytes, about.
    Raises:
        RequestError: Some part is no primitive, is nested too deeply, or can't be read, or the value is too large; the
            message says which part.
    """
    return _Plain(most).of(value, where, DEPTH)


class _Plain:
    """One conversion; it counts the bytes of the value."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def of(self, value: Any, where: str, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            self._count(len(value), where)
            return value if value.isascii() or not _LONE.search(value) else {"$text": _escape(value)}
        if kind is int:
            if value.bit_length() <= INT_BITS:
                return value
            self._count(value.bit_length() // 4, where)
            return {"$int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if depth == 0:
            raise RequestError(f"{_at(where)} is nested deeper than {DEPTH}, or holds itself", hint="Make it flatter")
        if kind is list or kind is tuple:
            return self._list(value, where, depth)
        if kind is dict:
            return self._dict(value, where, depth)
        if kind in (bytes, bytearray):
            self._count(len(value) * 4 // 3, where)
            return {"$bytes": base64.b64encode(value).decode()}
        try:
            return self._other(value, where, depth)
        except RequestError:
            raise
        except Exception as exc:  # its class may do anything when it is read
            what = f"{kind.__module__}.{kind.__qualname__}"
            raise RequestError(
                f"{_at(where)} is a {what}, and reading it failed ({type(exc).__name__}: {clean(exc, 200)})",
                hint="Give its values as None, bool, int, float, text, lists and dicts",
            ) from exc

    def _other(self, value: Any, where: str, depth: int) -> Any:
        kind = type(value)
        own = getattr(value, "__grid_plain__", None)
        if own is not None:
            ((key, content),) = own().items()
            if key in ("$ref", "$field"):
                return {key: self.of(content, where, depth - 1)}
        if isinstance(value, Mapping):
            return self._dict(value, where, depth)
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return self._dict(value._asdict(), where, depth)
        if isinstance(value, (list, tuple)):
            return self._list(value, where, depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return self._dict(fields, where, depth)
        if hasattr(value, "tolist"):  # numpy's
            return self.of(value.tolist(), where, depth - 1)
        for base in (bool, int, float, str):  # an IntEnum, a subclass of str
            if isinstance(value, base):
                return self.of(base(value), where, depth - 1)
        raise RequestError(
            f"{_at(where)} is a {kind.__module__}.{kind.__qualname__}, which is no primitive value",
            hint="Use None, bool, int, float, text, lists and dicts, so that it can be stored and sent as JSON",
        )

    def _count(self, n: int, where: str) -> None:
        self._left -= n
        if self._left < 0:
            raise RequestError(
                f"{_at(where)} makes the whole larger than {self._most >> 20} MB",
                hint="Put large data into a file: handler.keep stores one with the job",
            )

    def _list(self, value: Any, where: str, depth: int) -> list[Any]:
        self._count(4 * len(value), where)
        return [self.of(item, f"{where}[{index}]", depth - 1) for index, item in enumerate(value)]

    def _dict(self, value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
        self._count(4 * len(value), where)
        found = {}
        for key, item in value.items():
            if not isinstance(key, str) or (not key.isascii() and _LONE.search(key)):
                raise RequestError(
                    f"{_at(where)} has the key {clean(repr(key), 200)}, which is no text",
                    hint="Keys of dicts must be text",
                )
            found[str(key)] = self.of(item, f"{where}[{key!r}]", depth - 1)
        if len(found) == 1 and next(iter(found)).startswith("$"):
            raise RequestError(
                f"{_at(where)} is a dict with the one key {clean(next(iter(found)), 100)!r}",
                hint="Single keys that begin with $ have a meaning of their own; rename it",
            )
        return found


def _at(where: str) -> str:
    """The path of a value: keys may be long, and are the user's."""
    return clean(where, 400)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode("utf-8")


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)) if match[1] else "\\", text)


def from_plain(value: Any, resolve: Callable[[str, Any], Any] | None = None) -> Any:
    """The value that `to_plain` made JSON of.

    Args:
        resolve: Called with kind and content of references to other jobs (`$ref`, `$field`), to give the value; without
            it they become `references.Reference` and `references.Field`.
    Raises:
        RequestError: What stands under one of our keys is none of its values.
    """
    if isinstance(value, list):
        if _SCALARS.issuperset(map(type, value)):
            return list(value)
        return [from_plain(item, resolve) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key in _SPECIAL:
            return _special(key, item)
        if key in ("$ref", "$field"):
            if resolve is not None:
                return resolve(key, item)
            from grid.jobs.host.references import from_content  # it stands on this module

            return from_content(key, item)
    return {key: from_plain(item, resolve) for key, item in value.items()}


_SCALARS = frozenset({type(None), bool, int, float, str})
_SPECIAL = frozenset({"$float", "$int", "$bytes", "$text"})


def _special(key: str, item: Any) -> Any:
    """The value in JSON under a key of ours. Clients write it, too, so it is checked."""
    if isinstance(item, str):
        if key == "$text":
            return _unescape(item)
        if key == "$float" and _FLOATS.fullmatch(item):
            return float(item)
        if key == "$int" and _HEX.fullmatch(item):
            return int(item, 16)
        if key == "$bytes":
            try:
                return base64.b64decode(item, validate=True)
            except ValueError:
                pass
    forms = {"$text": "text", "$float": '"nan", "inf" or "-inf"', "$int": 'hexadecimal, "0xff"', "$bytes": "base64"}
    said = clean(repr({key: item}), 200)
    raise RequestError(f"the value {said} can't be read", hint=f"Under {key} stands {forms[key]}")


def dumps(plain: Any) -> str:
    """JSON text of a plain value, always the same for the same value.

    Raises:
        RequestError: It is no plain value.
    """
    try:
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        if not text.isascii():
            text.encode()
    except (ValueError, TypeError, RecursionError) as exc:
        raise RequestError(f"a value can't be stored as JSON ({clean(exc, 200)})", hint="Give plain values") from exc
    return text


def loads(text: str | bytes) -> Any:
    """The plain value of a JSON text."""
    return json.loads(text)
