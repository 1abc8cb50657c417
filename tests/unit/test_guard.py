"""What every request to a job server goes through first, driven as ASGI does it, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from grid.web.guard import Guard
from grid.web.limits import WebLimits
from grid.web.tokens import Tokens

LIMITS = WebLimits(body=1000, upload=5000, bodies=1500, header_s=0.05, bytes_per_s=1 << 20, wrong_free=100)
FAR, HERE = ("10.0.0.9", 4000), ("127.0.0.1", 4000)

pytestmark = pytest.mark.row("P25", "Y05")


class Site:
    """A guard before an application that notes what reaches it."""

    def __init__(self, tokens: Tokens | None = None, places: bool = True) -> None:
        self.guard = Guard(self.app, tokens, "me", LIMITS)
        self.places = places
        self.reached: list[tuple[str, str, bytes]] = []

    async def app(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.reached.append((scope["path"], getattr(scope.get("state", {}).get("who"), "user", ""), body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(
        self, path: str, body: bytes | None = b"", client: Any = HERE, **headers: str
    ) -> tuple[int, dict[bytes, bytes]]:
        """Status and headers of the answer. `body` None: it is announced, and never comes."""
        words = {"host": "127.0.0.1:8440", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body:
            words.setdefault("content-length", str(len(body)))
        scope = {
            "type": "http",
            "path": path,
            "client": client,
            "headers": [(name.encode(), value.encode()) for name, value in words.items()],
            "grid.proved": lambda user: self.places,
        }
        said: list[Any] = []

        async def receive() -> dict[str, Any]:
            if body is None:
                await asyncio.sleep(3600)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        asyncio.run(self.guard(scope, receive, send))
        return said[0]["status"], dict(said[0]["headers"])


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path)


def test_without_a_valid_token_there_is_one_answer_and_the_connection_ends(tokens: Tokens) -> None:
    site = Site(tokens)
    for more in ({}, {"authorization": "Bearer grid_x"}, {"authorization": f"Basic {tokens.create('mara')}"}):
        status, headers = site.ask("/api/v1/jobs", client=FAR, **more)
        assert status == 401 and headers[b"connection"] == b"close"
    assert site.reached == []
    status, headers = site.ask("/api/v1/jobs", client=FAR, authorization=f"bearer  {tokens.create('mara')}")
    assert status == 200 and b"connection" not in headers and site.reached == [("/api/v1/jobs", "mara", b"")]


def test_the_page_and_the_schema_need_no_token(tokens: Tokens) -> None:
    site = Site(tokens)
    for path in ("/", "/page/main.js", "/api/v1/openapi.json"):
        status, headers = site.ask(path, client=FAR)
        assert status == 200 and headers[b"x-content-type-options"] == b"nosniff"
    assert [path for path, _, _ in site.reached] == ["/", "/page/main.js", "/api/v1/openapi.json"]


@pytest.mark.parametrize(
    ("client", "more"),
    [
        (FAR, {}),
        (HERE, {"host": "evil.example:8440"}),
        (HERE, {"origin": "http://evil.example"}),
        (HERE, {"origin": "http://127.0.0.1:9999"}),
        (HERE, {"host": ""}),
    ],
)
def test_a_server_without_tokens_answers_its_own_machine_alone(client: Any, more: dict[str, str]) -> None:
    site = Site()
    assert site.ask("/api/v1/jobs", client=client, **more)[0] == 403 and site.reached == []


@pytest.mark.parametrize(
    "more", [{}, {"host": "localhost:1"}, {"host": "[::1]:8440"}, {"origin": "http://127.0.0.1:8440"}]
)
def test_a_server_without_tokens_believes_names_of_its_own_machine(more: dict[str, str]) -> None:
    site = Site()
    assert site.ask("/api/v1/jobs", grid_user="mara", **more)[0] == 200
    assert site.ask("/api/v1/jobs", grid_user="a\nb", **more)[0] == 200
    assert [user for _, user, _ in site.reached] == ["mara", "me"]


def test_who_finds_no_place_is_told_to_come_later(tokens: Tokens) -> None:
    site = Site(tokens, places=False)
    assert site.ask("/api/v1/jobs", authorization=f"Bearer {tokens.create('mara')}")[0] == 503 and site.reached == []


def test_bodies_have_a_size_and_a_stranger_sends_none(tokens: Tokens) -> None:
    site, mara = Site(tokens), {"authorization": f"Bearer {tokens.create('mara')}"}
    admin = {"authorization": f"Bearer {tokens.create('root', ['read', 'upload'])}"}
    assert site.ask("/api/v1/jobs", b"x" * 1000, **mara)[0] == 200 and site.reached[-1][2] == b"x" * 1000
    assert site.ask("/api/v1/jobs", b"x" * 1001, **mara)[0] == 413
    assert site.ask("/api/v1/jobs", b"x" * 1001, content_length="10", **mara)[0] == 413, "whatever it announced"
    assert site.ask("/api/v1/jobs", b"x" * 1001, content_length="many", **mara)[0] == 413
    assert site.ask("/api/v1/calls/upload", b"x" * 1400, **mara)[0] == 413
    assert site.ask("/api/v1/calls/upload", b"x" * 1400, **admin)[0] == 200
    assert site.ask("/api/v1/calls/upload", b"x" * 4000, **admin)[0] == 503, "more than all may send together"
    assert site.ask("/", b"x")[0] == 413


def test_a_body_that_does_not_come_is_waited_for_within_a_time(tokens: Tokens) -> None:
    site = Site(tokens)
    status, _ = site.ask("/api/v1/jobs", None, content_length="100", authorization=f"Bearer {tokens.create('mara')}")
    assert status == 408 and site.reached == [] and site.guard._receiving == 0


def test_tokens_that_cannot_be_read_let_nobody_in(tokens: Tokens) -> None:
    token = tokens.create("mara")
    tokens.path.chmod(0o644)
    assert Site(Tokens(tokens.path.parent)).ask("/api/v1/jobs", authorization=f"Bearer {token}")[0] == 503
