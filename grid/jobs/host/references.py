"""Values that are not there yet: results of other jobs, and values that a request got when it was queued.

Both may be given as data of another request. That makes the other job wait for the first one; what they stand for is
put in when it starts.

Lives here: `Reference`, `Field`, finding them in plain values.
Elsewhere:  handles, which give them out (`client/handle.py`); the manager, which resolves them (`manager/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from grid.jobs.host.errors import RequestError


class Reference:
    """The result of `job`, or a part of it: `fit.result["rss"]`. `value()` waits for it."""

    def __init__(self, job: str, path: tuple[Any, ...] = (), ask: Callable[[float | None], Any] | None = None) -> None:
        self.job, self.path, self._ask = job, path, ask

    def __getitem__(self, part: str | int) -> Reference:
        return Reference(self.job, (*self.path, part), self._ask)

    def _refuse(self, doing: str) -> TypeError:
        return TypeError(
            f"{self!r} is not there yet and can't be {doing}; ask for its value(), or wait for the job. "
            "Whether a job has ended says job.state.ended"
        )

    def __iter__(self) -> Iterator[Any]:
        raise self._refuse("gone through")

    def __bool__(self) -> bool:
        raise self._refuse("true or false")

    def __len__(self) -> int:
        raise self._refuse("counted")

    def __contains__(self, item: object) -> bool:
        raise self._refuse("looked into")

    def __eq__(self, other: object) -> bool:
        if other is self:  # as keys of dicts and in lists
            return True
        raise self._refuse("compared")

    def __lt__(self, other: object) -> bool:
        raise self._refuse("compared")

    __ne__ = __lt__
    __le__ = __gt__ = __ge__ = __lt__

    def __hash__(self) -> int:
        return hash((self.job, self.path))

    def value(self, timeout: float | None = None) -> Any:
        """Wait for the job and return the value.

        Raises:
            As `wait` of the job's handle; KeyError or IndexError if the result has no such part.
        """
        if self._ask is None:
            raise RequestError(f"{self!r} has no job server to ask", hint="Use the handle's wait()")
        return part_of(self._ask(timeout), self.path)

    def __grid_plain__(self) -> dict[str, Any]:
        return {"$ref": {"job": self.job, "path": list(self.path)}}

    def __repr__(self) -> str:
        return f"<result of {self.job}{''.join(f'[{part!r}]' for part in self.path)}>"


class Field(str):
    """A text that a request got when it was queued, such as the name of an output; it remembers its job."""

    job: str
    name: str

    def __new__(cls, value: str, job: str, name: str) -> Field:
        made = super().__new__(cls, value)
        made.job, made.name = job, name
        return made

    def __grid_plain__(self) -> dict[str, Any]:
        return {"$field": {"job": self.job, "name": self.name, "value": str(self)}}

    def __reduce__(self) -> tuple[Any, ...]:
        return Field, (str(self), self.job, self.name)


def from_content(key: str, content: Any) -> Reference | Field:
    """The value in JSON under `$ref` or `$field`."""
    try:
        if key == "$ref":
            return Reference(str(content["job"]), tuple(content["path"]))
        return Field(content["value"], str(content["job"]), content["name"])
    except (KeyError, TypeError) as exc:
        raise RequestError(f"{content!r} is no reference to a job", hint="Take it from a job's handle") from exc


def part_of(value: Any, path: tuple[Any, ...] | list[Any]) -> Any:
    """The part of a result that a path of keys and indices leads to."""
    for step in path:
        value = value[step]
    return value


def jobs_in(plain: Any) -> set[str]:
    """Ids of the jobs that a plain value refers to."""
    if isinstance(plain, list):
        return set().union(*map(jobs_in, plain))
    if isinstance(plain, dict):
        for key in ("$ref", "$field"):
            if len(plain) == 1 and key in plain and isinstance(plain[key], dict) and "job" in plain[key]:
                return {str(plain[key]["job"])}
        return set().union(*map(jobs_in, plain.values()))
    return set()
