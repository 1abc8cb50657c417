"""Metrics of a running grid and of a job server, read by the parser of Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from grid import LocalGrid, openmetrics
from grid.grids.metrics import of_grids
from grid.jobs import GridEngine, JobManager, Settings, Store
from grid.testing.probe import Probe
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges.jobs_services import ALL

pytestmark = pytest.mark.row("I05")
HERE = "tests.edges.jobs_services"


def values(text: str) -> dict[tuple[str, ...], float]:
    """(metric, service, state) -> value."""
    return {
        (family.name, sample.labels.get("service", ""), sample.labels.get("state", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def status(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "grid", "status", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_running_grid_tells_its_metrics() -> None:
    with LocalGrid(2, output=None) as g:
        sid = g.publish(Probe(), wait="all")
        with g.acquire_service(sid) as proxy:
            assert [proxy.add(1).get() for _ in range(3)]
            done = status("--metrics", g.status()["name"])
        assert done.returncode == 0, done.stderr
        told = values(done.stdout)
        assert told["grid_calls", sid, ""] == 3 and told["grid_servers", sid, "acquired"] == 1
        assert told["grid_up", "", ""] == told["grid_hosts", "", "up"] == 1
        assert told["grid_received_bytes", sid, ""] > 100
    refused = status("--metrics", "--watch")
    assert refused.returncode == 2 and "--watch" in refused.stderr


def test_a_job_server_tells_its_jobs_and_its_grid_to_who_may_read(tmp_path: Path) -> None:
    with (
        LocalGrid(2, output=None) as g,
        JobManager(Store(tmp_path / "s"), GridEngine(g), Settings(tick_s=0.05)) as manager,
    ):
        for cls in ALL:
            manager.register(cls)
        tokens = Tokens(manager.store.directory)
        web = WebServer(manager, tokens=tokens)
        try:
            request = {"service": f"{HERE}.Square", "version": "1", "data": {"n": 3}}

            def ask(path: str, token: str, **more: Any) -> httpx.Response:
                method = "POST" if more else "GET"
                headers = {"authorization": f"Bearer {token}"}
                return httpx.request(method, web.url + path, headers=headers, timeout=30, trust_env=False, **more)

            mara, ole = tokens.create("mara"), tokens.create("ole")
            job = ask("/api/v1/jobs", mara, json={"request": request}).json()["id"]
            assert ask(f"/api/v1/jobs/{job}/result?wait=20", mara).json()["ended"]
            answer = ask("/metrics", mara)
            assert answer.status_code == 200 and answer.headers["content-type"].startswith(
                "application/openmetrics-text"
            )
            told = values(answer.text)
            assert [value for key, value in told.items() if key[0] == "grid_jobs"] == [1]
            assert told["grid_up", "", ""] == 1 and told["grid_oldest_job_seconds", "", ""] == 0
            assert not [key for key in values(ask("/metrics", ole).text) if key[0] == "grid_jobs"]  # somebody else's
            assert ask("/metrics", "wrong").status_code == 401
            assert ask("/metrics", tokens.create("x", ["submit"])).status_code == 403
        finally:
            web.close()


def test_each_panel_of_the_dashboard_asks_for_metrics_and_labels_that_there_are(tmp_path: Path) -> None:
    with LocalGrid(1, output=None) as g:
        with g.acquire_service(g.publish(Probe())) as probe:
            probe.add().get()
        text = openmetrics.text(of_grids([{"name": "g", "id": "1", "began": 1.0, "status": g.status()}]))
    jobs = {"grid_jobs": {"service", "state"}}  # of a job server: see the test above
    known = {
        sample.name: set(sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples
    }
    # energy is told where the machine tells it
    known.setdefault("grid_call_energy_joules_total", known["grid_calls_total"])
    known.setdefault("grid_server_peak_memory_bytes", known["grid_servers"])
    known |= jobs
    dashboard = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
    asked = [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= 10
    for target in asked:
        (metric,) = re.findall(r"\bgrid_\w+", target["expr"])
        assert metric in known, target
        named = re.search(r"by \(([^)]*)\)", target["expr"])
        assert named is not None
        labels = {word.strip() for word in named[1].split(",")}
        assert labels <= known[metric] and set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels, target
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(set(places)) == len(places)
