"""The page of a job server, for browsers: HTML, CSS and modules of JavaScript, as they are, with no build step.

The page asks the same routes below /api/v1 as everybody, with the token that its reader types in; the files themselves
hold nothing secret. Their headers let the browser load and ask nothing but this server, run no script but this one,
and take no text of a job for markup.

Lives here: `add_page`, the files; `main.js` says which module is what.
Elsewhere:  the routes (`grid/web/routes.py`), what comes before them (`grid/web/guard.py`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

HERE = Path(__file__).parent
FILES = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css")}
FILES |= {f"/page/{path.name}": (path.name, "text/javascript") for path in sorted(HERE.glob("*.js"))}
"""Address -> file and its kind. Modules have the names by which they import each other."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src data:",  # the icon
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # not even by mistake is a text made into HTML
        "trusted-types 'none'",
    )
)


def add_page(app: Any) -> None:
    """Have an application of FastAPI or Starlette answer with the page at `/`."""
    for path, (name, kind) in FILES.items():
        app.add_route(path, _answer(name, kind), methods=["GET", "HEAD"], include_in_schema=False)


def _answer(name: str, kind: str) -> Any:
    data = (HERE / name).read_bytes()
    headers = {
        "etag": f'"{hashlib.sha256(data).hexdigest()[:20]}"',
        "cache-control": "no-cache",  # asked for anew each time, and sent if it has changed
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)

    return answer
