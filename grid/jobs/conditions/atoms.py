"""Kinds of atoms: a job's end, its messages and results, downloads, resources.

Each is two-sided. At the client it is a definition, and a probe of what goes on at the server; at the server one
`AtomWorld` (the job manager) begins its work and feeds it with what happens to its job.

Lives here: the kinds, their arguments, what event makes each T or C.
Elsewhere:  JSON of them (`tree.py`), downloads (`fetch/fetcher.py`), who feeds them (`manager/job_manager.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from grid.jobs.conditions.algebra import Atom, C, F, T, Value
from grid.jobs.conditions.expressions import Expression
from grid.jobs.conditions.reasons import follow
from grid.jobs.conditions.work import Work
from grid.jobs.host.errors import ConditionError, ExpressionError
from grid.jobs.host.messages import ENDS, Message, snake


@dataclass(frozen=True)
class JobView:
    """What an atom may know of its job: its state, its reason where it went wrong, and the values of its results."""

    job: str
    state: str
    reason: str = ""
    result: Any = None
    best: Any = None
    has_best: bool = False


class AtomWorld(Protocol):
    """Where atoms live at the server."""

    def follow(self, atom: JobAtom) -> None:
        """Tell `atom.see(view)` now, and at each change of its job; `atom.hear(message)` for each of its messages."""

    def unfollow(self, atom: JobAtom) -> None:
        """Tell it no more of its job."""

    def fetch(self, atom: IsFetched) -> None:
        """Download its file, and tell it when the file has arrived or can't."""

    def unfetch(self, atom: IsFetched) -> None:
        """Stop that download, unless others wait for it."""

    def supply(self, atom: HasServers) -> None:
        """Tell it when its number of servers is up."""

    def unsupply(self, atom: HasServers) -> None:
        """Stop asking for servers for it."""

    def watch(self, atom: IsElsewhere) -> None:
        """Ask another job server about its job, and tell it how that job ends."""

    def unwatch(self, atom: IsElsewhere) -> None:
        """Stop asking."""


ENDED = ("complete", "error", "aborted", "cancelled")
"""States in which a job has ended."""

Probe = Callable[[Atom], tuple[Value, str]]
"""Asks a server what an atom is: its value and its reason."""

_ids = itertools.count(1)


class KnownAtom(Atom):
    """An atom that travels: `kind` and `arguments` say all about it."""

    kind: ClassVar[str]
    is_outside: ClassVar[bool] = False
    """Whether its work is outside of this server: it connects, or fetches."""
    owner: str = ""
    """The user that waits for it, or the first of several: its work counts in that user's share."""
    world: AtomWorld | None = None
    probe: Probe | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Plain values to make it again of."""
        raise NotImplementedError

    def _look(self) -> Value:
        """Its state now. Without a world `probe` is asked at each look."""
        if self._state is F and self.probe is not None and self.world is None:
            value, reason = self.probe(self)
            if value is not F:
                self._state, self.reason = value, reason  # decided for good
            return value
        return self._state


class JobAtom(KnownAtom):
    """About one job."""

    def __init__(self, job: Any, id: str | None = None) -> None:
        super().__init__(id)
        self.job: str = job if isinstance(job, str) else job.id
        self.handle: Any = None if isinstance(job, str) else job
        if not isinstance(job, str) and self.probe is None:
            self.probe = getattr(job, "_probe", None)

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes it again: the job's id."""
        return {"job": self.job}

    def _begin(self) -> None:
        if self.world is None:
            raise ConditionError(f"{self} is not at a server", hint="Give it as when= with a request")
        self.world.follow(self)

    def end(self) -> None:
        """It is not needed any more: its world stops telling it of the job."""
        if self.world is not None:
            self.world.unfollow(self)

    @property
    def past(self) -> tuple[str, ...]:
        """Kinds of messages that count though they were said before somebody waited."""
        return ()

    @property
    def is_tested(self) -> bool:
        """Whether its verdict takes an expression or code: then a thread of its own decides it (`judge.py`)."""
        return False

    def verdict(self, event: JobView | Message, work: Work | None = None) -> tuple[Value, str] | None:
        """What an event of its job makes of it: T, or C with the reason; None: nothing. Changes nothing.

        Args:
            work: What its expression may cost.
        """
        raise NotImplementedError

    def see(self, view: JobView) -> None:
        """The state of the job, now and whenever it changes."""
        self._take(view)

    def hear(self, message: Message) -> None:
        """A message of the job."""
        self._take(message)

    def _take(self, event: JobView | Message) -> None:
        found = self.verdict(event) if self._state is F else None
        if found is not None:
            self.decide(*found)


class IsCompleted(JobAtom):
    """T when the job is complete, also if it was before; C when it fails, is aborted or cancelled."""

    kind = "completed"

    def verdict(self, event: JobView | Message, work: Work | None = None) -> tuple[Value, str] | None:
        """Satisfied by a job that completed, cancelled by one that ended otherwise; None while it runs."""
        if isinstance(event, Message) or event.state not in ENDED:
            return None
        return (T, "") if event.state == "complete" else (C, told(event))

    def text(self, most: int | None = None) -> str:
        """`JOB completed`."""
        return f"{self.job} completed"


class IsCancelled(JobAtom):
    """T when the job fails, is aborted or cancelled; C when it completes."""

    kind = "cancelled"

    def verdict(self, event: JobView | Message, work: Work | None = None) -> tuple[Value, str] | None:
        """Satisfied by a job that ended without completing, cancelled by one that completed; None while it runs."""
        if isinstance(event, Message) or event.state not in ENDED:
            return None
        return (T, "") if event.state != "complete" else (C, f"job {event.job} completed")

    def text(self, most: int | None = None) -> str:
        """`JOB failed`."""
        return f"{self.job} failed"


class IsMessage(JobAtom):
    """T at the first message of the job that passes the filter; C if the job ends without one.

    Messages that were said before somebody waited count as far as they are kept (`grid/jobs/manager/history.py`).

    The filter: messages of the class named `message`, for which the expression `where` over its fields holds. At the
    client also `predicate`, or methods of a subclass named after the message's class, `on_improved(message)`, that
    return whether they accept; a class without a method goes to `on_message`, which refuses. An exception in a filter
    cancels the atom, and is raised.
    """

    kind = "message"

    def __init__(
        self,
        job: Any,
        message: str | None = None,
        where: str | None = None,
        predicate: Callable[[Message], bool] | None = None,
        id: str | None = None,
    ) -> None:
        super().__init__(job, id)
        self.message, self.where, self.predicate = message, where, predicate
        self._expression = Expression(where) if where is not None else None

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes it again: job, message, expression. ConditionError: the filter is code, which can't be kept."""
        own = [name for name in dir(type(self)) if name.startswith("on_") and name != "on_message"]
        if self.predicate is not None or own:
            raise ConditionError(
                "a filter that is code of yours can't be stored at a server",
                hint="Name the message's class, and give an expression as where=; code works with monitor=",
            )
        if self.message is None:
            raise ConditionError("this condition accepts no message", hint="Name the class of the message")
        return {"job": self.job, "message": self.message, "where": self.where}

    def on_message(self, message: Message) -> bool:
        """Messages that have no filter: refused."""
        return False

    @property
    def past(self) -> tuple[str, ...]:
        """Classes of messages of which one of the past may decide."""
        return () if self.message is None else (self.message,)

    @property
    def is_tested(self) -> bool:
        """Whether the message's contents decide, and not only that it came."""
        return self._expression is not None or self.predicate is not None or self.message is None

    def accepts(self, message: Message, work: Work | None = None) -> bool:
        """What the filter says."""
        if self.predicate is not None:
            return bool(self.predicate(message))
        if self.message is not None:
            if message.kind != self.message:
                return False
            return self._expression is None or bool(self._expression(message.fields, work))
        for name in (f"on_{message.kind}", f"on_{snake(message.kind)}"):
            if hasattr(self, name):
                return bool(getattr(self, name)(message))
        return self.on_message(message)

    def verdict(self, event: JobView | Message, work: Work | None = None) -> tuple[Value, str] | None:
        """Satisfied by a message that passes the filter, cancelled by the job's end; None before."""
        if isinstance(event, Message) and self.accepts(event, work):
            return T, ""
        over = event.kind in ENDS if isinstance(event, Message) else event.state in ENDED
        return (C, f"job {self.job} ended without such a message") if over else None

    def hear(self, message: Message) -> None:
        """A message of the job; satisfied if it passes. An error in the filter is raised, and cancels this."""
        try:
            self._take(message)
        except Exception as exc:
            self.cancel(f"the filter for messages of {self.job} failed ({type(exc).__name__}: {exc})")
            raise

    put = hear  # as a monitor at the client

    def text(self, most: int | None = None) -> str:
        """`JOB says MESSAGE`, with its `where`."""
        return f"{self.job} says {self.message or '...'}{f' where {self.where}' if self.where else ''}"


class IsResult(JobAtom):
    """T at the first partial or final result for which the expression holds; C if the job ends without one.

    At the client the expression may be a callable of the result's value.
    """

    kind = "result"

    def __init__(self, job: Any, expression: str | Callable[[Any], bool], id: str | None = None) -> None:
        super().__init__(job, id)
        self.expression = expression
        self._test = Expression(expression) if isinstance(expression, str) else expression

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes it again: job and expression. ConditionError: a predicate is code, and can't be kept."""
        if not isinstance(self.expression, str):
            raise ConditionError(
                "a condition that is code of yours can't be stored at a server",
                hint="Write it as an expression, like 'rss < 0.1'",
            )
        return {"job": self.job, "expression": self.expression}

    @property
    def past(self) -> tuple[str, ...]:
        """Improvements of the past count."""
        return ("Improved",)

    @property
    def is_tested(self) -> bool:
        """Always: the result's value decides."""
        return True

    def verdict(self, event: JobView | Message, work: Work | None = None) -> tuple[Value, str] | None:
        """Satisfied once the expression holds for a result, cancelled by a job that ended and it never did."""
        if isinstance(event, Message):
            if event.kind == "Improved":
                found = self._try(event.partial, work)
                return (T, "") if found is True else None
            if event.kind not in ENDS:
                return None
            return self._end(self._try(event.final, work) if event.kind == "Completed" else "")
        if event.has_best and self._try(event.best, work) is True:
            return T, ""
        if event.state == "complete":
            return self._end(self._try(event.result, work))
        return (C, told(event)) if event.state in ENDED else None

    def _try(self, value: Any, work: Work | None) -> str | bool:
        """Whether it holds for a value; text: why it could not be tested."""
        try:
            return bool(self._test(value, work) if isinstance(self._test, Expression) else self._test(value))
        except ExpressionError as exc:
            return exc.what

    def _end(self, found: str | bool) -> tuple[Value, str]:
        if found is True:
            return T, ""
        return C, found or f"job {self.job} ended without a result for which {self.expression} holds"

    put = JobAtom.hear  # as a monitor at the client

    def text(self, most: int | None = None) -> str:
        """`JOB has EXPRESSION`."""
        return f"{self.job} has {self.expression}"


class IsFetched(KnownAtom):
    """T when the file behind a URL lies at the server, complete; C when it can't be had.

    Args:
        url: http, https or file.
        sha256: What its contents must hash to, in hex.
        size: How many bytes it must have.
    """

    kind = "fetched"
    is_outside = True

    def __init__(self, url: str, sha256: str | None = None, size: int | None = None, id: str | None = None) -> None:
        super().__init__(id)
        if not isinstance(url, str) or url.split(":", 1)[0] not in ("http", "https", "file"):
            raise ConditionError(f"{url!r} can't be fetched", hint="Give a URL that begins with http, https or file")
        self.url, self.sha256, self.size = url, sha256, size

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes it again: URL, checksum (SHA-256, hexadecimal) and size in bytes."""
        return {"url": self.url, "sha256": self.sha256, "size": self.size}

    def _begin(self) -> None:
        if self.world is None:
            raise ConditionError(f"{self} is not at a server", hint="Give it as when= with a request")
        self.world.fetch(self)

    def end(self) -> None:
        """It is not needed any more: the download stops, unless others wait for it."""
        if self.world is not None:
            self.world.unfetch(self)

    def text(self, most: int | None = None) -> str:
        """`URL fetched`."""
        return f"{self.url} fetched"


class HasServers(KnownAtom):
    """T once the grid has `n` servers at least."""

    kind = "servers"

    def __init__(self, n: int, id: str | None = None) -> None:
        super().__init__(id)
        if not isinstance(n, int) or n < 1:
            raise ConditionError(f"a number of servers must be 1 or more, not {n!r}", hint="Give a whole number")
        self.n = n

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes it again: the number of servers."""
        return {"n": self.n}

    def _begin(self) -> None:
        if self.world is None:
            raise ConditionError(f"{self} is not at a server", hint="Give it as when= with a request")
        self.world.supply(self)

    def end(self) -> None:
        """It is not needed any more: nobody asks for servers for it."""
        if self.world is not None:
            self.world.unsupply(self)

    def text(self, most: int | None = None) -> str:
        """`N servers there`."""
        return f"{self.n} servers there"


class IsElsewhere(KnownAtom):
    """What another atom says, about a job of another server, to which this server listens.

    Args:
        server: The URL of that server.
        what: The atom as a plain tree, as it would be there.
        auth: Name of the credentials that were left here for it; None: that server asks for none.
    """

    kind = "elsewhere"
    is_outside = True

    def __init__(self, server: str, what: dict[str, Any], auth: str | None = None, id: str | None = None) -> None:
        super().__init__(id)
        if not isinstance(server, str) or server.split("://", 1)[0] not in ("http", "https"):
            raise ConditionError(f"{server!r} can't be listened to", hint="Give the URL of a job server")
        if not isinstance(what, dict) or what.get("atom") not in JOB_KINDS or not isinstance(what.get("job"), str):
            raise ConditionError("this is no condition on a job elsewhere", hint="One of a single job")
        self.server, self.auth = server, auth
        self.what = {name: value for name, value in what.items() if name != "id"}
        self.inner()

    def inner(self) -> JobAtom:
        """The atom, to be fed with what the other server says."""
        arguments = {name: value for name, value in self.what.items() if name != "atom"}
        try:
            return JOB_KINDS[self.what["atom"]](**arguments)
        except TypeError as exc:
            raise ConditionError(f"a condition elsewhere with wrong arguments ({exc})", hint="See docs") from exc

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes it again: server, condition there, and the name of the credentials."""
        return {"server": self.server, "what": self.what, "auth": self.auth}

    def _begin(self) -> None:
        if self.world is None:
            raise ConditionError(f"{self} is not at a server", hint="Give it as when= with a request")
        self.world.watch(self)

    def end(self) -> None:
        """It is not needed any more: the other server is not asked again."""
        if self.world is not None:
            self.world.unwatch(self)

    def text(self, most: int | None = None) -> str:
        """The condition there, and at which server."""
        return f"{self.inner().text(most)} at {self.server}"


IsComplete = IsCompleted

JOB_KINDS: dict[str, type[JobAtom]] = {cls.kind: cls for cls in (IsCompleted, IsCancelled, IsMessage, IsResult)}

KINDS: dict[str, type[KnownAtom]] = {
    cls.kind: cls for cls in (IsCompleted, IsCancelled, IsMessage, IsResult, IsFetched, HasServers, IsElsewhere)
}


def told(view: JobView) -> str:
    """Why a job that waits for this one can't go on: the last links of the chain, and the root cause."""
    how = {"error": "failed", "aborted": "was aborted", "cancelled": "was cancelled"}[view.state]
    return follow(f"job {view.job} {how}", view.reason)
