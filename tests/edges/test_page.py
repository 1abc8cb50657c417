"""The page of a job server in a real browser: what it shows, what it lets people do, what it never does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from grid.jobs import IsCompleted, JobManager, JobState, Server, ServerProxy, Settings, Store, ThreadEngine
from grid.jobs.record import Record
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges import jobs_services, page_services
from tests.edges.jobs_services import Fail, Square, Steps
from tests.edges.page_services import HOSTILE, Fit, Hostile, Simulate, gates
from tests.lab.browser import Visit, browser  # noqa: F401 - a fixture

LIMIT_S = 30.0
ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
QUICK = Settings(tick_s=0.05, abort_grace_s=5.0, suspend_s=5.0)


class Scene:
    """A manager with its web server, on a port that stays the same over restarts, and a user who submits."""

    def __init__(self, place: Path, *, tokens: bool = False, at_once: int = 6) -> None:
        self.manager = JobManager(Store(place), ThreadEngine(4, at_once), QUICK)
        self.tokens = Tokens(self.manager.store.directory) if tokens else None
        self.web: WebServer | None = None
        self.port = 0

    def __enter__(self) -> Scene:
        self.manager.start()
        for cls in (*jobs_services.ALL, *page_services.ALL):
            self.manager.register(cls)
        self.serve()
        self.service = ServerProxy(Server(self.manager), "mara")
        self.service.set_tags([])
        return self

    def serve(self) -> None:
        self.web = WebServer(self.manager, ("127.0.0.1", self.port), tokens=self.tokens)
        self.port = self.web.port

    def silence(self) -> None:
        assert self.web is not None
        self.web.close()

    def __exit__(self, *_: object) -> None:
        for gate in gates.values():
            gate.set()
        for record in list(self.manager.records.values()):
            if record.state is JobState.ACTIVE:
                self.manager.abort(record.id, "the test is over", 0.5)
        self.service.close()
        self.silence()
        self.manager.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def submit(self, cls: Any, name: str = "", tags: tuple[str, ...] = (), owner: str = "mara", **data: Any) -> Any:
        options = {key: data.pop(key) for key in ("after", "when", "priority") if key in data}
        named = [f"name={name}"] if name else []
        service = self.service if owner == "mara" else ServerProxy(Server(self.manager), owner)
        if owner != "mara":
            service.set_tags([])
        return service.submit(cls.request(**data), tags=[*named, *tags], **options)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    gates.clear()
    gates["never"] = threading.Event()
    with Scene(tmp_path / "s") as scene:
        yield scene


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Scene]:
    """The same with tokens."""
    gates.clear()
    gates["never"] = threading.Event()
    with Scene(tmp_path / "s", tokens=True) as scene:
        yield scene


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:  # noqa: F811
    """A visitor; the page must have asked nobody but its server, and the browser had nothing to complain of."""
    with Visit(browser) as visit:
        yield visit
        origins = {urlsplit(url).netloc.partition(":")[0] for url in visit.requests if not url.startswith("data:")}
        assert origins <= {"127.0.0.1"}, visit.requests
        assert visit.complaints == []


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def row(page: Any, text: str) -> Any:
    return page.locator("#rows tr:not(.spacer):visible", has_text=text)


def state(page: Any, text: str, wanted: str) -> Any:
    """The cell with the state of a row, once it is that."""
    return row(page, text).locator(f".state.{wanted}")


def names(page: Any) -> list[str]:
    return list(page.locator("#rows tr:not(.spacer):visible .name").all_inner_texts())


def see(page: Any, test: str, *arguments: Any) -> None:
    """Wait until a JavaScript expression is true."""
    page.wait_for_function(test, arg=arguments[0] if arguments else None)


@pytest.mark.row("J17", "J14", "J15")
def test_jobs_appear_and_change_without_a_reload(scene: Scene, visit: Visit) -> None:
    page = visit.page
    page.goto(scene.url)
    page.get_by_text("There are no jobs yet.").wait_for()
    page.evaluate("window.here = 1")
    gates["a"] = threading.Event()
    job = scene.submit(Fit, "anneal", ("night",), n=20, stop=10, gate="a", priority=3)
    line = row(page, "anneal")
    state(page, "anneal", "active").wait_for()
    line.get_by_text("10 of 20 steps").wait_for()
    words = line.inner_text()
    assert "mara" in words and "night" in words and "rss" in words and job.id in words
    assert line.get_by_role("progressbar").get_attribute("aria-valuenow") == "50"
    assert page.get_by_text("Live", exact=True).is_visible()
    gates["a"].set()
    state(page, "anneal", "complete").wait_for()
    page.locator("#states button", has_text="Complete1").wait_for()
    scene.service.archive([job.id])
    line.wait_for(state="hidden")
    assert page.evaluate("window.here") == 1


@pytest.mark.row("J17")
def test_filter_search_and_sorting(scene: Scene, visit: Visit) -> None:
    page = visit.page
    for n in (10, 9, 11):
        scene.submit(Square, f"s{n}", ("even",) if n % 2 == 0 else ("odd",), value=n, priority=n).wait(LIMIT_S)
    scene.submit(Square, "other", owner="ole", value=1).wait(LIMIT_S)
    with pytest.raises(Exception, match="purpose"):
        scene.submit(Fail, "bad").wait(LIMIT_S)
    page.goto(scene.url)
    row(page, "s11").wait_for()
    assert names(page) == ["bad", "other", "s11", "s9", "s10"]  # the newest first
    head = page.get_by_role("columnheader", name="Job", exact=True)
    head.get_by_role("button").click()
    see(page, "() => document.querySelector('#rows .name').textContent === 'bad'")
    assert names(page) == ["bad", "other", "s9", "s10", "s11"] and head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    see(page, "() => document.querySelector('#rows .name').textContent === 's11'")
    assert head.get_attribute("aria-sort") == "descending"
    search = page.get_by_role("searchbox")
    for words, wanted in (
        ("even", ["s10"]),
        ("tag:odd s1", ["s11"]),
        ("owner:ole", ["other"]),
        ("service:fail", ["bad"]),
        ("nothing like it", []),
    ):
        search.fill(words)
        see(page, f"() => document.querySelectorAll('#rows tr:not(.spacer):not([hidden])').length === {len(wanted)}")
        assert names(page) == wanted
    page.get_by_text("No job fits").wait_for()
    search.fill("")
    page.get_by_role("button", name=re.compile("^Error")).click()
    see(page, "() => document.querySelectorAll('#rows tr:not(.spacer):not([hidden])').length === 1")
    assert names(page) == ["bad"]
    page.get_by_role("button", name=re.compile("^All")).click()
    page.get_by_role("checkbox", name="Only mine").check()
    who = httpx.get(f"{scene.url}api/v1/me", trust_env=False).json()["user"]
    mine = sum(record.owner == who for record in scene.manager.records.values())
    see(page, f"() => document.querySelectorAll('#rows tr:not(.spacer):not([hidden])').length === {mine}")


@pytest.mark.row("J17", "C26")
def test_one_job_shows_its_messages_its_log_its_plot_and_what_it_waits_for(scene: Scene, visit: Visit) -> None:
    page = visit.page
    gates["a"] = threading.Event()
    first = scene.submit(Fit, "reduction", n=12, stop=7, gate="a", pause=0.21)  # partial results go five times a second
    bad = scene.submit(Fit, "beam time", n=2, stop=1)
    when = first.iscompleted & (bad.iscompleted | bad.failed)
    late = scene.submit(Square, "report", value=5, when=when)
    page.goto(scene.url)
    row(page, "report").click()
    panel = page.get_by_role("complementary")
    panel.get_by_role("heading", name="report").wait_for()
    graph = panel.locator("#graph svg")
    graph.get_by_text("all of", exact=True).wait_for()
    assert graph.locator(".node.pending").count() == 5 and graph.get_by_text("one of", exact=True).count() == 1
    assert "is pending" in panel.locator("#explain").inner_text()
    graph.get_by_role("link", name="reduction, completed: not yet").click()
    panel.get_by_role("heading", name="reduction").wait_for()
    panel.locator("#plot svg .curve").wait_for()
    see(page, "() => /improvements of rss/.test(document.querySelector('#plot svg')?.getAttribute('aria-label'))")
    panel.get_by_label("What to plot").select_option("k")
    see(page, "() => /of k, from/.test(document.querySelector('#plot svg').getAttribute('aria-label'))")
    messages = panel.get_by_role("tabpanel")
    messages.get_by_text("12 steps from here").wait_for()
    assert messages.get_by_text("Improved").count() >= 3
    gates["a"].set()
    messages.get_by_text("Completed").wait_for()
    panel.locator("#result", has_text='"steps": 12').wait_for()
    panel.get_by_text("It has ended").wait_for()
    seen = messages.locator("li").all_inner_texts()
    assert len({text for text in seen if "step " in text}) == len([text for text in seen if "step " in text]) == 12
    panel.get_by_role("tab", name="Log").click()
    see(page, "() => ![...document.querySelectorAll('#messages .kind')].some((e) => e.textContent !== 'info')")
    row(page, "report").click()
    graph.locator(".node.satisfied text", has_text="reduction").wait_for()
    scene.service.abort(bad.id, "the beam is off", grace_s=0.1)
    panel.locator("#result", has_text="25").wait_for()
    assert late.wait(LIMIT_S) == 25 and page.url.endswith(f"#{late.id}")


@pytest.mark.row("J17", "P14")
def test_abort_archive_and_control_from_the_page_with_confirmation(scene: Scene, visit: Visit) -> None:
    page = visit.page
    job = scene.submit(Steps, "counter")
    page.goto(scene.url)
    row(page, "counter").click()
    panel, dialog = page.get_by_role("complementary"), page.get_by_role("dialog")
    panel.get_by_role("button", name="Send a message").click()
    dialog.get_by_label("Kind of message").fill("SetK")
    dialog.get_by_label("Values").fill("{")
    dialog.get_by_role("button", name="Send").click()
    dialog.get_by_text("no JSON").wait_for()
    dialog.get_by_label("Values").fill('{"k": 70000}')
    dialog.get_by_role("button", name="Send").click()
    until(lambda: (job.best or {}).get("k", 0) > 70000)
    panel.get_by_role("button", name="Abort").click()
    dialog.get_by_role("button", name="Keep it").click()
    dialog.wait_for(state="hidden")
    assert scene.manager.record(job.id).state is JobState.ACTIVE
    panel.get_by_role("button", name="Abort").click()
    dialog.get_by_label("Reason").fill("seen enough")
    dialog.get_by_role("button", name="Abort job").click()
    state(page, "counter", "aborted").wait_for()
    assert scene.manager.record(job.id).reason == "seen enough"
    panel.get_by_text("seen enough").first.wait_for()
    panel.get_by_role("button", name="Archive").click()
    dialog.get_by_role("button", name="Archive").click()
    panel.wait_for(state="hidden")
    until(lambda: scene.manager.record(job.id).archived)
    page.get_by_text("There are no jobs yet.").wait_for()


@pytest.mark.row("J17", "R12", "R13", "P25")
def test_a_token_is_asked_for_kept_in_the_session_alone_and_says_what_can_be_done(
    guarded: Scene, visit: Visit
) -> None:
    assert guarded.tokens is not None
    page = visit.page
    mine, others = guarded.submit(Steps, "mine"), guarded.submit(Steps, "secret name", owner="ole")
    token, reader = guarded.tokens.create("mara"), guarded.tokens.create("mara", ["read"])
    page.goto(guarded.url)
    dialog = page.get_by_role("dialog")
    field = dialog.get_by_label("Token")
    assert field.get_attribute("type") == "password" and not names(page)
    field.fill("grid_wrong")
    dialog.get_by_role("button", name="Go on").click()
    dialog.get_by_text("not valid here").wait_for()
    page.keyboard.press("Escape")
    field.fill(token)
    page.keyboard.press("Enter")
    row(page, "mine").wait_for()
    stores = "JSON.stringify({...sessionStorage}), JSON.stringify({...localStorage})"
    session, local, cookies, href = page.evaluate(f"() => [{stores}, document.cookie, location.href]")
    assert token in session and token not in local + cookies + href + page.content()
    assert all(token not in url for url in visit.requests)
    page.reload()
    row(page, others.id).click()
    panel = page.get_by_role("complementary")
    panel.get_by_text("Only its owner").wait_for()
    assert "secret name" not in page.content() and not panel.get_by_role("button", name="Abort").count()
    row(page, "mine").click()
    panel.get_by_role("button", name="Abort").wait_for()
    page.get_by_role("button", name="Forget token").click()
    field.fill(reader)
    page.keyboard.press("Enter")
    page.get_by_text("mara, may look only").wait_for()
    row(page, "mine").click()
    panel.get_by_role("tabpanel").get_by_text("Improved").first.wait_for()
    assert not panel.get_by_role("button", name="Abort").count()
    guarded.tokens.revoke(reader.split("_")[1])
    guarded.silence()  # its streams end; the token is looked at when they come back
    guarded.serve()
    dialog.get_by_text("holds no longer").wait_for()
    assert mine.state == "active"


@pytest.mark.row("J17")
def test_what_jobs_say_is_text_and_never_runs(scene: Scene, visit: Visit) -> None:
    page = visit.page
    evil = HOSTILE.replace(",", "")
    scene.submit(Hostile, evil, ("<b>tag</b>",), x=HOSTILE, owner="<i>ole</i>").wait(LIMIT_S)
    with pytest.raises(Exception, match="script"):
        scene.submit(Hostile, evil, fail=True).wait(LIMIT_S)
    bad = scene.submit(Square, evil, value=1, after=next(iter(scene.manager.records)))
    bad.wait(LIMIT_S)
    page.goto(scene.url)
    row(page, "Hostile").first.wait_for()
    before = page.evaluate("document.querySelectorAll('script, img, b, i').length")
    for job in scene.manager.records:
        row(page, job).click()
        page.get_by_role("heading", name=evil).wait_for()
        page.locator("#result-part").wait_for()
        page.wait_for_timeout(400)
        page.get_by_role("tab", name="Log").click()
        page.get_by_role("tab", name="Messages").click()
    assert evil in names(page) and HOSTILE in page.locator("#rows").inner_text() + page.locator("#panel").inner_text()
    page.get_by_role("searchbox").fill("<script>")
    page.goto(scene.url + "#" + "%3Cimg src=x onerror=window.pwned=3%3E")
    page.get_by_text("There is no such job").wait_for()
    assert page.evaluate("[window.pwned, document.querySelectorAll('script, img, b, i').length]") == [None, before]
    with pytest.raises(Exception, match="TrustedHTML"):  # the browser itself holds the page to it
        page.evaluate("document.body.innerHTML = '<p>x</p>'")
    assert "TrustedHTML" in visit.complaints.pop()


@pytest.mark.row("J17")
def test_by_the_keyboard_alone(scene: Scene, visit: Visit) -> None:
    page, keys = visit.page, visit.page.keyboard
    jobs = [scene.submit(Steps, f"k{n}") for n in range(4)]
    page.goto(scene.url)
    row(page, "k0").wait_for()
    keys.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    keys.type("Steps")
    keys.press("Tab")
    keys.press("Tab") if page.evaluate("document.activeElement.id") != "jobs" else None
    assert page.evaluate("document.activeElement.id") == "jobs"
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    at = "document.getElementById(document.querySelector('#jobs').getAttribute('aria-activedescendant')).innerText"
    assert "k1" in page.evaluate(at)
    keys.press("End")
    assert "k0" in page.evaluate(at)
    keys.press("Enter")
    page.get_by_role("complementary").get_by_role("button", name="Abort").wait_for()
    assert page.evaluate("document.activeElement.id") == "panel-title"
    for _ in range(10):
        keys.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Abort":
            break
    keys.press("Enter")
    page.get_by_role("dialog").wait_for()
    keys.type("by hand")
    keys.press("Enter")
    until(lambda: jobs[0].state == "aborted")
    page.get_by_role("dialog").wait_for(state="hidden")
    page.locator("#panel-state", has_text="aborted").wait_for()
    keys.press("Escape")
    page.get_by_role("complementary").wait_for(state="hidden")
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, textarea, a')].filter((e) => !(e.textContent.trim() ||"
        " e.ariaLabel || e.labels?.length || e.title)).map((e) => e.id)"
    )
    assert nameless == [] and page.evaluate("document.querySelectorAll('[aria-live=assertive]').length") == 0
    assert page.get_by_role("grid", name="Jobs").get_attribute("aria-rowcount") == "5"


def many(number: int) -> list[Record]:
    states = (JobState.COMPLETE, JobState.COMPLETE, JobState.COMPLETE, JobState.ERROR, JobState.PENDING)
    now = time.time()
    return [
        Record(
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
    page.get_by_text("1 host, 10 servers: 3 busy, 7 free").wait_for()
    strip = page.get_by_role("img", name="3 busy, 7 free")
    assert strip.locator(".busy").count() == 3 and strip.locator(".free").count() == 7
    assert strip.locator(".busy").first.get_attribute("title") in {f"runner/{n}, jobs: busy" for n in range(6)}
    page.get_by_role("button", name="Jobs", exact=True).click()
    row(page, "busy0").wait_for()


@pytest.mark.row("J17", "R13")
def test_the_files_of_the_page_carry_strict_headers_and_need_no_token(guarded: Scene) -> None:
    with httpx.Client(base_url=guarded.url, trust_env=False) as client:
        for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
            answer = client.get(path)
            assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff" and "set-cookie" not in answer.headers
            again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304 and not again.content
            assert not re.search(r"""(src|href|url|import)\s*[=(]\s*["']?(https?:)?//""", answer.text)  # nobody else's
            assert client.head(path).status_code == 200 and client.post(path).status_code == 405
        script = client.get("/page.js").text
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
def test_pictures_for_the_docs(scene: Scene, browser: Any, scheme: str) -> None:  # noqa: F811
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
