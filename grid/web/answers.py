"""Answers: JSON, and errors of our tree as HTTP has them.

    {"error": "there is no job 'j-7'", "kind": "UnknownJob", "hint": "See `grid jobs list`", "facts": {"job": "j-7"}}

`kind` is the class in `grid.errors` or `grid.jobs`, so that a client in Python raises what a server in this process
would have. Of errors that nobody foresaw the caller learns nothing; the log has them.

Lives here: `Json`, `status_of`, `refuse`.
Elsewhere:  the other direction (`client.py`), the tree (`jobs/host/errors.py`).
"""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

from grid.errors import GridError, SerialisationError
from grid.jobs.host import errors
from grid.jobs.line.lines import error_to_plain
from grid.web.events import Busy

_STATUS: tuple[tuple[type[BaseException], int], ...] = (  # the first that fits
    (Busy, 503),
    (errors.AccessError, 403),
    (errors.UnknownJob, 404),
    (errors.UnknownJobService, 404),
    (KeyError, 404),
    (errors.RequestError, 422),
    (errors.ConditionError, 422),
    (errors.MoveError, 409),
    (errors.WaitTimeout, 408),
    (errors.StoreFull, 507),
    (errors.StoreError, 503),
    (errors.JobError, 409),
    (SerialisationError, 422),
)


class Json(JSONResponse):
    """A value as JSON."""

    def render(self, content: Any) -> bytes:
        """As JSON that any parser takes."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode("utf-8", "replace")


def status_of(exc: BaseException) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(exc, kind)), 500)


def refuse(exc: BaseException) -> Json:
    """The answer that tells of an error."""
    status = status_of(exc)
    if status == 500:
        # uvicorn logs it
        return say(500, "JobError", "something went wrong at the server", "See its log")
    plain = error_to_plain(exc)
    facts = {name: value for name, value in plain["facts"].items() if name != "hint"}
    kind = "JobError" if isinstance(exc, Busy) else plain["kind"]
    hint = exc.facts.get("hint") or "" if isinstance(exc, GridError) else ""
    return say(status, kind, plain["what"], hint, facts)


def say(status: int, kind: str, what: str, hint: str = "", facts: dict[str, Any] | None = None) -> Json:
    """An error without an exception."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "2"}}.get(status)
    return Json({"error": what, "kind": kind, "hint": hint, "facts": facts or {}}, status, headers)
