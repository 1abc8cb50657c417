"""A profile as speedscope's JSON and as a flame graph; sampling, without a grid."""

from __future__ import annotations

import html.parser
import json
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from grid.kernel import sampler
from grid.kernel.sampler import Sampler, Slowdown
from grid.kernel.stacks import LookedAt
from grid.services.profile import Profile, ServerProfile

pytestmark = pytest.mark.row("I06")
SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "speedscope.json").read_text())


def told(**more: Any) -> dict[str, Any]:
    """What a server wrote: 1 s in `solve` below `run`, 3 s in `<lambda>` below it, 4 s idle; a thread of its own."""
    return {
        "pid": 7, "why": "", "seconds": 8.0, "slowed": 0.02, "looks": 800,
        "frames": [["run", "/a/fit.py", 1], ["solve", "/a/fit.py", 9], ["<lambda>", "/b/it's \ud800.py", 3]],
        "stacks": [[0, 1], [0, 2]],
        "threads": [
            {"name": "MainThread", "runs": [[0, 1.0], [-1, 4.0], [1, 3.0]]},
            {"name": 'my "thread"</p><script>', "runs": [[0, 8.0]]},
        ],
        **more,
    }  # fmt: skip


PROFILE = Profile(
    "Fit.0",
    (
        ServerProfile.read("Fit.0/0", "node1", told()),
        ServerProfile.read("Fit.0/1", "node2", told(frames=[["run", "/a/fit.py", 1], ["f", "g", 0], ["h", "i", 2]])),
        ServerProfile.read("Fit.0/2", "node3", {"why": "its process ended during the profile"}),
    ),
)


def test_speedscope_gets_what_its_schema_asks_for() -> None:
    made = json.loads(json.dumps(PROFILE.speedscope()))
    jsonschema.validate(made, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**made, "profiles": [{"type": "sampled"}]}, SCHEMA)
    frames = made["shared"]["frames"]
    assert len(frames) == 5, "frames of all servers are shared"
    first, second = made["profiles"][0], made["profiles"][2]
    assert first["name"] == "Fit.0/0 on node1" and first["endValue"] == 8.0 == sum(first["weights"])
    assert [[frames[at]["name"] for at in one] for one in first["samples"]] == [
        ["run", "solve"],
        [],
        ["run", "<lambda>"],
    ]
    assert [[frames[at]["name"] for at in one] for one in second["samples"]] == [["run", "f"], [], ["run", "h"]]
    assert len(made["profiles"]) == 4


class Boxes(html.parser.HTMLParser):
    """Titles of a page's boxes, and whether all that was opened was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        if tag != "meta":
            self.open.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_flame_graph_adds_servers_up_and_takes_no_name_for_markup() -> None:
    page = PROFILE.flame_graph()
    boxes = Boxes()
    boxes.feed(page)
    assert not boxes.open
    assert "Fit.0: 24.00 s, 100.0 %" in boxes.titles and "run (fit.py:1): 8.00 s, 33.3 %" in boxes.titles
    assert 'thread my "thread"</p><script>: 16.00 s, 66.7 %' in boxes.titles
    assert any(title.startswith("<lambda> (it's \\ud800.py:3): 3.00 s") for title in boxes.titles)
    assert "Fit.0/2 on node3: its process ended during the profile" in page
    assert "slowed by 2.0 %" in PROFILE.summary() and "2 of 3 servers" in PROFILE.summary()
    assert "No server ran a call" in Profile("x", ()).flame_graph()


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    PROFILE.write(tmp_path / "p.html")
    PROFILE.write(tmp_path / "p.json")
    assert "<html" in (tmp_path / "p.html").read_text()
    jsonschema.validate(json.loads((tmp_path / "p.json").read_text()), SCHEMA)
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        PROFILE.write(tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "p.json", "taken"]


def test_a_thread_of_the_users_is_sampled_where_it_is(tmp_path: Path) -> None:
    ended = threading.Event()

    def waits_here() -> None:
        ended.wait(60)

    other = threading.Thread(target=waits_here, name="theirs")
    other.start()
    one = LookedAt("Fit.0/0", 1, tmp_path / "p1.t")
    made = Sampler(0.1, 0.005, str(sampler.file_of(one.path)))
    made.start()
    made.join(30)
    ended.set()
    other.join()
    (found,) = sampler.wait_for([one], 0.1, lambda name: False)
    names = {thread["name"]: thread["runs"] for thread in found["threads"]}
    (stack, seconds), *_ = max(names["theirs"], key=lambda run: run[1]), None
    functions = [found["frames"][at][0] for at in found["stacks"][int(stack)]]
    assert any(name.endswith("waits_here") for name in functions) and seconds == pytest.approx(found["seconds"])
    assert "grid-sampler" not in names and found["looks"] >= 1 and found["seconds"] >= 0.1
    assert not list(tmp_path.iterdir()), "the file was taken"


def test_a_server_that_ended_one_that_says_nothing_and_a_damaged_file_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "_GRACE_S", 0.05)
    servers = [LookedAt(f"A.0/{n}", 999_999_999, tmp_path / f"p{n}.t") for n in range(3)]
    sampler.file_of(servers[2].path).write_text('{"seconds": ')
    found = sampler.wait_for(servers, 0.0, lambda name: name == "A.0/0")
    why = {one["name"]: one["why"] for one in found}
    assert why["A.0/0"] == "its process ended during the profile"
    assert "gave no profile within" in why["A.0/1"] and "can't be read" in why["A.0/2"]
    damaged = ServerProfile.read("A.0/2", "h", {"name": "A.0/2", "pid": 1, "why": why["A.0/2"]})
    assert damaged.why and damaged.busy_s == 0


def test_slowing_compares_the_speed_with_and_without_looks() -> None:
    slowing = Slowdown()
    assert slowing.share() == 0.0
    slowing.add((0.0, 0.0), (1.0, 0.8), (1.5, 1.3))  # 80 % of a core while looked at, all of it while not
    assert slowing.share() == pytest.approx(0.2)
    waits = Slowdown()
    waits.add((0.0, 0.0), (1.0, 0.0), (1.5, 0.01))
    assert waits.share() == 0.0
