"""What a call raised, as it travels home: the exception itself, what it came of, and the traceback as text.

It comes back as the class that was raised, with its attributes, notes, members (of a group), causes and contexts, as if
it had been raised here. At the end of its chain of causes stands a `RemoteTraceback`. Of those that can't travel,
or are no `Exception` (SystemExit and its like must not end the client), a `RemoteError` takes the place and says why.

Lives here: `told`, `heard`. Elsewhere: one exception without its chain (`exceptions`), who calls (`kernel/serve.py`,
            `tasks/runner.py`, `jobs/execution.py`), the errors (`grid/errors.py`).
"""

from __future__ import annotations

import io
import pickle
import traceback
from typing import Any

from grid.errors import RemoteError, RemoteTraceback
from grid.wire import codec, exceptions
from grid.wire.authkey import with_authkey
from grid.wire.signals import came_by_signal

MOST = 64
"""Exceptions of one chain that travel; the text of the traceback has all that Python shows."""

Links = list[tuple[BaseException, "BaseException | None", "BaseException | None", bool]]


def told(exc: BaseException, text: str) -> bytes:
    """For `heard`. `text`: its traceback."""
    family = _family(exc)
    stand_in = None if isinstance(exc, Exception) else _stand_in(exc, text)
    ways: dict[int, tuple[Any, ...]] = {} if stand_in is None else {id(exc): stand_in.__reduce__()}
    try:
        data = _packed(family, ways)
    except Exception:  # of each on its own: members of a group before the group
        for each in reversed(family):
            if id(each) not in ways and (way := _way(each, text if each is exc else "", ways)) is not None:
                ways[id(each)] = way
        try:
            data = _packed(family, ways)
        except Exception as why:  # nested too deeply, say
            data = _packed([exc], {id(exc): (stand_in or _stand_in(exc, text, _because(why))).__reduce__()})
    return pickle.dumps((data, _kind(exc), _said(exc)), 5)


def heard(data: bytes, text: str, where: str = "") -> BaseException:
    """What `told` gave, rebuilt here. `text`: its traceback. `where`: the call, for the reader."""
    inner, kind, said = pickle.loads(data)
    error: BaseException
    try:
        error, links = codec.loads(inner)
    except Exception as exc:
        if came_by_signal(exc):
            raise
        hint = f"It can't be rebuilt here ({type(exc).__name__}: {exc}); its class must be importable here, too"
        error, links = RemoteError(f"{kind}: {said}", kind=kind, remote_traceback=text, hint=hint), []
    for each, cause, context, suppress in links:
        each.__context__, each.__cause__, each.__suppress_context__ = context, cause, suppress
    if text:
        last = chain(error)[-1]
        last.__cause__ = RemoteTraceback(text, where)
    return error


def passed_on(exc: BaseException) -> tuple[bytes, str]:
    """The arguments for `heard` of an exception that was heard here, with the traceback that it brought."""
    brought = chain(exc)[-1].__cause__
    text = brought.tb if isinstance(brought, RemoteTraceback) else ""
    return told(exc, text), text


def chain(exc: BaseException) -> list[BaseException]:
    """An exception and its causes, up to a traceback that came as text."""
    found = [exc]
    while (cause := found[-1].__cause__) is not None and not isinstance(cause, RemoteTraceback):
        if any(cause is known for known in found):
            break
        found.append(cause)
    return found


def _family(exc: BaseException) -> list[BaseException]:
    """It, its causes, contexts and members, and theirs. Tracebacks of calls before this one are in its text."""
    found = [exc]
    for each in found:
        for other in (*getattr(each, "exceptions", ()), each.__cause__, each.__context__):
            if not isinstance(other, BaseException) or isinstance(other, RemoteTraceback) or len(found) >= MOST:
                continue
            if not any(other is known for known in found):
                found.append(other)
    return found


class _Pickler(codec.HandOver):
    """Exceptions for which another way was found go that way."""

    def __init__(self, stream: io.BytesIO, ways: dict[int, tuple[Any, ...]]) -> None:
        super().__init__(stream, lambda _: True)
        self._ways = ways

    def reduce(self, obj: Any) -> Any:
        return self._ways.get(id(obj)) or super().reduce(obj)


def _packed(family: list[BaseException], ways: dict[int, tuple[Any, ...]]) -> bytes:
    known = {id(each) for each in family}

    def near(other: BaseException | None) -> BaseException | None:
        return other if id(other) in known else None

    links: Links = [
        (each, near(each.__cause__), near(each.__context__), each.__suppress_context__)
        for each in family
        if each.__cause__ is not None or each.__context__ is not None
    ]
    return _pickled((family[0], links), ways)


def _pickled(obj: object, ways: dict[int, tuple[Any, ...]]) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, ways).dump(obj)
    data = with_authkey(stream.getvalue())
    codec.loads(data)  # a class whose own words for pickling are wrong fails only here
    return data


def _way(exc: BaseException, text: str, ways: dict[int, tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """How it travels, when not as it is."""
    try:
        _pickled(exc, ways)
    except Exception as why:
        apart = exceptions.take_apart(exc)
        try:
            _pickled(exc, {**ways, id(exc): apart})
        except Exception:
            blame = codec.culprit(exc, type(exc).__name__) or why
            return _stand_in(exc, text or text_of(exc), _because(blame)).__reduce__()
        return apart
    return None


def _because(why: object) -> str:
    said = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
    return f"This stands for it, as it can't travel: {said}"


def _stand_in(exc: BaseException, text: str, hint: str = "") -> RemoteError:
    facts: dict[str, Any] = {"hint": hint} if hint else {}
    if isinstance(exc, SystemExit) and isinstance(exc.code, (int, str)):
        facts["code"] = exc.code
    kind = _kind(exc)
    return RemoteError(f"{kind}: {_said(exc)}", kind=kind, remote_traceback=text, **facts)


def _kind(exc: BaseException) -> str:
    return f"{type(exc).__module__}.{type(exc).__qualname__}"


def _said(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return "(its text can't be made)"


def text_of(exc: BaseException, ours: str | None = None) -> str:
    """Its traceback, without the frames of files whose names begin with `ours` at its top."""
    frames = exc.__traceback__
    while ours is not None and frames is not None and frames.tb_next is not None:
        if not frames.tb_frame.f_code.co_filename.startswith(ours):
            break
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(exc), exc, frames))
    except Exception:
        return f"{type(exc).__qualname__} (its traceback can't be formatted)\n"
