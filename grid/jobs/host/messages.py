"""Messages of and to jobs, and how they find the method that handles them.

A message is a small value with a kind, the name of its class; it travels as JSON: its fields, with `kind`, `job`,
`number` and `time` (UTC, seconds since 1970) beside them. Anybody may derive kinds of his own:

    class SetTemperature(Message):
        pass

    job.control(SetTemperature(kelvin=300))     # handled by on_ready_SetTemperature of the service

Messages of a job: Start, Join, Progress, Improved, Completed, Error, Aborted, Cancelled, Log, Answer, Kept, State.
Messages to a job: Abort, Pause, Resume, Checkpoint, and the service's own.

Lives here: the classes, JSON of messages, dispatch by class name.
Elsewhere:  streams of them (`line/streams.py`), when a job handles one (`runner.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from grid.jobs.host.errors import RequestError
from grid.jobs.host.plain import from_plain, to_plain

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_HEAD = ("kind", "job", "number", "time")
_PLAIN = {"Jobs": "jobs", "JobChanged": "summary"}
"""Kinds with a field that is plain as it stands: lists of jobs, whose requests and results are so already."""

KINDS: dict[str, type[Message]] = {}
"""Message classes by name, as they are defined; a kind that is not here arrives as a plain `Message`."""


class Message:
    """A kind and fields, which are attributes. `job`, `number` and `time` are set by the stream."""

    kind: str = "Message"
    job: str | None = None
    number: int = 0
    time: float = 0.0

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__name__
        KINDS[cls.__name__] = cls

    def __init__(self, kind: str | None = None, /, **fields: Any) -> None:
        if kind is not None:
            if not _KIND.fullmatch(kind):
                raise RequestError(f"{kind!r} can't be the kind of a message", hint="Use a name as of a class")
            self.kind = kind
        self._set(fields)

    def _set(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            if name.startswith("_") or name in _HEAD or not name.isidentifier():
                raise RequestError(f"a message can't have a field {name!r}", hint="Choose another name")
            self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        have = ", ".join(self.fields) or "none"
        raise AttributeError(f"the {self.kind} message has no field {name!r}; it has {have}")

    @property
    def fields(self) -> dict[str, Any]:
        """Its own fields."""
        return {name: value for name, value in self.__dict__.items() if name not in _HEAD and name[:1] != "_"}

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it.

        Raises:
            RequestError: A field is no primitive value.
        """
        plain = {
            name: value if _PLAIN.get(self.kind) == name else to_plain(value, f"field {name!r} of {self.kind}")
            for name, value in self.fields.items()
        }
        return {**plain, "kind": self.kind, "job": self.job, "number": self.number, "time": self.time}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Message:
        """The message of a JSON object; of a class of ours if its kind is known, else a `Message` of that kind."""
        kind = plain.get("kind")
        if not isinstance(kind, str) or not _KIND.fullmatch(kind):
            raise RequestError(f"{kind!r} can't be the kind of a message", hint="Use a name as of a class")
        cls = KINDS.get(kind, Message)
        message = cls.__new__(cls)
        message.kind = kind
        asis = _PLAIN.get(kind)
        message._set({n: value if n == asis else from_plain(value) for n, value in plain.items() if n not in _HEAD})
        message.job = plain.get("job")
        message.number = plain.get("number", 0)
        message.time = plain.get("time", 0.0)
        return message

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        mine, its = ((m.kind, m.job, m.number, m.fields) for m in (self, other))
        return mine == its

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        about = f" of {self.job}" if self.job else ""
        return f"<{self.kind}{about}{': ' if shown else ''}{shown}>"


class Start(Message):
    """The job's `run` begins; `attempt` counts from 1, `restored` says whether from a checkpoint."""


class Join(Message):
    """The first message for a late listener: `k`, `n`, `units`, and `partial`, the best result until now."""


class Progress(Message):
    """`k` of `n` `units` are done."""


class Improved(Message):
    """`partial` is the best result so far."""


class Completed(Message):
    """The job is complete; `final` is its result."""


class Error(Message):
    """The job failed: `error`, `trace`."""


class Aborted(Message):
    """The job was aborted: `reason`, and `partial`, the best result until then."""


class Cancelled(Message):
    """The job will never run: `reason`."""


class Log(Message):
    """A line for people: `level`, `text`."""


class Answer(Message):
    """To the question `to`: `value`; or `error`, which says why there is none."""


class Kept(Message):
    """An output file `name` of `size` bytes was stored."""


class State(Message):
    """The job is in `state` now; `reason` says why where there is something to say."""


class Abort(Message):
    """To a job: end at the next safe point."""


class Pause(Message):
    """To a job: wait at the next safe point until Resume."""


class Resume(Message):
    """To a job: go on."""


class Checkpoint(Message):
    """To a job: take a checkpoint at the next safe point, whenever the last one was."""


class Gap(Message):
    """A slow listener missed `missed` messages."""


ENDS = frozenset({"Completed", "Error", "Aborted", "Cancelled"})
"""Kinds after which a job says nothing more."""


def dispatch(target: object, message: Message, prefix: str = "on_", catch_all: str | None = None) -> Any:
    """Call the target's method for the message's kind: `on_Improved` or `on_improved`, else `on_message`.

    Returns:
        What the method returned; None if the target has none for it.
    """
    for name in (f"{prefix}{message.kind}", f"{prefix}{snake(message.kind)}", catch_all or f"{prefix}message"):
        method = getattr(target, name, None)
        if method is not None:
            return method(message)
    return None


def snake(kind: str) -> str:
    """`SetTemperature` -> `set_temperature`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()


class Monitor:
    """Base class for objects that follow a job: `put` calls `on_improved`, `on_completed`, ... or `on_message`."""

    def put(self, message: Message) -> None:
        """Take a message."""
        dispatch(self, message)
