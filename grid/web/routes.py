"""The routes below /api/v1: each finds the user, asks the job server, and answers.

Lives here: jobs, services, hosts, streams, the calls of clients in Python.
Elsewhere:  what a caller may (`caller.py`), models (`models.py`), before all of it (`guard.py`).
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, Response

from grid._version import __version__
from grid.jobs.api import CONDITIONS, CONTROL, QUEUE, READ, SCOPES, row_of
from grid.jobs.host.errors import RequestError
from grid.jobs.host.names import safe_key
from grid.jobs.record import JobRecord
from grid.jobs.server import jobs_of
from grid.web import models
from grid.web.answers import Json
from grid.web.caller import Caller
from grid.web.events import ENDED
from grid.web.places import hosts_of
from grid.web.site import Site
from grid.web.streaming import EventStream
from grid.web.verdicts import condition_of

JobId = Annotated[str, Path(min_length=1, max_length=128, description="Id of a job")]
After = Annotated[str, Query(max_length=64, description="The last id that was seen; as the header Last-Event-ID")]


def answers(model: Any, status: int = 200, *more: int) -> dict[int | str, dict[str, Any]]:
    """Documented answers of a route."""
    texts = {
        400: "not JSON",
        401: "no token, or not a valid one",
        403: "the token is too narrow, or the job is somebody else's",
        404: "no such thing",
        408: "the body did not come in time",
        409: "not in this state",
        413: "too large",
        422: "can't be used; the message says why",
        503: "too busy, or stopping",
        507: "the disk is full",
    }
    found: dict[int | str, dict[str, Any]] = {status: {"model": model}} if model is not None else {}
    for number in (400, 401, 403, 408, 413, 422, 503, *more):
        found[number] = {"model": models.ErrorAnswer, "description": texts[number]}
    return found


def make_routes(site: Site) -> APIRouter:
    """All of them, for one site."""
    routes = APIRouter(prefix="/api/v1", default_response_class=Json)

    def caller(request: Request) -> Caller:
        return Caller(site.manager, request.state.who, site.tokens)

    # -- who and where -------------------------------------------------------------------------------------------

    @routes.get("/me", tags=["server"], responses=answers(models.Me))
    async def me(request: Request) -> Response:
        """Your user name at this server, and your rights."""
        who = request.state.who
        return Json(
            {
                "user": who.user,
                "scopes": [scope for scope in SCOPES if who.may(scope)],
                "services": None if who.services is None else sorted(who.services),
                "jobs": None if who.jobs is None else sorted(who.jobs),
                "expires": who.expires,
                "token": who.token,
                "tokens": not who.open,
                "grid": __version__,
            }
        )

    @routes.get("/services", tags=["server"], responses=answers(dict[str, list[str]]))
    async def services(request: Request) -> Response:
        """The services of the server: name -> versions."""
        return Json(caller(request).call("services"))

    @routes.get("/modules", tags=["server"], responses=answers(list[dict[str, Any]]))
    async def modules(request: Request) -> Response:
        """Modules that users have installed, with their services, versions and hashes."""
        return Json(await site.run(caller(request).call, "modules"))

    @routes.get("/credits", tags=["server"], responses=answers(models.Credits))
    async def credits(request: Request) -> Response:
        """The credits that you have used, and your balance."""
        return Json(await site.run(caller(request).call, "credits"))

    @routes.get("/hosts", tags=["server"], responses=answers(models.Hosts))
    async def hosts(request: Request) -> Response:
        """The hosts where jobs run, and their servers, busy and free."""
        caller(request).rights.need(READ)
        return Json(await site.run(hosts_of, site.manager.engine))

    # -- jobs ----------------------------------------------------------------------------------------------------

    @routes.get("/jobs", tags=["jobs"], responses=answers(models.Jobs))
    async def jobs(request: Request, wanted: Annotated[models.JobsQuery, Query()]) -> Response:
        """Jobs that fit all filters, the newest first."""
        return Json(await site.run(_page, caller(request), wanted))

    @routes.post("/jobs", status_code=201, tags=["jobs"], responses=answers(models.JobAnswer, 201, 404, 409, 507))
    async def submit(request: Request, submission: models.Submission) -> Response:
        """Submit a job; it is stored when this answers."""
        asking = caller(request)
        (detail,) = await site.run(asking.call, "submit", [submission.model_dump()])
        shown = await _all_about(site, asking, detail["id"])
        return Json(shown, 201, {"Location": f"/api/v1/jobs/{detail['id']}"})

    @routes.get("/jobs/{job}", tags=["jobs"], responses=answers(models.JobAnswer, 200, 404))
    async def job(request: Request, job: JobId) -> Response:
        """All about a job but its result."""
        asking = caller(request)
        asking.rights.need(READ)
        return Json(await _all_about(site, asking, job))

    @routes.get("/jobs/{job}/status", tags=["jobs"], responses=answers(models.Summary, 200, 404))
    async def status(request: Request, job: JobId) -> Response:
        """State, progress, times: less than all about it, and faster."""
        return Json(await site.quick(caller(request).call, "status", job))

    @routes.get("/jobs/{job}/result", tags=["jobs"], responses=answers(models.ResultAnswer, 200, 404))
    async def result(
        request: Request, job: JobId, wait: Annotated[float, Query(ge=0, le=60, description="Seconds")] = 0.0
    ) -> Response:
        """Its result, if it is complete; waits `wait` seconds at most until it has ended."""
        asking = caller(request)
        if wait:
            await site.wait(asking, job, wait)
        detail = await site.quick(asking.call, "fetch", job)
        wanted = ("id", "state", "result", "best", "error", "trace", "reason")
        return Json({"ended": detail["state"] in ENDED, **{name: detail[name] for name in wanted}})

    @routes.delete("/jobs/{job}", tags=["jobs"], responses=answers(models.Done, 200, 404, 409))
    async def delete(request: Request, job: JobId) -> Response:
        """Remove a job that has ended, and its data."""
        return Json({"ok": await site.run(caller(request).call, "delete", [job])})

    @routes.post("/jobs/{job}/abort", tags=["jobs"], responses=answers(models.Done, 200, 404, 409))
    async def abort(request: Request, job: JobId, how: models.AbortBody | None = None) -> Response:
        """Ask a job to end; by force after the grace time. Harmless if it has ended."""
        how = how or models.AbortBody()
        return Json({"ok": await site.run(caller(request).call, "abort", job, how.reason, how.grace_s)})

    @routes.post("/jobs/{job}/control", tags=["jobs"], responses=answers(models.Done, 200, 404, 409))
    async def control(request: Request, job: JobId, message: models.ControlBody) -> Response:
        """Send a job a message: `Pause`, `Resume`, `Checkpoint`, or one of its service."""
        if set(message.fields) & {"kind", "job", "number", "time"}:
            raise RequestError("a message can't have fields kind, job, number, time", hint="Rename them")
        plain = {**message.fields, "kind": message.kind}
        return Json({"ok": await site.run(caller(request).call, "control", job, plain)})

    @routes.post("/jobs/{job}/archive", tags=["jobs"], responses=answers(models.Done, 200, 404, 409))
    async def archive(request: Request, job: JobId, how: models.Archive | None = None) -> Response:
        """Take a job that has ended off the list, or put it back."""
        archived = (how or models.Archive()).archived
        return Json({"ok": await site.run(caller(request).call, "archive", [job], archived)})

    @routes.get("/jobs/{job}/files", tags=["jobs"], responses=answers(dict[str, int], 200, 404))
    async def files(request: Request, job: JobId) -> Response:
        """Output files that it kept: name -> bytes."""
        return Json(await site.run(caller(request).call, "files", job))

    @routes.get("/jobs/{job}/files/{name}", tags=["jobs"], responses=answers(None, 200, 404))
    async def file(request: Request, job: JobId, name: str) -> Response:
        """One of them; parts of it by `Range`."""
        asking = caller(request)
        asking.rights.need(READ)
        record = asking.rights.record(job)
        path = site.manager.store.directory / "jobs" / safe_key(record.id) / safe_key(name, "name of a file")
        if not await site.run(path.is_file):
            raise NoFile(f"job {job} has kept no file {name!r}", hint="See the list of its files", job=job)
        return FileResponse(path, media_type="application/octet-stream", filename=name)

    @routes.get("/jobs/{job}/log", tags=["jobs"], responses=answers(models.Messages, 200, 404))
    async def log(request: Request, job: JobId) -> Response:
        """Its last log messages, oldest first; since the server began."""
        return Json({"messages": await site.quick(caller(request).call, "history", job, "Log")})

    @routes.get("/jobs/{job}/improvements", tags=["jobs"], responses=answers(models.Messages, 200, 404))
    async def improvements(request: Request, job: JobId) -> Response:
        """Its last improvements, oldest first; since the server began."""
        return Json({"messages": await site.quick(caller(request).call, "history", job, "Improved")})

    @routes.get("/graph", tags=["jobs"], responses=answers(list[dict[str, Any]]))
    async def graph(request: Request) -> Response:
        """Each of your jobs with the jobs that it waits for, or waited for."""
        return Json(await site.run(caller(request).call, "graph"))

    # -- streams -------------------------------------------------------------------------------------------------

    async def stream(request: Request, key: str, after: str) -> Any:
        asking = caller(request)
        asking.rights.need(READ)
        hub = await site.hubs.get(key, asking)
        seen = request.headers.get("last-event-id") or after
        return EventStream(site.hubs, hub, asking, seen, lambda: site.holds(asking.who))

    sse: dict[int | str, dict[str, Any]] = {
        **answers(None),
        200: {"description": "server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    }

    @routes.get("/events", tags=["streams"], responses=sse, response_class=Response)
    async def events(request: Request, after: After = "") -> Any:
        """First all jobs of the list (`Jobs`), then each change (`JobChanged`), numbered, until you hang up."""
        return await stream(request, QUEUE, after)

    sse_of_job = answers(None, 200, 404) | sse

    @routes.get("/jobs/{job}/events", tags=["streams"], responses=sse_of_job, response_class=Response)
    async def job_events(request: Request, job: JobId, after: After = "") -> Any:
        """First how things stand (`Join`), then each message of the job, until it has ended."""
        return await stream(request, job, after)

    @routes.get("/notices", tags=["streams"], responses=sse, response_class=Response)
    async def notices(request: Request, after: After = "") -> Any:
        """Notices about atoms of conditions; for admins."""
        return await stream(request, CONDITIONS, after)

    # -- clients in Python ---------------------------------------------------------------------------------------

    @routes.post("/calls/{name}", tags=["clients"], responses=answers(models.Done, 200, 404, 409, 507))
    async def call(request: Request, name: Annotated[str, Path(max_length=64)], arguments: models.CallBody) -> Response:
        """A call of `grid.jobs.Server`, as `remote_service` makes them; its answer is `ok`."""
        asking = caller(request)
        row = row_of(name)
        if name == "wait":  # costs no thread here
            given = row.bind(arguments.args, arguments.kw)
            return Json({"ok": await site.wait(asking, given["job"], given["timeout"])})
        make = site.quick if row.quick else site.run
        return Json({"ok": await make(lambda: asking.call(name, *arguments.args, **arguments.kw))})

    return routes


def _page(asking: Caller, wanted: models.JobsQuery) -> dict[str, Any]:
    states = set(wanted.state) if wanted.state else None
    if wanted.active is not None:
        fit = {state for state in models.State.__args__ if (state not in ENDED) == wanted.active}  # type: ignore[attr-defined]
        states = fit if states is None else states & fit
    asking.rights.need(READ)
    found = asking.rights.found(
        {
            "state": None if states is None else sorted(states),
            "owner": wanted.owner,
            "service": wanted.service,
            "tags": wanted.tag,
            "text": wanted.text,
            "archived": wanted.archived,
        }
    )
    if wanted.order == "newest":
        found.reverse()
    part = [asking.rights.shown(record) for record in found[wanted.offset : wanted.offset + wanted.limit]]
    return {"jobs": part, "total": len(found), "offset": wanted.offset, "limit": wanted.limit}


async def _all_about(site: Site, asking: Caller, job: str) -> dict[str, Any]:
    about = await site.quick(_about, asking, job)
    if about["condition"] is not None:
        about["condition"] = await site.run(condition_of, asking.manager, about)
    return about


def _about(asking: Caller, job: str) -> dict[str, Any]:
    """All about a job, as the caller may see it."""
    with asking.manager.lock:
        record = asking.rights.known(job)
        mine = asking.rights.may_see(record)
        about = asking.rights.standing(record)
        about |= {"mine": mine, "controllable": mine and asking.who.may(CONTROL)}
        about |= {"explain": f"job {job} is {record.state}"}
        about |= {"after": [], "condition": None, "request": None, "inputs": None, "error": "", "trace": ""}
        if mine:
            about |= {
                "explain": asking.manager.explain(record),
                "after": _after(asking, record),
                "condition": record.condition,
            }
            about |= {"request": record.request, "inputs": record.inputs, "error": record.error, "trace": record.trace}
        return about


def _after(asking: Caller, record: JobRecord) -> list[dict[str, Any]]:
    others = [asking.manager.records.get(job) for job in sorted(jobs_of(record.condition))]
    return [{"id": other.id, "state": other.state.value} for other in others if other is not None]


class NoFile(RequestError, KeyError):
    """The job kept no such file."""

    __str__ = Exception.__str__
