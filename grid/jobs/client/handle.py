"""A job as its client sees it.

Lives here: `Job`, `Race`.
Elsewhere:  the proxy that makes handles (`proxy.py`), values of jobs as data of others (`host/references.py`).
"""

from __future__ import annotations

import base64
import difflib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

from grid.jobs.api import Calls
from grid.jobs.client.listening import Listening
from grid.jobs.conditions.algebra import Atom, Condition, Value
from grid.jobs.conditions.atoms import IsCancelled, IsCompleted, IsMessage, IsResult
from grid.jobs.host.errors import JobAborted, JobCancelled, JobError, JobFailed, WaitTimeout
from grid.jobs.host.messages import ENDS, Message
from grid.jobs.host.plain import from_plain
from grid.jobs.host.references import Field, Reference
from grid.jobs.host.request import Request
from grid.jobs.rules.states import JobState

_ENDED = ("done", "finished", "ended", "completed", "running", "ready", "success", "successful", "succeeded")
"""What others call the state of a job; a result rarely does."""


class _Origin(Protocol):
    """What handles need of the connection by which they came: `ServerProxy`."""

    calls: Calls

    def job(self, id: str) -> Job: ...
    def status(self, id: str) -> dict[str, Any]: ...
    def abort(self, id: str, reason: str = "", grace_s: float | None = None) -> None: ...
    def stop(self, id: str, reason: str = "") -> None: ...
    def control(self, id: str, message: Message | str, **fields: Any) -> None: ...
    def ask(self, id: str, message: Message | str, timeout: float = 30.0, **fields: Any) -> Any: ...
    def listen(self, key: str) -> Listening: ...
    def evaluate(self, condition: Condition) -> tuple[Value, str]: ...
    def archive(self, jobs: Sequence[str | Job]) -> None: ...
    def delete(self, jobs: Sequence[str | Job]) -> None: ...


class ResultOf(Reference):
    """`job.result`: a reference, and, called with an expression, a condition on it: `job.result("rss < 1")`."""

    handle: Job

    def __call__(self, expression: str) -> IsResult:
        return IsResult(self.handle, expression)


class Job:
    """A handle. Equal to its id, and to other handles of the same job.

    Values of the request are attributes, including those that were filled in when it was queued; any other name is a
    reference to that part of the result: both can be given as data to other requests. A name that is nearly that of an
    attribute is an AttributeError, which names both: `job.result["stats"]` is a part of the result in any case.
    """

    def __init__(self, service: _Origin, detail: Mapping[str, Any]) -> None:
        self._service = service
        self.id: str = detail["id"]
        self._request = detail.get("request")

    # -- its state -------------------------------------------------------------------------------------------------

    @property
    def request(self) -> Request:
        """A copy of its request, as the server has it."""
        if self._request is None:
            self._request = self._service.calls.fetch(self.id)["request"]
        return Request.from_plain(self._request)

    @property
    def status(self) -> dict[str, Any]:
        """State, progress, times, reason; see `Server.status`."""
        return self._service.status(self.id)

    @property
    def state(self) -> JobState:
        """Where it is in its life."""
        return JobState(self.status["state"])

    @property
    def error(self) -> str:
        """The error; empty if there is none."""
        return str(self._service.calls.fetch(self.id)["error"])

    @property
    def best(self) -> Any:
        """The best result so far."""
        return from_plain(self.status["best"])

    @property
    def result(self) -> ResultOf:
        """A reference to its result, to be given to other requests; `result.value()` and `wait()` wait for it."""
        made = ResultOf(self.id, (), self.wait)
        made.handle = self
        return made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        data = self.request.data
        if name in data:
            value = data[name]
            return Field(value, self.id, name) if type(value) is str else value
        meant = _meant(type(self), name)
        if meant:
            raise AttributeError(
                f"a job has no attribute {name!r}; did you mean {meant}? "
                f"A part of its result that is called so is job.result[{name!r}]"
            )
        return Reference(self.id, (name,), self.wait)

    # -- conditions ------------------------------------------------------------------------------------------------

    @property
    def iscompleted(self) -> IsCompleted:
        """That it is complete."""
        return IsCompleted(self)

    @property
    def failed(self) -> IsCancelled:
        """That it failed, was aborted or cancelled."""
        return IsCancelled(self)

    def message(self, kind: str, where: str | None = None) -> IsMessage:
        """That it said a message of that kind, for whose fields the expression `where` holds."""
        return IsMessage(self, kind, where)

    def _probe(self, atom: Atom) -> tuple[Value, str]:
        return self._service.evaluate(atom)

    # -- doing -----------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until it has ended, and return its result.

        Raises:
            JobFailed, JobAborted, JobCancelled: It ended otherwise; the error says how.
            WaitTimeout: Not within `timeout` seconds (also a TimeoutError); it goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            detail = self._service.calls.wait(self.id, left)
            if detail is not None:
                return outcome(detail)
            if left is not None and left <= 0:
                raise WaitTimeout(
                    f"job {self.id} is {self.state} after {timeout:g} s", hint="It goes on; wait again", job=self.id
                )

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.to_thread(self.wait).__await__()

    def abort(self, reason: str = "", grace_s: float | None = None) -> None:
        """Ask it to end at its next safe point; by force after the grace time. May be repeated."""
        self._service.abort(self.id, reason, grace_s)

    def stop(self, reason: str = "") -> None:
        """End it at once; KeyError if it has ended."""
        self._service.stop(self.id, reason)

    def control(self, message: Message | str, **fields: Any) -> None:
        """Send it a message: one, or its kind and fields. It waits until the job is ready for it."""
        self._service.control(self.id, message, **fields)

    def pause(self) -> None:
        """Have it wait at its next safe point."""
        self.control("Pause")

    def resume(self) -> None:
        """Have it go on."""
        self.control("Resume")

    def ask(self, message: Message | str, timeout: float = 30.0, **fields: Any) -> Any:
        """Send a message that the job answers with `handler.answer`, and return the answer."""
        return self._service.ask(self.id, message, timeout, **fields)

    def messages(self, timeout: float | None = None) -> Iterator[Message]:
        """Its messages: first how things stand (Join), then each as it comes, until it has ended.

        Raises:
            TimeoutError: None came for `timeout` seconds.
        """
        with self._service.listen(self.id) as listener:
            while True:
                message = listener.get(timeout)
                yield message
                if message.kind in ENDS:
                    return

    def explain(self) -> str:
        """Why it is where it is."""
        return str(self._service.calls.explain(self.id))

    def files(self) -> dict[str, int]:
        """Output files that it kept: name -> bytes."""
        found: dict[str, int] = self._service.calls.files(self.id)
        return found

    def read(self, name: str) -> bytes:
        """The contents of one of them."""
        parts: list[bytes] = []
        while True:  # the server reads a piece at a time
            part = base64.b64decode(self._service.calls.read_file(self.id, name, sum(map(len, parts))))
            if not part:
                return b"".join(parts)
            parts.append(part)

    def url(self, name: str) -> str:
        """Where an output file lies, for `fetch_url` of another server. Raises JobError if that can't reach it."""
        where = getattr(self._service.calls, "where", None)
        if where is None:
            raise JobError("the files of this server can't be reached by URL", hint="grid serve --http", job=self.id)
        return f"{where['url']}/api/v1/jobs/{self.id}/files/{name}"

    def archive(self) -> None:
        """Take it off the list."""
        self._service.archive([self.id])

    def delete(self) -> None:
        """Remove it and its data."""
        self._service.delete([self.id])

    def __grid_plain__(self) -> Any:
        return self.result.__grid_plain__()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Job):
            return other.id == self.id and other._service is self._service
        return isinstance(other, str) and other == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


def _meant(cls: type, name: str) -> str:
    """The attribute that somebody who wrote this name probably meant; empty: none, it is a part of the result."""
    if name in _ENDED or name.startswith(("is_", "has_", "get_", "set_")):
        return "job.state, job.state.ended or job.wait()"
    known = [each for each in dir(cls) if not each.startswith("_")]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f"job.{near[0]}" if near else ""


def outcome(detail: Mapping[str, Any]) -> Any:
    """The result of a job that has ended, or its error raised."""
    job, state = detail["id"], detail["state"]
    if state == "complete":
        return from_plain(detail["result"])
    if state == "error":
        trace, error = detail["trace"], detail["error"]
        raise JobFailed(f"job {job} failed: {error}", job=job, error=error, trace=trace)
    reason = detail["reason"]
    if state == "aborted":
        raise JobAborted(f"job {job} was aborted: {reason}", job=job, partial=from_plain(detail["best"]))
    if state == "cancelled":
        raise JobCancelled(f"job {job} was cancelled: {reason}", job=job, reason=reason)
    raise JobError(f"job {job} has not ended", hint="Wait for it", job=job)


class Race:
    """Jobs of which the first that is good enough ends the others."""

    def __init__(self, service: _Origin, id: str, jobs: list[Job]) -> None:
        self._service, self.id, self.jobs = service, id, jobs

    @property
    def winner(self) -> Job | None:
        """The job that was first; None before."""
        name = self._service.calls.race_status(self.id)["winner"]
        return self._service.job(name) if name is not None else None

    def wait(self, timeout: float | None = None) -> Any:
        """The winner's result.

        Raises:
            JobError: All ended, and none was good enough.
            WaitTimeout: Not within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.02
        while True:
            status = self._service.calls.race_status(self.id)
            left = None if deadline is None else deadline - time.monotonic()
            if status["winner"] is not None:
                return self._service.job(status["winner"]).wait(left)
            if status["over"]:
                raise JobError(f"no job of {self.id} had {status['expression']}", hint="See their results")
            if left is not None and left <= 0:
                raise WaitTimeout(f"{self.id} is open after {timeout:g} s", hint="It goes on")
            time.sleep(pause if left is None else min(pause, max(left, 0.0)))  # a probe: the far side tells nobody
            pause = min(0.5, pause * 1.5)
