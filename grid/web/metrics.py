"""`GET /metrics`: the jobs of a job server, and the grid on which they run, as OpenMetrics.

It needs a token as all routes do, with the scope `read`; a token counts the jobs that its holder may see. Prometheus
sends one with `authorization: {credentials_file: ...}`.

Lives here: the route, the families of jobs.
Elsewhere:  those of grids (`grids/metrics.py`), the text (`openmetrics.py`).
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from grid.grids.metrics import of_grids
from grid.jobs.api import READ
from grid.openmetrics import CONTENT_TYPE, Family, text
from grid.web.rights import TokenRights
from grid.web.site import Site

PATH = "/metrics"


def add_metrics(app: FastAPI, site: Site) -> None:
    """Have an application answer with the metrics of its server."""

    @app.get(PATH, include_in_schema=False)
    async def metrics(request: Request) -> Response:
        rights = TokenRights(site.manager, request.state.who)
        rights.need(READ)
        families = await site.run(_families, site.manager, rights)
        return Response(text(families).encode(), headers={"content-type": CONTENT_TYPE})


def _families(manager: Any, rights: TokenRights) -> list[Family]:
    states: Counter[tuple[str, str]] = Counter()
    began: list[float] = []
    for record in manager.book.all():
        if rights.may_see(record):
            states[record.service, record.state.value] += 1
            if record.started is not None and record.ended is None:
                began.append(record.started)
    jobs = Family("grid_jobs", "gauge", "Jobs of the job server by service and state.")
    for (service, state), count in sorted(states.items()):
        jobs.add(count, service=service, state=state)
    oldest = Family(
        "grid_oldest_job_seconds", "gauge", "For how long the job has run that began first of those that run."
    )
    oldest.add(max(0.0, time.time() - min(began)) if began else 0.0)
    grid = getattr(manager.engine, "grid", None)
    if grid is None:
        return [jobs, oldest]
    status = grid.status()
    return [
        jobs,
        oldest,
        *of_grids([{"id": status.get("id", ""), "name": status.get("name", status["grid"]), "status": status}]),
    ]
