"""What goes in and out over HTTP, as the OpenAPI description has it. Bodies with fields that are not here are refused.

Lives here: models. Answers are described by theirs and not checked against them, but by tests: checking takes longer
            than the rest of a request.
Elsewhere:  the routes (`routes.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Id = Annotated[str, Field(min_length=1, max_length=128)]
State = Literal["waiting", "pending", "active", "complete", "error", "aborted", "cancelled"]
Mails = Literal["immediate", "hourly", "daily", "off"]
Text = Annotated[str, Field(max_length=10_000)]
Word = Annotated[str, Field(max_length=300)]


class Body(BaseModel):
    """What a request brings along; fields that nobody knows are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


# ---- in ------------------------------------------------------------------------------------------------------------


class RequestBody(Body):
    """A saved request, as `request.save(path)` writes it."""

    grid_request: Annotated[int, Field(description="Format; 1.")] = 1
    service: Word
    version: Word
    data: dict[str, Any] = {}


class Submission(Body):
    """A job to be."""

    request: RequestBody
    when: Annotated[dict[str, Any] | None, Field(description="A tree of conditions; see docs/conditions.md")] = None
    tags: Annotated[list[Word], Field(max_length=100)] = []
    priority: Annotated[int, Field(ge=0, le=100)] = 0
    inputs: Annotated[list[Any] | None, Field(description="Run once for each of these")] = None
    memo: bool | None = None
    notify: Annotated[Word | None, Field(description="E-mail address")] = None
    mails: Annotated[Mails | None, Field(description="When a mail tells of its end")] = None


class AbortBody(Body):
    """How a job is aborted."""

    reason: Text = ""
    grace_s: Annotated[float | None, Field(ge=0, le=86400, description="Until force; null: the server's")] = None


class ControlBody(Body):
    """A message for a job."""

    kind: Annotated[str, Field(min_length=1, max_length=64)]
    fields: dict[str, Any] = {}


class Archive(Body):
    """Whether a job leaves the list."""

    archived: bool = True


class CallBody(Body):
    """Positional and named arguments of a call of `grid.jobs.Server`."""

    args: list[Any] = []
    kw: dict[str, Any] = {}


class JobsQuery(BaseModel):
    """Filters of the list of jobs: all that are given must fit."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[list[State] | None, Field(description="May be repeated", max_length=10)] = None
    active: Annotated[bool | None, Field(description="true: jobs that have not ended; false: that have")] = None
    owner: Word | None = None
    service: Word | None = None
    tag: Annotated[list[Word] | None, Field(description="May be repeated: all of them", max_length=100)] = None
    text: Annotated[Word | None, Field(description="Somewhere in the summary")] = None
    archived: bool = False
    order: Literal["newest", "oldest"] = "newest"
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    offset: Annotated[int, Field(ge=0, le=10_000_000)] = 0


# ---- out -----------------------------------------------------------------------------------------------------------


class ErrorAnswer(BaseModel):
    """Why something was not done."""

    error: str
    kind: Annotated[str, Field(description="Class in grid.errors or grid.jobs")]
    hint: str
    facts: dict[str, Any]


class Summary(BaseModel):
    """A job. Of other people's jobs `tags`, `data`, `best` and `reason` are empty. Times: seconds since 1970 (UTC)."""

    id: str
    owner: str
    service: str
    version: str
    state: State
    paused: Annotated[bool, Field(description="Whether it stands at a safe point until it is sent Resume")]
    priority: int
    archived: bool
    tags: list[str]
    created: float
    started: float | None
    ended: float | None
    attempt: int
    progress: Annotated[list[Any] | None, Field(description="[k, n, units]")]
    best: Any
    improved: Annotated[float | None, Field(description="When `best` was last said")]
    reason: str
    data: Annotated[dict[str, Any], Field(description="Values of the request")]


class Jobs(BaseModel):
    """Some of the jobs that fit."""

    jobs: list[Summary]
    total: Annotated[int, Field(description="How many fit; `jobs` is the part from `offset`")]
    offset: int
    limit: int


class JobAnswer(Summary):
    """All about a job but its result. Of other people's jobs what can't be seen is empty or null."""

    mine: Annotated[bool, Field(description="Whether you see all of it")]
    controllable: Annotated[bool, Field(description="Whether you may abort, steer, archive and delete it")]
    ready_age: Annotated[float | None, Field(description="Seconds since its last safe point")]
    oldest_unit: Annotated[
        dict[str, Any] | None, Field(description="The unit that is under way for longest: unit, age (s), host, worker")
    ]
    waits_for: str | None
    explain: Annotated[str, Field(description="Why it is where it is")]
    after: Annotated[list[dict[str, Any]], Field(description="Jobs in its condition: id and state")]
    condition: Annotated[
        dict[str, Any] | None,
        Field(description="Its tree; each part has a state: satisfied, pending or cancelled (it can't be any more)"),
    ]
    request: dict[str, Any] | None
    inputs: list[Any] | None
    error: str
    trace: str


class ResultAnswer(BaseModel):
    """The outcome of a job, as far as there is one."""

    id: str
    state: State
    ended: bool
    result: Any
    best: Any
    error: str
    trace: str
    reason: str


class Done(BaseModel):
    """It is done."""

    ok: Any = None


class Me(BaseModel):
    """Who the caller is, and what they may do."""

    user: str
    scopes: list[str]
    services: list[str] | None
    jobs: list[str] | None
    expires: float | None
    token: Annotated[str, Field(description="Its public id; empty at a server without tokens")]
    tokens: Annotated[bool, Field(description="Whether the server wants tokens")]
    grid: Annotated[str, Field(description="Version of the server")]


class Credits(BaseModel):
    """What a user has used and may still use."""

    user: str
    used: float
    balance: float
    allowance: float


class ServerState(BaseModel):
    """One server, what it does, and whether it is free."""

    name: str
    does: Literal["jobs", "units", "other"]
    state: str


class HostState(BaseModel):
    """One host and its servers."""

    host: str
    state: str
    busy: int
    free: int
    servers: list[ServerState]


class Hosts(BaseModel):
    """Servers that do units of jobs, and jobs at work. `servers` of a host lists those that run jobs, too."""

    grid: str
    busy: int
    free: int
    running: Annotated[int, Field(description="Jobs at work")]
    places: Annotated[int, Field(description="Jobs that may be at work at the same time")]
    hosts: list[HostState]


class Messages(BaseModel):
    """What a job has said, oldest first."""

    messages: list[dict[str, Any]]
