"""Functions that go to the default service, or to the one that is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grid.jobs.client.context import choose_service
from grid.jobs.client.handle import Job, Race
from grid.jobs.host.request import Request


def submit(request: Request, monitor: Any = None, when: Any = None, *, service: Any = None, **options: Any) -> Job:
    """Submit a request; see `ServerProxy.submit`."""
    return choose_service(service).submit(request, monitor, when, **options)


def proxy(request: Request, server: Any = None) -> Job:
    """Submit a request and return the job's handle."""
    return submit(request, service=server)


def race(jobs: Sequence[Job], until: str, *, service: Any = None) -> Race:
    """The first of these jobs with a result for which the expression holds ends the others."""
    chosen = service if service is not None or not jobs else getattr(jobs[0], "_service", None)
    return choose_service(chosen).race(jobs, until)
