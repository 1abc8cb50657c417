"""Checks submissions and makes records of them: nothing is stored before all of it is right.

Lives here: `Submission`, `admit`.
Elsewhere:  who stores them and tells others (`job_manager.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.jobs.conditions.algebra import Condition, all_of
from grid.jobs.conditions.atoms import IsCompleted, JobAtom, KnownAtom
from grid.jobs.conditions.tree import Most, from_tree, new_atom, to_tree, weigh
from grid.jobs.host.errors import ConditionError, RequestError, UnknownJobService
from grid.jobs.host.plain import dumps, from_plain, to_plain
from grid.jobs.host.references import jobs_in
from grid.jobs.host.request import check_plain
from grid.jobs.manager.registry import ServiceRegistry
from grid.jobs.record import JobRecord
from grid.jobs.rules.post import MAILS
from grid.jobs.rules.states import JobState
from grid.jobs.rules.tags import check_tags
from grid.text import clean

if TYPE_CHECKING:
    from grid.jobs.host.service import Service

MOST_PRIORITY = 100
MOST_TAGS = 100
MOST_TAG = 300


@dataclass
class Context:
    """What `Request.queue` may use; see `host/request.QueueContext`."""

    job: str
    directory: Path


@dataclass(frozen=True)
class Admitted:
    """A record to be stored, and the condition that it waits for."""

    record: JobRecord
    condition: Condition | None
    late: bool = False
    """Its service is being installed: `fit_late` makes its request fit after that."""
    memo: bool | None = None
    """Whether its submitter wants remembered results; None: as its service says."""


def atom_id(kind: str, arguments: Mapping[str, Any]) -> str:
    """The id of an atom at the server: the same for the same definition, also after a restart."""
    return f"{kind}.{hashlib.sha256(dumps([kind, dict(arguments)]).encode()).hexdigest()[:16]}"


def admit(
    plain: Mapping[str, Any],
    *,
    owner: str,
    job: str,
    number: int,
    now: float,
    directory: Path,
    registry: ServiceRegistry,
    exists: Callable[[str], bool],
    most: Most,
    may_wait: Callable[[KnownAtom], None] = lambda atom: None,
    installing: Callable[[str, str, Any], str | None] = lambda owner, service, tree: None,
) -> Admitted:
    """Check one submission. Holds no lock: it takes as long as its expressions take to parse.

    Args:
        plain: `request`, and where wanted `when` (a tree), `tags`, `priority`, `inputs`, `memo`, `notify`, `mails`.
        exists: Whether there is such a job.
        most: What a condition may hold.
        may_wait: Raises for an atom that this owner may not wait for.
        installing: The job that installs a service which is not here yet, for (owner, service, condition); None: none.
    Raises:
        RequestError, ConditionError, UnknownJobService: It can't be used; the message says why.
    """
    if not isinstance(plain, Mapping) or not plain.get("request"):
        raise RequestError("there is no request to submit", hint="Make one with Service.request(...)")
    asked = _checked(plain["request"])
    service: type[Service] | None = None
    needs: str | None = None
    try:
        service, request = registry.fit(_own(asked, owner, registry))
    except UnknownJobService:
        needs = installing(owner, asked["service"], plain.get("when"))
        if needs is None:
            raise
        request = asked
    priority = plain.get("priority") or 0
    if type(priority) is not int or not 0 <= priority <= MOST_PRIORITY:
        raise RequestError(f"the priority {priority!r} is no whole number from 0 to {MOST_PRIORITY}", hint="0 is free")
    inputs = plain.get("inputs")
    if inputs is not None and not isinstance(inputs, list):
        raise RequestError(f"inputs must be a list, not {clean(repr(inputs), 80)}", hint="One element for each run")
    if inputs is not None:
        inputs = to_plain(from_plain(inputs), "inputs")
    if service is not None:
        request = _queue(service, request, Context(job, directory / "jobs" / job))
    condition = _condition(plain.get("when"), request, inputs, exists, most, may_wait, needs)
    tags = check_tags(plain.get("tags") or [])
    if len(tags) > MOST_TAGS or any(len(tag) > MOST_TAG for tag in tags):
        raise RequestError(f"more than {MOST_TAGS} tags, or one longer than {MOST_TAG}", hint="Use fewer, shorter ones")
    memo = plain.get("memo")
    record = JobRecord(
        job,
        number,
        owner,
        request["service"],
        request["version"],
        request,
        state=JobState.WAITING if condition is not None else JobState.PENDING,
        priority=priority,
        tags=tags,
        condition=to_tree(condition) if condition is not None else None,
        inputs=inputs,
        created=now,
        use_memo=bool(memo) if memo is not None or service is None else service.memo,
        notify=check_email(plain.get("notify") or ""),
        mails=check_mails(plain.get("mails") or ""),
    )
    return Admitted(record, condition, late=service is None, memo=None if memo is None else bool(memo))


def fit_late(record: JobRecord, directory: Path, registry: ServiceRegistry, memo: bool | None) -> dict[str, Any]:
    """Columns of a job whose service was installed after the job was submitted.

    Raises:
        UnknownJobService: It is not there. RequestError: It can't use the request.
    """
    service, request = registry.fit(_own(record.request, record.owner, registry))
    request = _queue(service, request, Context(record.id, directory / "jobs" / record.id))
    return {
        "service": request["service"],
        "version": request["version"],
        "request": request,
        "use_memo": service.memo if memo is None else memo,
    }


def _checked(request: Any) -> dict[str, Any]:
    """A saved request whose values are as `to_plain` makes them, whatever program wrote it."""
    check_plain(request)
    data = {name: to_plain(from_plain(value), f"request.{name}") for name, value in request["data"].items()}
    return {**request, "data": data}


def _own(request: dict[str, Any], owner: str, registry: ServiceRegistry) -> dict[str, Any]:
    """The request, for the service that its owner installed, if there is one of that name."""
    own = f"{owner}/{request.get('service')}"
    return {**request, "service": own} if own in registry.services() else request


def _queue(service: type[Service], plain: dict[str, Any], context: Context) -> dict[str, Any]:
    """Let the request fill in what is known now."""
    request = service.request_class.from_plain(plain)
    try:
        request.queue(context)
    except NotImplementedError:
        return plain
    except Exception as exc:
        raise RequestError(
            f"{type(request).__name__}.queue failed ({type(exc).__name__}: {exc})", hint="Nothing was submitted"
        ) from exc
    return request.to_plain()


def build(
    tree: Any, most: Most, exists: Callable[[str], bool], may_wait: Callable[[KnownAtom], None] = lambda atom: None
) -> Condition:
    """The condition of a tree, of fresh atoms with the ids that they have at the server."""
    weigh(tree, most)

    def make(kind: str, _: str, arguments: dict[str, Any]) -> KnownAtom:
        return _make(kind, arguments, exists, may_wait)

    return from_tree(tree, make)


def _make(
    kind: str, arguments: dict[str, Any], exists: Callable[[str], bool], may_wait: Callable[[KnownAtom], None]
) -> KnownAtom:
    atom = new_atom(kind, "", arguments)  # checks kind and arguments
    may_wait(atom)
    if isinstance(atom, JobAtom) and not exists(atom.job):
        raise ConditionError(f"there is no job {atom.job!r} to wait for", hint="See `grid jobs list`", job=atom.job)
    atom.id = atom_id(kind, atom.arguments)
    return atom


def _condition(
    tree: Any,
    request: dict[str, Any],
    inputs: Any,
    exists: Callable[[str], bool],
    most: Most,
    may_wait: Callable[[KnownAtom], None],
    needs: str | None,
) -> Condition | None:
    parts = [] if tree is None else [build(tree, most, exists, may_wait)]
    already = {part.job for part in parts if isinstance(part, IsCompleted)}
    needed = sorted((jobs_in(request["data"]) | jobs_in(inputs) | ({needs} if needs else set())) - already)
    if len(needed) > most.atoms:
        raise ConditionError(f"a request refers to more than {most.atoms} jobs", hint="Split it")
    for job in needed:
        parts.append(_make("completed", {"job": job}, exists, lambda atom: None))
    return all_of(parts)


def check_email(address: str) -> str:
    """The address, if it can be one; empty for none."""
    name, at, host = address.partition("@") if isinstance(address, str) else ("", "", "")
    odd = any(c.isspace() or not c.isprintable() or c in '<>,;:()[]\\"' for c in str(address))
    if address and (not at or not name or not host or odd or "@" in host or name[0] == "-" or len(address) > 254):
        raise RequestError(f"{address!r} is no e-mail address", hint="Give one like name@host, or none")
    return address


def check_mails(mails: str) -> str:
    """When mails go, if that is known; empty for no wish."""
    if mails and mails not in MAILS:
        raise RequestError(f"{mails!r} is no time for mails", hint=f"Use {', '.join(MAILS)}")
    return mails
