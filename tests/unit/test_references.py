"""Results that are not there yet: no truth value, no length; found in plain values, and resolved by their path."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.jobs.host.errors import RequestError
from grid.jobs.host.plain import from_plain, to_plain
from grid.jobs.host.references import Field, Reference, from_content, jobs_in, part_of

pytestmark = pytest.mark.row("C29", "C30", "Y02")


@pytest.mark.parametrize(
    "use",
    [bool, len, list, lambda r: 1 in r, lambda r: r == 1, lambda r: r != 1, lambda r: r < 1, lambda r: r >= 1,
     lambda r: r == Reference("job-1"), lambda r: operator.gt(r, r)],
)  # fmt: skip
def test_nobody_takes_it_for_a_value(use: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="is not there yet"):
        use(Reference("job-1"))


def test_it_can_be_a_key_and_lead_to_a_part() -> None:
    whole = Reference("job-1", ask=lambda timeout: {"rss": [1.5, timeout]})
    assert whole["rss"][1].value(3) == 3 and whole["rss"].value() == [1.5, None]
    assert {whole: 1}[whole] == 1 and hash(whole) == hash(Reference("job-1")) and whole in [whole]
    assert repr(whole["rss"][0]) == "<result of job-1['rss'][0]>"
    with pytest.raises(KeyError):
        whole["none"].value()
    with pytest.raises(RequestError, match="no job server to ask"):
        Reference("job-1").value()


def test_both_travel_in_plain_values() -> None:
    plain = to_plain({"a": [Reference("job-1")["x"][0]], "b": Field("out.txt", "job-2", "filename")}, "data")
    back = from_plain(plain)
    assert back["a"][0].path == ("x", 0) and back["a"][0].job == "job-1"
    assert (back["b"], back["b"].job, back["b"].name) == ("out.txt", "job-2", "filename")
    assert jobs_in(plain) == {"job-1", "job-2"}
    copy = pickle.loads(pickle.dumps(back["b"]))
    assert (copy, copy.job, copy.name) == ("out.txt", "job-2", "filename")


@pytest.mark.parametrize("content", [None, {}, {"job": "x"}, [], {"job": "x", "path": 5}])
@pytest.mark.parametrize("key", ["$ref", "$field"])
def test_what_is_no_reference_is_refused(key: str, content: Any) -> None:
    with pytest.raises(RequestError, match="no reference to a job"):
        from_content(key, content)


plain_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text("ab", max_size=2), each, max_size=3),
    max_leaves=10,
)


@given(plain_values, st.lists(st.text("xyz", min_size=1, max_size=3), max_size=4))
def test_all_jobs_are_found_and_nothing_else(rest: Any, jobs: list[str]) -> None:
    value = [rest, {"deep": [{"$ref": {"job": job, "path": []}} for job in jobs], "rest": rest}]
    assert jobs_in(value) == set(jobs) and jobs_in(rest) == set()


def test_what_only_looks_like_one_is_none() -> None:
    assert jobs_in({"$ref": 5}) == set() and jobs_in({"$ref": {"job": "a"}, "more": 1}) == set()
    assert part_of([{"a": 1}], [0, "a"]) == 1 and part_of(5, ()) == 5
