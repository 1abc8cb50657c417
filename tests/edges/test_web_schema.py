"""The OpenAPI description keeps its word: requests made from it, right and wrong, get what it says, and never a 500."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from grid.jobs import JobManager, Settings, Store, ThreadEngine
from grid.web.limits import WebLimits
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges.jobs_services import Square, Steps, Writes

EXAMPLES = int(os.environ.get("GRID_SCHEMA_EXAMPLES", "10"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[WebServer, str]]:
    with JobManager(Store(tmp_path / "s"), ThreadEngine(1, 2), Settings(tick_s=0.05)) as manager:
        for cls in (Square, Steps, Writes):
            manager.register(cls)
        tokens = Tokens(manager.store.directory)
        requests = [Square.request(value=2), Square.request(value=2), Writes.request(), Steps.request(n=3)]
        manager.submit("mara", [{"request": request.to_plain()} for request in requests])
        web = WebServer(manager, tokens=tokens, limits=WebLimits(wait_s=0.05))
        yield web, tokens.create("mara", ["read", "submit", "control", "upload"])
        web.close()


@pytest.mark.row("P02", "R02", "J17")
def test_requests_made_from_the_description_get_what_it_says(web: tuple[WebServer, str]) -> None:
    server, token = web
    headers = {"authorization": f"Bearer {token}"}
    config = SchemathesisConfig(
        projects=ProjectsConfig(default=ProjectConfig(generation=GenerationConfig(modes=list(GenerationMode)))),
    )
    schema = schemathesis.openapi.from_url(f"{server.url}/api/v1/openapi.json", config=config)
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if "/events" in operation.path or operation.path.endswith("/notices"):
            continue  # they do not end
        seen.add(operation.label)

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        def one(case: schemathesis.Case) -> None:
            if case.path_parameters.get("job"):
                number = len(str(case.path_parameters["job"])) % 6
                case.path_parameters["job"] = f"job-{number}"  # mostly one that there is
            answer = case.call(headers=headers, timeout=20)
            case.validate_response(answer, checks=CHECKS, headers=headers)

        given(operation.as_strategy())(one)()
    assert len(seen) >= 20
    assert httpx.get(f"{server.url}/api/v1/me", headers=headers, trust_env=False).status_code == 200
