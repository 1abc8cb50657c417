"""The page over time and at size: 5,000 jobs, servers that go and come back, hidden tabs, files; pictures."""

# ruff: noqa: F811 - fixtures are imported, and named by the tests

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from grid.jobs import IsCompleted, JobState, Store
from grid.jobs.record import JobRecord
from grid.web.page import FILES
from tests.edges.jobs_services import Fail, Square
from tests.edges.page_scene import LIMIT_S, Scene, guarded, names, row, scene, see, state, until, visit  # noqa: F401 - fixtures
from tests.edges.page_services import Fit, Simulate, gates
from tests.lab.browser import Visit, browser  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"


def many(number: int) -> list[JobRecord]:
    states = (JobState.COMPLETE, JobState.COMPLETE, JobState.COMPLETE, JobState.ERROR, JobState.PENDING)
    now = time.time()
    return [
        JobRecord(
            f"job-{n}",
            n,
            ("mara", "ole", "jin")[n % 3],
            "mylab.scans.Scan",
            "1",
            {"grid_request": 1, "service": "mylab.scans.Scan", "version": "1", "data": {"angle": n / 10}},
            state=states[n % 5],
            tags=[f"name=scan {n:05}", "night" if n % 7 else "day"],
            created=now - 10 * (number - n),
            started=now - 5 * (number - n),
            ended=now - 4 * (number - n) if n % 5 < 4 else None,
            best={"counts": 100 + n},
            has_best=True,
            improved=now - n,
            progress=[50, 50, "points"],
        )
        for n in range(1, number + 1)
    ]


@pytest.mark.row("J17", "P26")
def test_five_thousand_jobs_are_usable(tmp_path: Path, visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    gates["never"] = threading.Event()
    store = Store(tmp_path / "s")
    store.insert(many(5000))
    store.close()
    page, took = visit.page, {}

    def timed(what: str, begin: float) -> None:
        took[what] = time.perf_counter() - begin

    with Scene(tmp_path / "s") as scene:
        begin = time.perf_counter()
        page.goto(scene.url)
        row(page, "scan 05000").wait_for()
        timed("first rows", begin)
        page.locator("#states button", has_text="5,000").wait_for()
        assert page.locator("#rows tr").count() < 100  # only those in sight exist
        assert page.get_by_role("grid").get_attribute("aria-rowcount") == "5001"
        begin = time.perf_counter()
        page.get_by_role("searchbox").fill("owner:jin 0424")
        see(page, "() => document.querySelectorAll('#rows tr:not(.spacer):not([hidden])').length === 3")
        timed("search", begin)
        page.get_by_role("searchbox").fill("")
        see(page, "() => document.querySelector('#jobs').getAttribute('aria-rowcount') === '5001'")
        begin = time.perf_counter()
        page.get_by_role("columnheader", name="Job", exact=True).get_by_role("button").click()
        row(page, "scan 00001").wait_for()
        timed("sort", begin)
        begin = time.perf_counter()
        page.evaluate("document.querySelector('#scroll').scrollTop = 1e9")
        row(page, "scan 05000").wait_for()
        timed("scroll to the end", begin)
        page.evaluate("document.querySelector('#scroll').scrollTop = 36 * 2500")
        row(page, "scan 02510").wait_for()
        row(page, "scan 02510").click()  # the first click, far down: nothing may move beneath it
        page.get_by_role("complementary").get_by_role("heading", name="scan 02510").wait_for()
        assert page.evaluate("document.querySelector('#scroll').scrollTop") == 36 * 2500
        page.keyboard.press("Escape")
        frames = page.evaluate(FRAMES)
        scene.service.archive([f"job-{n}" for n in range(1, 2001) if n % 5 < 4])
        begin = time.perf_counter()
        see(page, "() => document.querySelector('#jobs').getAttribute('aria-rowcount') === '3401'")
        timed("1600 changes", begin)
        job = scene.submit(Square, "one more", value=3)
        begin = time.perf_counter()
        page.get_by_role("searchbox").fill("one more")
        row(page, job.id).wait_for()
        timed("a new job", begin)
    with capsys.disabled():
        said = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in took.items())
        print(f"\n  5,000 jobs: {said}, frames while scrolling: median {frames[0]:.0f} ms, worst {frames[1]:.0f} ms")
    assert max(took.values()) < 8.0 and frames[0] < 200  # what the machine of CI can do; 1 s is what it must reach


FRAMES = """async () => {
  const box = document.querySelector('#scroll'), times = [];
  let last = performance.now();
  for (let i = 0; i < 60; i++) {
    box.scrollTop += 180;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    times.push(now - last);
    last = now;
  }
  times.sort((a, b) => a - b);
  return [times[30], times[59]];
}"""


@pytest.mark.row("J17", "J15")
def test_a_server_that_goes_and_comes_back_is_told_and_nothing_is_missed(scene: Scene, visit: Visit) -> None:
    page = visit.page
    gates["a"] = threading.Event()
    scene.submit(Fit, "before", n=4, stop=2, gate="a")
    page.goto(scene.url)
    state(page, "before", "active").wait_for()
    row(page, "before").click()
    page.evaluate("window.here = 1")
    scene.silence()
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    assert page.get_by_text("No connection").is_visible()
    scene.submit(Square, "meanwhile", value=2).wait(LIMIT_S)
    gates["a"].set()
    scene.serve()
    state(page, "meanwhile", "complete").wait_for()
    state(page, "before", "complete").wait_for()
    page.get_by_text("Live", exact=True).wait_for()
    assert not page.get_by_role("alert").get_by_text("does not answer").is_visible()
    assert names(page) == ["meanwhile", "before"] and page.evaluate("window.here") == 1
    page.locator("#result", has_text='"steps": 4').wait_for()


HIDE = """(hidden) => {
  Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.mark.row("J17", "J15")
def test_a_tab_that_nobody_looks_at_holds_no_connection_and_goes_on_when_it_is_seen(scene: Scene, visit: Visit) -> None:
    page = visit.page
    page.clock.install()
    scene.submit(Fit, "steps", n=4, stop=2)
    page.goto(scene.url)
    row(page, "steps").click()
    page.get_by_role("tabpanel").get_by_text("4 steps from here").wait_for()
    assert scene.web is not None
    hubs = scene.web.site.hubs
    assert hubs.count == 2
    page.evaluate(HIDE, True)
    page.clock.fast_forward(21_000)
    until(lambda: hubs.count == 0)
    scene.submit(Square, "meanwhile", value=2).wait(LIMIT_S)
    page.evaluate(HIDE, False)
    state(page, "meanwhile", "complete").wait_for()
    until(lambda: hubs.count == 2)
    assert names(page) == ["meanwhile", "steps"] and page.get_by_text("Live", exact=True).is_visible()


@pytest.mark.row("J17")
def test_the_machines_are_shown_busy_and_free(scene: Scene, visit: Visit) -> None:
    page = visit.page
    for n in range(3):
        scene.submit(Fit, f"busy{n}", n=4, stop=2)
    until(lambda: sum(record.state is JobState.ACTIVE for record in scene.manager.records.values()) == 3)
    page.goto(scene.url)
    page.get_by_role("button", name="Machines").click()
    page.get_by_text("1 host, 4 servers: 0 busy, 4 free; 3 of 6 jobs at work").wait_for()
    strip = page.get_by_role("img", name="0 busy, 4 free")
    assert strip.locator(".busy").count() == 3 and strip.locator(".free").count() == 7
    assert strip.locator(".busy").first.get_attribute("title") in {f"runner/{n}, jobs: busy" for n in range(6)}
    page.get_by_role("button", name="Jobs", exact=True).click()
    row(page, "busy0").wait_for()


@pytest.mark.row("J17", "R13")
def test_the_files_of_the_page_carry_strict_headers_and_need_no_token(guarded: Scene) -> None:
    with httpx.Client(base_url=guarded.url, trust_env=False) as client:
        assert {kind for _, kind in FILES.values()} == {"text/html", "text/css", "text/javascript"}
        for path, (_, kind) in FILES.items():
            answer = client.get(path)
            assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff" and "set-cookie" not in answer.headers
            again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304 and not again.content
            assert not re.search(r"""(src|href|url|import)\s*[=(]\s*["']?(https?:)?//""", answer.text)  # nobody else's
            assert client.head(path).status_code == 200 and client.post(path).status_code == 405
        script = "".join(client.get(path).text for path in FILES if path.endswith(".js"))
        assert client.get("/page/package.json").status_code == client.get("/page/__init__.py").status_code == 404
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|localStorage|\.cookie", script)
        assert client.get("/api/v1/jobs").status_code == 401 and client.get("/page/../index.html").status_code == 404


@pytest.mark.row("J17", "D04")
def test_grid_serve_has_the_page_at_its_address(tmp_path: Path, visit: Visit) -> None:
    command = [sys.executable, "-m", "grid", "serve", "tests.edges.jobs_services", "--local", "2", "--name", "page"]
    serving = subprocess.Popen(
        [*command, "--store", str(tmp_path / "s"), "--json", "--http", "127.0.0.1:0", "--no-token"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert serving.stdout is not None
        url = json.loads(serving.stdout.readline())["url"]
        page = visit.page
        page.goto(url)
        request = {"service": "tests.edges.jobs_services.Steps", "version": "1", "data": {"n": 10**6}}
        httpx.post(f"{url}/api/v1/jobs", json={"request": request}, trust_env=False).raise_for_status()
        state(page, "job-1", "active").wait_for()
        page.get_by_role("button", name="Machines").click()
        page.locator("#hosts .server.busy").first.wait_for()  # a real grid, whose servers are processes
        serving.send_signal(signal.SIGTERM)
        page.get_by_role("alert").get_by_text("does not answer").wait_for()
    finally:
        if serving.poll() is None:
            serving.send_signal(signal.SIGTERM)
        serving.communicate(timeout=LIMIT_S)
    assert serving.returncode == 0


@pytest.mark.skipif(not os.environ.get("GRID_SCREENSHOTS"), reason="pictures for the docs: set GRID_SCREENSHOTS=1")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_for_the_docs(scene: Scene, browser: Any, scheme: str) -> None:
    gates["a"] = threading.Event()
    with Visit(browser, width=1280, height=760, color_scheme=scheme) as visit:
        page = visit.page
        for n, owner in enumerate(("mara", "jin", "ole", "mara", "jin")):
            scene.submit(Simulate, f"scan {n + 1}", ("night",), owner, n=60, angle=n / 2).wait(LIMIT_S)
        with pytest.raises(Exception, match="purpose"):
            scene.submit(Fail, "calibration 3", ("beamline 4",), "ole").wait(LIMIT_S)
        tags = ("night", "beamline 4")
        one = scene.submit(Fit, "refine lattice", tags, n=240, stop=186, gate="a", pause=0.02, priority=4)
        two = scene.submit(Simulate, "background", ("night",), "jin", n=500, stop=190, gate="a", priority=1)
        for n in range(3):
            scene.submit(Simulate, f"phonons {n + 1}", ("grant 7",), "ole", n=900, stop=120 + 210 * n, gate="a")
        last = scene.submit(Fit, "joint fit", ("night",), after=[one.id, two.id], n=100)
        scene.submit(Square, "report", ("night",), value=2, when=last.iscompleted | (one.failed & IsCompleted(two.id)))
        scene.submit(Fit, "alignment", ("beamline 4",), "jin", n=40, stop=1)
        until(lambda: (one.best or {}).get("k", 0) >= 180)
        page.goto(scene.url)
        row(page, "refine lattice").get_by_text("186 of 240").wait_for()
        row(page, "refine lattice").click()
        page.locator("#plot svg .curve").wait_for()
        page.locator("#messages li").nth(8).wait_for()
        take(page, f"page-{scheme}.png")
        row(page, "report").click()
        page.locator("#graph svg").wait_for()
        take(page, f"page-conditions-{scheme}.png")
        page.get_by_role("button", name="Machines").click()
        page.get_by_text("1 host").wait_for()
        if scheme == "light":
            take(page, "page-machines.png", {"x": 0, "y": 0, "width": 1060, "height": 280})


def take(page: Any, name: str, clip: Any = None) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.wait_for_timeout(600)
    page.mouse.move(5, 5)
    (PICTURES / name).write_bytes(page.screenshot(clip=clip))
    assert (PICTURES / name).stat().st_size < 150_000
