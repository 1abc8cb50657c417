"""The page of a job server in a real browser: what it shows, what it lets people do, what it never does."""

# ruff: noqa: F811 - fixtures are imported, and named by the tests

from __future__ import annotations

import re
import threading

import httpx
import pytest

from grid.jobs import JobState
from tests.edges.jobs_services import Fail, Square, Steps
from tests.edges.page_scene import LIMIT_S, Scene, guarded, names, row, scene, see, state, until, visit  # noqa: F401 - fixtures
from tests.edges.page_services import HOSTILE, Fit, Hostile, gates
from tests.lab.browser import Visit, browser  # noqa: F401 - a fixture


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
    until(lambda: names(page) == ["bad", "other", "s11", "s9", "s10"])  # the newest first
    head = page.get_by_role("columnheader", name="Job", exact=True)
    head.get_by_role("button").click()
    until(lambda: names(page) == ["bad", "other", "s9", "s10", "s11"])
    assert head.get_attribute("aria-sort") == "ascending"
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
        until(lambda wanted=wanted: names(page) == wanted)  # type: ignore[misc]
    page.get_by_text("No job fits").wait_for()
    search.fill("")
    page.get_by_role("button", name=re.compile("^Error")).click()
    until(lambda: names(page) == ["bad"])
    page.get_by_role("button", name=re.compile("^All")).click()
    page.get_by_role("checkbox", name="Only mine").check()
    who = httpx.get(f"{scene.url}api/v1/me", trust_env=False).json()["user"]
    mine = sum(record.owner == who for record in scene.manager.records.values())
    until(lambda: len(names(page)) == mine)


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


@pytest.mark.row("J17", "C42")
def test_what_a_job_waited_for_stays_true_when_it_has_ended(scene: Scene, visit: Visit) -> None:
    page = visit.page
    gates["a"] = threading.Event()
    first = scene.submit(Fit, "reduction", n=12, stop=7, gate="a")
    late = scene.submit(Square, "report", value=5, when=first.result("k > 3") & first.iscompleted)
    page.goto(scene.url)
    row(page, "report").click()
    graph = page.get_by_role("complementary").locator("#graph svg")
    graph.get_by_role("link", name="reduction, completed: not yet").wait_for()
    gates["a"].set()
    assert late.wait(LIMIT_S) == 25
    graph.get_by_role("link", name="reduction, completed: yes").wait_for()
    graph.get_by_role("link", name="reduction, result k > 3: yes").wait_for()
    assert graph.locator(".node.satisfied").count() == 3
    scene.service.archive([first.id])
    scene.service.delete([first.id])
    page.reload()
    graph.get_by_role("link", name=f"{first.id}, completed: yes").wait_for()
    assert graph.locator(".node.satisfied").count() == 3


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
def test_a_token_is_asked_for_kept_in_the_session_alone_and_says_what_can_be_done(guarded: Scene, visit: Visit) -> None:
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
