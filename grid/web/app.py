"""The application: routes, errors as JSON, the OpenAPI description.

Lives here: `make_app`.
Elsewhere:  routes (`routes.py`), what comes before them (`guard.py`), the page (`page/`).
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from grid._version import __version__
from grid.errors import GridError
from grid.jobs.client.proxy import usertag
from grid.web.answers import Json, refuse, say
from grid.web.guard import Guard
from grid.web.metrics import add_metrics
from grid.web.page import add_page
from grid.web.routes import make_routes
from grid.web.site import Site

ABOUT = """Jobs of a grid: submit, watch, steer, end. Send `Authorization: Bearer TOKEN`, of `grid token create`.

Streams are server-sent events. Each begins with a header that says how things stand; then come changes, each once, in
order. The id of an event, sent back as `Last-Event-ID` or `?after=`, goes on there; if the server can't, it begins anew
with a header."""


def make_app(site: Site) -> Any:
    """An ASGI application."""
    app = FastAPI(
        title="grid job server",
        version=__version__,
        description=ABOUT,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page comes from other sites
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.include_router(make_routes(site))
    add_page(app)
    add_metrics(app, site)

    @app.exception_handler(GridError)
    async def ours(_: Request, exc: GridError) -> Json:
        return refuse(exc)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, exc: Exception) -> Json:
        return refuse(exc)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, exc: RequestValidationError) -> Json:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "json_invalid":
            return say(400, "RequestError", "the body is no JSON", "Send one JSON object as application/json")
        return say(422, "RequestError", f"{where}: {first['msg']}", "See /api/v1/openapi.json")

    @app.exception_handler(HTTPException)
    async def http(_: Request, exc: HTTPException) -> Json:
        answer = say(exc.status_code, "RequestError", str(exc.detail), "See /api/v1/openapi.json")
        answer.headers.update(exc.headers or {})
        return answer

    _describe_tokens(app)
    return Guard(app, site.tokens, usertag(), site.limits)


def _describe_tokens(app: FastAPI) -> None:
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = make()
            parts = schema.setdefault("components", {})
            parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"token": []}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
