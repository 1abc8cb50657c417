"""The calls of a job server: one table, which every door reads.

Each method of `Calls` is a row: its name, its arguments with their types, the scope that it needs, whose jobs it is
about, and whether it may be repeated when a connection breaks. To add a call takes two files: a method here, and its
work in `server.py` (a test adds one so). Clients get it by themselves, as do the socket, HTTP, the table in
docs/server.md and the tests that walk it.

    ServerProxy --> Calls.carry (over a socket, over HTTP) --> ask(server, name, ...) --> guarded method of Server or
    Caller

What is not a row can't be called, and a row can't be written without saying who may call it about whose jobs: that is
checked here, before the method runs (`guarded`), in this process, too.

Lives here: `Calls`, `Call`, `Whose`, `ask`, `guarded`; scopes; the names of streams.
Elsewhere:  what the calls do (`server.py`), what a caller from the network may (`web/caller.py`).
"""

# mypy: disable-error-code="empty-body"
# A row has no body: `row` puts one in its place that has the call carried.

from __future__ import annotations

import enum
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grid.jobs.host.errors import JobError, RequestError

READ, SUBMIT, CONTROL, UPLOAD, ADMIN = SCOPES = ("read", "submit", "control", "upload", "admin")
"""Look at jobs; submit some; abort, steer, archive and delete one's own; install modules; all of this for all jobs."""

QUEUE = "jobs"
"""The stream of the list of jobs."""
CONDITIONS = "condition"
"""The stream of notices about atoms."""

LAST = 2**53
"""A number that no message has: all of a stream."""
MOST_JOBS = 20_000
"""Jobs that one call may name or submit."""
MOST_NAME = 4_096
"""Characters of an id or a name in a call; longer texts are for messages, archives and requests."""


class Whose(enum.Enum):
    """Whose jobs a call is about: what is checked before it runs."""

    NOBODYS = "no job"
    OWN = "jobs that one may see in full, named by the arguments `job` or `jobs`"
    KNOWN = "a job of which one may know that it exists"
    SIEVED = "any; what one may not see is left out or refused as it is come upon"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One row."""

    name: str
    scope: str | None
    """What a token must be for; None: any valid token."""
    whose: Whose
    again: bool
    """Whether it may be repeated: it changes nothing."""
    quick: bool
    """It needs a lock for a moment and no disk."""
    long: tuple[str, ...]
    """Arguments that may be long texts."""
    signature: inspect.Signature
    types: Mapping[str, Any]
    about: str

    def bind(self, args: Sequence[Any], kw: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, those left out included. Raises RequestError if they do not fit."""
        try:
            bound = self.signature.bind(None, *args, **kw)
        except TypeError as exc:
            raise RequestError(f"the call {self.name!r} with wrong arguments ({exc})", hint=f"It is {self}") from exc
        bound.apply_defaults()
        given = dict(bound.arguments)
        given.pop("self")
        for name, value in given.items():
            if not _fits(value, self.types[name]):
                shown = str(self.signature.parameters[name].annotation)
                raise RequestError(
                    f"{name} of the call {self.name!r} is {_brief(value)}, and must be {shown}", hint=f"It is {self}"
                )
            if name not in self.long and _is_long(value):
                raise RequestError(f"{name} of the call {self.name!r} is too long", hint=f"At most {MOST_NAME}")
        return given

    def __str__(self) -> str:
        shown = [
            str(each).replace("collections.abc.", "")
            for name, each in self.signature.parameters.items()
            if name != "self"
        ]
        return f"{self.name}({', '.join(shown)})"


API: dict[str, Call] = {}
"""Name -> row, in the order of the table."""

F = TypeVar("F", bound=Callable[..., Any])


def row(
    scope: str | None, whose: Whose, *, again: bool = False, quick: bool = False, long: tuple[str, ...] = ()
) -> Callable[[F], F]:
    """Make a method of `Calls` a row; clients carry it to where the server is."""

    def add(method: F) -> F:
        name = method.__name__
        signature = inspect.signature(method)
        hints = typing.get_type_hints(method)
        about = (method.__doc__ or "").strip().partition("\n")[0]
        call = Call(
            name=name,
            scope=scope,
            whose=whose,
            again=again,
            quick=quick,
            long=long,
            signature=signature,
            types=hints,
            about=about,
        )
        API[name] = call

        @functools.wraps(method)
        def carry(self: Calls, *args: Any, **kw: Any) -> Any:
            return self.carry(call, args, kw)

        return typing.cast(F, carry)

    return add


class Calls:
    """What a job server can be asked; see the module. Each method's errors are those of `grid.jobs`."""

    in_process = False
    """Service classes of this process may be registered as they are used."""
    where: dict[str, str] | None = None
    """What others need to reach it: `url`, `fingerprint`; None: they can't."""

    def carry(self, call: Call, args: Sequence[Any], kw: Mapping[str, Any]) -> Any:
        """Have a call answered where the server is."""
        raise NotImplementedError(f"{type(self).__name__} does not say how {call.name} is carried")

    def register(self, service: Any) -> None:
        """Make a service class available; for a server in this process."""
        raise JobError("services are registered where the server runs", hint="Start it with `grid serve MODULE`")

    def listen(self, key: str, target: Any) -> Any:
        """Header, then messages of a stream, into a queue: a job's, `jobs` or `condition`."""
        raise NotImplementedError

    def hangup(self, key: str, target: Any) -> None:
        """No more of it."""
        raise NotImplementedError

    def close(self) -> None:
        """End the connection."""
        raise NotImplementedError

    # -- the asking user -------------------------------------------------------------------------------------------

    @row(None, Whose.NOBODYS, again=True, quick=True)
    def connect(self, user: str = "", token: str | None = None) -> dict[str, Any]:
        """Say who is asking: `user`, `queue`, `tokens`."""

    @row(None, Whose.OWN)
    def credentials(
        self,
        scopes: Sequence[str] = ("read",),
        services: Sequence[str] | None = None,
        jobs: Sequence[str] | None = None,
        lifetime_s: float = 3600.0,
    ) -> dict[str, Any]:
        """A token that may less than one's own, for some services or jobs, for a time: `token`, `expires`."""

    # -- jobs ------------------------------------------------------------------------------------------------------

    @row(SUBMIT, Whose.SIEVED, long=("submissions",))
    def submit(self, submissions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """New jobs, all or none; each as `admission.admit` says. Returns their details."""

    @row(READ, Whose.SIEVED, again=True)
    def jobs(self, wanted: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Summaries, oldest first, of jobs that are not archived and fit all that is wanted."""

    @row(READ, Whose.OWN, again=True)
    def fetch(self, job: str) -> dict[str, Any]:
        """All about a job, with the request to make it again."""

    @row(READ, Whose.KNOWN, again=True, quick=True)
    def status(self, job: str) -> dict[str, Any]:
        """State, progress, times, reason, what it waits for, seconds since the last safe point."""

    @row(CONTROL, Whose.OWN, long=("reason",))
    def abort(self, job: str, reason: str = "", grace_s: float | None = None) -> None:
        """Ask a job to end, by force after the grace time; harmless if it has ended."""

    @row(CONTROL, Whose.OWN, long=("reason",))
    def stop(self, job: str, reason: str = "") -> None:
        """End a job at once. Raises UnknownJob (a KeyError) if it is unknown or has ended."""

    @row(CONTROL, Whose.OWN, long=("reason",))
    def cancel(self, job: str, reason: str = "cancelled") -> None:
        """A job that does not run yet shall never run."""

    @row(CONTROL, Whose.OWN, long=("message",))
    def control(self, job: str, message: Mapping[str, Any]) -> None:
        """A message for a job; dropped if it has ended."""

    @row(READ, Whose.OWN, again=True)
    def wait(self, job: str, timeout: float | None = None) -> dict[str, Any] | None:
        """The details of a job once it has ended; None if that takes longer than `timeout` (and the server's limit)."""

    @row(CONTROL, Whose.OWN)
    def archive(self, jobs: Sequence[str], archived: bool = True) -> None:
        """Take jobs that have ended off the list, or put them back."""

    @row(CONTROL, Whose.OWN)
    def delete(self, jobs: Sequence[str]) -> None:
        """Remove jobs that have ended, and their data."""

    @row(CONTROL, Whose.OWN)
    def forget(self, job: str | None = None) -> int:
        """Forget the remembered result of a job, or all; returns how many there were."""

    @row(SUBMIT, Whose.OWN)
    def race(self, jobs: Sequence[str], expression: str) -> str:
        """The first of these jobs with a result for which the expression holds ends the others; returns its id."""

    @row(READ, Whose.SIEVED, again=True)
    def race_status(self, race: str) -> dict[str, Any]:
        """`jobs`, `expression`, `winner` (a job, or None), `over`."""

    # -- conditions ------------------------------------------------------------------------------------------------

    @row(READ, Whose.SIEVED, again=True, long=("tree",))
    def evaluate(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """A condition now: `state` (satisfied, pending, cancelled), `reason`, `explain`. Starts nothing."""

    @row(READ, Whose.OWN, again=True)
    def explain(self, job: str) -> str:
        """Why a job is not running yet, or ended as it did."""

    @row(READ, Whose.SIEVED, again=True)
    def graph(self) -> list[dict[str, Any]]:
        """Each job with the jobs that it waits for, or waited for: `id`, `state`, `service`, `after`, `condition`."""

    # -- other -----------------------------------------------------------------------------------------------------

    @row(READ, Whose.NOBODYS, again=True)
    def services(self) -> dict[str, list[str]]:
        """The services of the server: name -> versions."""

    @row(CONTROL, Whose.NOBODYS)
    def set_email(self, email: str | None, mails: str | None = None) -> None:
        """Where mails about this user's jobs go (None: nowhere), and when (None: as before, at first `daily`)."""

    @row(READ, Whose.NOBODYS, again=True)
    def credits(self) -> dict[str, Any]:
        """`user`, `used`, `balance`, `allowance`."""

    @row(READ, Whose.OWN, again=True)
    def files(self, job: str) -> dict[str, int]:
        """Output files that a job kept: name -> bytes."""

    @row(READ, Whose.OWN, again=True)
    def read_file(self, job: str, name: str, start: int = 0) -> str:
        """The contents of one from a byte on, in base64: a piece (8 MB at most); an empty one is the end."""

    @row(READ, Whose.OWN, again=True)
    def history(self, job: str, kind: str = "Log") -> list[dict[str, Any]]:
        """The last messages of a kind, such as `Log` or `Improved`, that a job said."""

    @row(READ, Whose.OWN, again=True)
    def said(self, job: str, number: int = LAST) -> list[dict[str, Any]]:
        """The messages of a job up to that number of its stream, as far as they are kept; for late listeners."""

    @row(READ, Whose.NOBODYS, again=True)
    def fetched(self, url: str) -> str:
        """Where the file of a URL lies at the server, once it is fetched."""

    @row(READ, Whose.NOBODYS, again=True)
    def modules(self) -> list[dict[str, Any]]:
        """Modules that users have installed: `user`, `name`, `services` (name -> version), `sha256`, `bytes`, when."""

    @row(UPLOAD, Whose.NOBODYS, long=("archive",))
    def upload(self, archive: str) -> str:
        """Put down a module's archive (base64), to be installed by a job of the service `grid.install`; its name."""

    @row(SUBMIT, Whose.NOBODYS)
    def deposit(self, credentials: Mapping[str, Any]) -> str:
        """Leave credentials for another server here, for jobs of this user; their name."""


def row_of(name: Any) -> Call:
    """The row of that name. Raises RequestError: there is none."""
    found = API.get(name) if isinstance(name, str) else None
    if found is None:
        raise RequestError(f"a job server has no call {str(name)[:60]!r}", hint=f"It has {', '.join(sorted(API))}")
    return found


def ask(server: Calls, name: Any, args: Any, kw: Any) -> Any:
    """One of the calls, as it came in by a door. Raises RequestError if it is none of them."""
    call = row_of(name)
    if not isinstance(args, (list, tuple)) or not isinstance(kw, dict) or not all(isinstance(key, str) for key in kw):
        raise RequestError(f"the call {call.name!r} without arguments", hint="args is a list, kw an object")
    return getattr(server, call.name)(*args, **kw)


def guarded(cls: type[Any]) -> None:
    """Have each call that a class answers checked first: its `rights` say who may ask that, and about what."""
    for name, call in API.items():
        method = cls.__dict__.get(name)
        if method is not None and not hasattr(method, "__wrapped__"):
            setattr(cls, name, _guarded(call, method))


def _guarded(call: Call, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kw: Any) -> Any:
        self.rights.may(call)  # first: who may not call it learns nothing of its arguments
        given = call.bind(args, kw)
        self.rights.admit(call, given)
        return method(self, **given)

    return checked


def table() -> str:
    """All calls as a table of Markdown, for docs/server.md."""
    lines = ["| call | scope | about | repeated | what |", "| --- | --- | --- | --- | --- |"]
    words = {Whose.NOBODYS: "", Whose.OWN: "own jobs", Whose.KNOWN: "any job", Whose.SIEVED: "what one may see"}
    for call in API.values():
        names = ", ".join(name for name in call.signature.parameters if name != "self")
        cells = [
            f"`{call.name}({names})`",
            call.scope or "any",
            words[call.whose],
            "yes" if call.again else "",
            call.about,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# -- types of arguments ----------------------------------------------------------------------------------------------


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of the type that an argument has; lists are looked through."""
    origin = typing.get_origin(wanted)
    if wanted is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(wanted))
    if origin is Sequence:
        (inner,) = typing.get_args(wanted)
        fits = isinstance(value, (list, tuple)) and len(value) <= MOST_JOBS
        return fits and all(_fits(each, inner) for each in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    if wanted in (str, bool):
        return isinstance(value, wanted)
    return value is None and wanted is type(None)


def _is_long(value: Any, depth: int = 20) -> bool:
    if isinstance(value, str):
        return len(value) > MOST_NAME
    if isinstance(value, (list, tuple, Mapping)) and depth == 0:
        return True
    if isinstance(value, (list, tuple)):
        return any(_is_long(each, depth - 1) for each in value)
    if isinstance(value, Mapping):
        return any(_is_long(key) or _is_long(each, depth - 1) for key, each in value.items())
    return False


def _brief(value: Any) -> str:
    return (
        f"{str(value)[:60]!r}"
        if isinstance(value, (str, int, float, bool, type(None)))
        else f"a {type(value).__name__}"
    )
