"""Requests: the description of a job, as plain data that outlives programs.

A request names its service and the service's version; all other public attributes are its data. Saved, it is JSON:

    {"grid_request": 1, "service": "fits.Fit", "version": "2", "data": {"model": "..."}}

so that other languages can write one, and a later version of grid can tell what it is before trusting anything in it.

Lives here: `Request`, reading and saving, the hook at queue time.
Elsewhere:  services (`service.py`), which service answers (`manager/registry.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from grid.jobs.host.errors import RequestError
from grid.jobs.host.plain import from_plain, to_plain
from grid.text import clean

FORMAT = 1
"""Of saved requests; a reader refuses a newer one."""


class QueueContext(Protocol):
    """Values that a request may use while it is queued."""

    job: str
    """The id that the job gets."""
    directory: Path
    """The job's directory at the server, for names of outputs; made when something is put there."""


class Request:
    """A request for a service; see the module. `grid.jobs.request(cls, **data)` makes one without a class of its own.

    `service` and `version` are None here and come from the service class, or from a subclass.
    """

    service: str | None = None
    version: str | None = None

    def __init__(self, **data: Any) -> None:
        for name, value in data.items():
            if name in _TAKEN:
                raise RequestError(f"{name!r} can't be the name of a request's value", hint="Choose another name")
            setattr(self, name, value)

    def queue(self, context: QueueContext) -> None:
        """Called at the server when the request is queued: fill in what is known now, such as names of outputs.

        Nothing that takes time belongs here. NotImplementedError means that there is nothing to do.
        """
        raise NotImplementedError

    # -- as data ---------------------------------------------------------------------------------------------------

    @property
    def data(self) -> dict[str, Any]:
        """All public attributes but service and version."""
        return {name: value for name, value in self.__dict__.items() if name[0] != "_" and name not in _HEAD}

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it.

        Raises:
            AttributeError: Service or version is None.
            RequestError: A value is no primitive; the message names it.
        """
        for name in _HEAD:
            if getattr(self, name) is None:
                raise AttributeError(
                    f"the request {type(self).__name__} has no {name}: set one, or use request(ServiceClass)"
                )
        data = {name: to_plain(value, f"request.{name}") for name, value in self.data.items()}
        return {"grid_request": FORMAT, "service": self.service, "version": str(self.version), "data": data}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Request:
        """The request that was saved as `plain`, of this class.

        Raises:
            RequestError: It is no request, or of a newer format.
        """
        check_plain(plain)
        made = cls.__new__(cls)
        made.__setstate__({**from_plain(plain["data"]), "service": plain["service"], "version": plain["version"]})
        return made

    def __getstate__(self) -> dict[str, Any]:
        plain = self.to_plain()
        return {**self.data, "service": plain["service"], "version": plain["version"]}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.clear()
        self.__dict__.update(state)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a JSON file."""
        Path(path).write_text(json.dumps(self.to_plain(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Request:
        """The request in a JSON file.

        Raises:
            RequestError: The file is none, or of a newer format.
        """
        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as exc:
            raise RequestError(f"{path} is not JSON ({exc})", hint="Requests are saved by Request.save") from exc
        return cls.from_plain(plain)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Request):
            return NotImplemented
        return (self.service, str(self.version), self.data) == (other.service, str(other.version), other.data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.data.items())
        return f"<Request {self.service} {self.version}: {shown}>"


_HEAD = ("service", "version")
_TAKEN = frozenset(name for name in dir(Request) if not name.startswith("_"))


def check_plain(plain: Any) -> None:
    """Raise RequestError unless `plain` is a saved request of a format that we know."""
    if not isinstance(plain, Mapping) or not isinstance(plain.get("grid_request"), int):
        raise RequestError("this is not a saved request", hint="It must be an object with grid_request, service, ...")
    if plain["grid_request"] > FORMAT:
        raise RequestError(
            f"the request is of format {plain['grid_request']}, and this grid knows {FORMAT}", hint="Use a newer grid"
        )
    for name, kind in (("service", str), ("version", str), ("data", Mapping)):
        if not isinstance(plain.get(name), kind):
            raise RequestError(f"the saved request has no {name}", hint="It is damaged, or was made by something else")
    for name, most in (("service", 300), ("version", 100)):
        if len(plain[name]) > most or not plain[name].isprintable():
            raise RequestError(
                f"the saved request has the {name} {clean(repr(plain[name]), 80)}",
                hint=f"At most {most} printable characters",
            )
    wrong = [name for name in plain["data"] if not isinstance(name, str) or name[:1] in ("_", "") or name in _TAKEN]
    wrong += [name for name in plain["data"] if isinstance(name, str) and (len(name) > 300 or not name.isprintable())]
    if wrong:
        raise RequestError(
            f"the saved request has a value {clean(repr(wrong[0]), 80)}", hint="Public names only, and not of Request"
        )
