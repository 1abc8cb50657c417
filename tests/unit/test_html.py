"""Tables for notebooks: nothing in them is markup of somebody else."""

from __future__ import annotations

from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.services import html

pytestmark = pytest.mark.row("D03")


class Read(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.said = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


words = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=30)


@given(words, words, words)
def test_no_value_is_markup(title: str, name: str, value: str) -> None:
    plain, found = Read(html.table("t", ["n"], [["v"]])), Read(html.table(title, [name], [[value]]))
    assert found.tags == plain.tags and found.open == [] and found.said == title + name + value
    assert Read(html.facts(title, {name: value})).said == title + name + value


def test_a_cell_is_bounded() -> None:
    assert html.text("x" * 400) == "x" * 400 and html.text("x" * 401) == "x" * 397 + "..."
    assert len(Read(html.text("<" * 10_000)).said) == 400


@pytest.mark.parametrize(("done", "total", "said"), [(1, 4, "1 of 4"), (2, None, "2 of ?"), (0, 0, "0 of 0")])
def test_how_far_something_is(done: int, total: int | None, said: str) -> None:
    text = html.bar("b", done, total)
    assert said in text and ("value=" in text) is (total is not None) and 'max="0"' not in text


def test_a_grid_and_a_server() -> None:
    server = {"name": "M.0/1", "calls": 3}
    service = {"servers": [server, server], "free": 1, "acquired": 1, "starting": 0, "waiting": 2}
    status = {
        "grid": "LocalGrid",
        "name": "<mine>",
        "hosts": ["n1"],
        "services": {"M.0": service},
        "failures": {"n2": "down"},
    }
    said = Read(html.grid(status)).said
    assert "LocalGrid <mine>" in said and "M.0211026" in said and "n2down" in said
    assert "failures" not in html.grid({**status, "failures": {}})
    load = SimpleNamespace(calls=2, mean=0.12345)
    one = SimpleNamespace(
        name="M.0/1", host=SimpleNamespace(label="n1"), state=SimpleNamespace(value="free"), doing=lambda: "", load=load
    )
    assert html.server(one) == ("M.0/1", "n1", "free", "", 2, "0.123 s") and len(html.SERVERS) == 6
