"""Why a job can't run: the root cause and the last links, at a bounded size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.jobs.conditions.reasons import CAUSES, LINKS, ROOT_CHARS, Reason, follow, join

pytestmark = pytest.mark.row("T03", "C26")


@given(st.integers(1, 60))
def test_a_chain_names_its_root_and_its_last_links(length: int) -> None:
    reason: str = "no such file"
    for number in range(1, length + 1):
        reason = follow(f"job {number} failed", reason)
    assert isinstance(reason, Reason) and reason.root == "job 1 failed: no such file"
    assert reason.links == tuple(f"job {number} failed" for number in range(length, max(1, length - LINKS), -1))
    assert reason.skipped == max(0, length - 1 - LINKS)
    assert (f"... {reason.skipped:,} more ..." in reason) is (reason.skipped > 0)
    assert len(reason) < 200


def test_a_stored_reason_is_a_root_like_any_other() -> None:
    long = follow("job 2 was cancelled", str(follow("job 1 failed", "x" * 10_000)))
    assert long.links == () and len(long) <= ROOT_CHARS + 50 and "more)" in long
    assert follow("job 1 failed", "") == "job 1 failed"
    assert "\x1b" not in follow("job 1 failed", "\x1b[2J")


@given(st.lists(st.sampled_from(["", "a", "b", "c", "d", "e"])))
def test_several_causes_are_named_or_counted(reasons: list[str]) -> None:
    found = list(dict.fromkeys(filter(None, reasons)))
    said = join(reasons)
    assert said.split("; and ")[0] == "; ".join(found[:CAUSES])
    assert said.endswith(f"; and {len(found) - CAUSES} more") is (len(found) > CAUSES)


def test_one_alone_stays_what_it_is() -> None:
    reason = follow("job 2", follow("job 1", "x"))
    assert join(["", reason, reason]) is reason and join([]) == ""
