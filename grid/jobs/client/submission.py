"""What a submission consists of: a request with its options, as plain values for the server.

Lives here: `Options`, and what becomes of a condition on a job of another server.
Elsewhere:  sending it (`proxy.py`), checking it at the server (`manager/admission.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grid.jobs.api import Calls
from grid.jobs.conditions.algebra import all_of
from grid.jobs.conditions.atoms import IsElsewhere, KnownAtom
from grid.jobs.conditions.tree import as_condition, to_tree
from grid.jobs.fetch.deposits import Credentials
from grid.jobs.host.errors import ConditionError, RequestError
from grid.jobs.host.plain import to_plain
from grid.jobs.host.request import Request
from grid.jobs.rules.tags import check_tags
from grid.text import clean

ELSEWHERE_S = 7 * 86400.0
"""How long a condition on a job of another server may wait."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Beside the request; see `ServerProxy.submit`."""

    when: Any = None
    after: Any = None
    tags: Iterable[str] = ()
    priority: int = 0
    inputs: Sequence[Any] | None = None
    memo: bool | None = None
    notify: str | None = None
    mails: str | None = None

    def to_plain(self, request: Request, tags: Iterable[str], swap: Callable[[KnownAtom], KnownAtom]) -> dict[str, Any]:
        """As `admission.admit` takes it.

        Args:
            tags: Those of the connection, which come first.
            swap: Gives the atom to be sent for each atom.
        Raises:
            RequestError, ConditionError: It can't be used; the message says why.
        """
        if not isinstance(request, Request):
            raise RequestError(f"{request!r} is no request", hint="Make one with Service.request(...)")
        both = (as_condition(self.when), as_condition(self.after))
        condition = all_of([part for part in both if part is not None])
        return {
            "request": request.to_plain(),
            "when": None if condition is None else to_tree(condition, swap=swap),
            "tags": check_tags([*tags, *([self.tags] if isinstance(self.tags, str) else self.tags)]),
            "priority": self.priority,
            "inputs": None if self.inputs is None else _inputs(self.inputs),
            "memo": self.memo,
            "notify": self.notify,
            "mails": self.mails,
        }


def _inputs(inputs: Any) -> Any:
    """Inputs of a job, as JSON has them: a list, a tuple, an array or an iterator of them."""
    if isinstance(inputs, (str, bytes, bytearray, Mapping)) or not isinstance(inputs, Iterable):
        raise RequestError(
            f"inputs is {clean(repr(inputs), 80)}, which is no list of inputs",
            hint="Give a list: the job runs once for each of its elements",
        )
    return to_plain(list(inputs), "inputs")


def reachable(atom: KnownAtom, calls: Calls) -> KnownAtom:
    """The atom; for a job of another server one to which this server can listen, with credentials for it.

    Raises:
        ConditionError: That server can't be reached by others.
    """
    job: Any = getattr(atom, "handle", None)
    other: Any = getattr(job, "_service", None)
    if other is None or _are_one(other.calls, calls):
        return atom
    if getattr(other.calls, "where", None) is None:
        raise ConditionError(
            f"job {job.id} is at a server that can't be reached by others", hint="grid serve --http", job=job.id
        )
    credentials = other.credentials(jobs=[job.id], lifetime_s=ELSEWHERE_S)
    what = {"atom": atom.kind, **atom.arguments}
    return IsElsewhere(credentials.url, what, deposit(calls, credentials))


def deposit(calls: Calls, credentials: Credentials) -> str:
    """Leave credentials at the server; their name. Raises RequestError."""
    if not isinstance(credentials, Credentials):
        raise RequestError(f"{type(credentials).__name__} is no credentials", hint="See service.credentials(...)")
    return calls.deposit(credentials.to_plain())


def _are_one(one: Any, other: Any) -> bool:
    """Whether two connections lead to the same server: the manager of this process, a socket, a URL."""
    return one is other or any(
        getattr(one, name, None) is not None and getattr(one, name) == getattr(other, name, None)
        for name in ("manager", "path", "where")
    )
